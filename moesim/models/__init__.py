"""Models: a Hugging Face config.json -> MoEModel, which counts parameters, FLOPs and bytes."""

from moesim.models.families import REGISTRY
from moesim.models.load import InlineModel, find_model, known_models, load_model, load_routed
from moesim.models.model import DTYPE_BYTES, Attention, Gemm, MoEModel

__all__ = [
    "DTYPE_BYTES",
    "REGISTRY",
    "Attention",
    "Gemm",
    "InlineModel",
    "MoEModel",
    "find_model",
    "known_models",
    "load_model",
    "load_routed",
]
