"""The routers by name. A new one is one file in this folder and one line here."""

from __future__ import annotations

from typing import Final

from moesim.routing.routers.additive_testtime import AdditiveTesttime
from moesim.routing.routers.attention_importance_k import AttentionImportanceK
from moesim.routing.routers.batch_priority import BatchPriority
from moesim.routing.routers.bias_lossfree import BiasLossfree
from moesim.routing.routers.bilevel_smile import BilevelSmile
from moesim.routing.routers.cluster_moec import ClusterMoec
from moesim.routing.routers.codebook_vq import CodebookVq
from moesim.routing.routers.compete import Compete
from moesim.routing.routers.conditioned_topk import ConditionedTopk
from moesim.routing.routers.cosine_xmoe import CosineXmoe
from moesim.routing.routers.depth_duo_drllm import DepthDuoDrllm
from moesim.routing.routers.entropy_tsallis_dynmole import EntropyTsallisDynmole
from moesim.routing.routers.expert_choice import ExpertChoice
from moesim.routing.routers.fleet_policy import FleetPolicy
from moesim.routing.routers.frozen_map import FrozenMap
from moesim.routing.routers.group_limited_topk import GroupLimitedTopk
from moesim.routing.routers.gshard_top2 import GshardTop2
from moesim.routing.routers.gw_broadcast import GwBroadcast
from moesim.routing.routers.hash import Hash
from moesim.routing.routers.iterated_coe import IteratedCoe
from moesim.routing.routers.locality_locmoe import LocalityLocmoe
from moesim.routing.routers.mixture_of_routers import MixtureOfRouters
from moesim.routing.routers.noisy_topk import NoisyTopk
from moesim.routing.routers.null_adamoe import NullAdamoe
from moesim.routing.routers.patch_topl import PatchTopl
from moesim.routing.routers.pool_rexmoe import PoolRexmoe
from moesim.routing.routers.pregated_readme import PregatedReadme
from moesim.routing.routers.prior_dirichlet import PriorDirichlet
from moesim.routing.routers.product_cartesian import ProductCartesian
from moesim.routing.routers.prototypes_k_top1 import PrototypesKTop1
from moesim.routing.routers.random_thor import RandomThor
from moesim.routing.routers.rectify_fill_in import RectifyFillIn
from moesim.routing.routers.rectify_intra_gpu import RectifyIntraGpu
from moesim.routing.routers.recurrent_rmoe import RecurrentRmoe
from moesim.routing.routers.reduce_k_or_E import ReduceKOrE
from moesim.routing.routers.relu_remoe import ReluRemoe
from moesim.routing.routers.replay_mask_r3 import ReplayMaskR3
from moesim.routing.routers.router import Router
from moesim.routing.routers.sam import Sam
from moesim.routing.routers.scope_static import ScopeStatic
from moesim.routing.routers.shared_omni import SharedOmni
from moesim.routing.routers.similarity_mix import SimilarityMix
from moesim.routing.routers.sinkhorn_base import SinkhornBase
from moesim.routing.routers.smear import Smear
from moesim.routing.routers.soft_moe import SoftMoe
from moesim.routing.routers.speculative_shuffle import SpeculativeShuffle
from moesim.routing.routers.switch_top1 import SwitchTop1
from moesim.routing.routers.threshold import Threshold
from moesim.routing.routers.top_p import TopP
from moesim.routing.routers.topk_softmax import TopkSoftmax
from moesim.routing.routers.two_step_promoe import TwoStepPromoe
from moesim.routing.routers.vocab_mask import VocabMask
from moesim.routing.routers.zero_copy_const_moepp import ZeroCopyConstMoepp

registry: Final[dict[str, type[Router]]] = {
    "switch_top1": SwitchTop1,
    "gshard_top2": GshardTop2,
    "topk_softmax": TopkSoftmax,
    "noisy_topk": NoisyTopk,
    "cosine_xmoe": CosineXmoe,
    "group_limited_topk": GroupLimitedTopk,
    "expert_choice": ExpertChoice,
    "sinkhorn_base": SinkhornBase,
    "hash": Hash,
    "random_thor": RandomThor,
    "frozen_map": FrozenMap,
    "vocab_mask": VocabMask,
    "codebook_vq": CodebookVq,
    "top_p": TopP,
    "threshold": Threshold,
    "attention_importance_k": AttentionImportanceK,
    "relu_remoe": ReluRemoe,
    "null_adamoe": NullAdamoe,
    "zero_copy_const_moepp": ZeroCopyConstMoepp,
    "entropy_tsallis_dynmole": EntropyTsallisDynmole,
    "gw_broadcast": GwBroadcast,
    "prototypes_k_top1": PrototypesKTop1,
    "sam": Sam,
    "bilevel_smile": BilevelSmile,
    "locality_locmoe": LocalityLocmoe,
    "product_cartesian": ProductCartesian,
    "cluster_moec": ClusterMoec,
    "shared_omni": SharedOmni,
    "recurrent_rmoe": RecurrentRmoe,
    "pool_rexmoe": PoolRexmoe,
    "iterated_coe": IteratedCoe,
    "pregated_readme": PregatedReadme,
    "bias_lossfree": BiasLossfree,
    "prior_dirichlet": PriorDirichlet,
    "additive_testtime": AdditiveTesttime,
    "similarity_mix": SimilarityMix,
    "mixture_of_routers": MixtureOfRouters,
    "scope_static": ScopeStatic,
    "patch_topl": PatchTopl,
    "two_step_promoe": TwoStepPromoe,
    "soft_moe": SoftMoe,
    "smear": Smear,
    "compete": Compete,
    "depth_duo_drllm": DepthDuoDrllm,
    "rectify_intra_gpu": RectifyIntraGpu,
    "rectify_fill_in": RectifyFillIn,
    "batch_priority": BatchPriority,
    "reduce_k_or_E": ReduceKOrE,
    "speculative_shuffle": SpeculativeShuffle,
    "replay_mask_r3": ReplayMaskR3,
    "fleet_policy": FleetPolicy,
    "conditioned_topk": ConditionedTopk,
}
