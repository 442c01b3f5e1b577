"""Models: a Hugging Face config.json -> MoEModel, which counts parameters, FLOPs and bytes."""

from moesim.models.compressed import Compressed
from moesim.models.inline import InlineModel
from moesim.models.load import find_model, known_models, load_model, load_played, load_routed, load_trained
from moesim.models.mixer import INDEX_BYTES, Attention, Gemm, Linear, Mixer, NoMixer
from moesim.models.model import CACHE_BYTES, DTYPE_BYTES, NVFP4, MoEModel, row_bytes, value_bytes
from moesim.models.registry import REGISTRY

__all__ = [
    "CACHE_BYTES",
    "DTYPE_BYTES",
    "INDEX_BYTES",
    "NVFP4",
    "REGISTRY",
    "Attention",
    "Compressed",
    "Gemm",
    "InlineModel",
    "Linear",
    "Mixer",
    "MoEModel",
    "NoMixer",
    "find_model",
    "known_models",
    "load_model",
    "load_played",
    "load_routed",
    "load_trained",
    "row_bytes",
    "value_bytes",
]
