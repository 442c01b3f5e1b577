"""`load_model`: a shipped name, the path of a config.json, or an inline description -> MoEModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moesim import foreign, shipped, yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.models.config import Config, read_config
from moesim.models.inline import MAX_LAYERS, InlineModel, decoder
from moesim.models.mixer import Linear
from moesim.models.model import MoEModel
from moesim.models.registry import REGISTRY, nearest

FOLDER = "workloads/models"
SUFFIX = "_config.json"


def load_model(source: str | Path | InlineModel | Mapping[str, Any], weights: str | None = None) -> MoEModel:
    """A shipped name ("deepseek-ai/DeepSeek-V3" or "DeepSeek-V3"), a config.json or its folder, a .yaml path, or
    an inline mapping. weights: the dtype that weights are taken as whatever a config.json says, so that a quantisation
    that nobody checked is no reason to refuse it.

    Raises BadInput: unknown names with the known ones, a family that was not checked with the list of those that were.
    """
    if isinstance(source, InlineModel):
        return _checked(source.build(""), "")
    if isinstance(source, Mapping):
        given = yamlfile.validate(InlineModel, dict(source), lambda keys: yamlfile.dotted(("model", *keys)))
        return _checked(given.build("model"), "model")
    path = find_model(str(source))
    if path.suffix in {".yaml", ".yml"}:
        document = yamlfile.read_yaml(path)
        return _checked(document.validate(InlineModel).build(document.where()), document.where())
    with foreign.reading(path, "model's config.json"):
        config = replace(read_config(path), given=weights or "")
        return _from_config(config, config.name)


def load_played(source: str | Path | InlineModel | Mapping[str, Any], weights: str | None = None) -> MoEModel:
    """`load_model` where steps are played. Raises BadInput for a model with an encoder: which of its layers a token
    goes through depends on which half it belongs to.
    """
    model = load_model(source, weights)
    if model.encoder_layers:
        size, halves = model.total_parameters / 1e9, (model.encoder_layers, model.num_layers - model.encoder_layers)
        raise BadInput(
            f"{model.name} ({size:.4g} B parameters, {halves[0]} layers of an encoder and {halves[1]} of a decoder) is "
            "counted, but steps of it are not played",
            where=str(source),
            way_out=f"its decoder without attention to the encoder's output, model: {decoder(model)}",
        )
    return model


def load_trained(source: str | Path | InlineModel | Mapping[str, Any], weights: str | None = None) -> MoEModel:
    """`load_played` where a backward pass follows. Raises BadInput for hyper-connections, of whose backward pass and
    activations nothing is known.
    """
    model = load_played(source, weights)
    if model.hyper:
        raise BadInput(
            f"{model.name} has hyper-connections in {model.hyper} copies, whose backward pass is not modelled",
            where=str(source),
            way_out="batch.phase: prefill or decode, mode: serve; or another model",
        )
    return model


def load_routed(source: str | Path) -> MoEModel:
    """`load_model` where experts are what it is about. Raises BadInput for a model without."""
    model = load_model(source)
    if not model.routed:
        raise BadInput(f"{model.name} has no experts", where=str(source), way_out="a Mixture-of-Experts model")
    return model


def known_models() -> dict[str, Path]:
    """name -> file of the shipped models."""
    configs = {name.replace("--", "/"): path for name, path in shipped.names(FOLDER, SUFFIX).items()}
    return dict(sorted({**configs, **shipped.names(FOLDER, ".yaml")}.items()))


def find_model(name: str) -> Path:
    """A path as it is, or the file of a shipped name. Raises BadInput with the known names."""
    path = Path(name)
    if path.suffix in {".json", ".yaml", ".yml"}:
        return path
    known = known_models()
    if name not in known and (path / "config.json").is_file():  # a folder is never mistaken for a shipped short name
        return path / "config.json"
    short = {full.split("/")[-1].lower(): file for full, file in known.items()}
    found = known.get(name) or short.get(name.split("/")[-1].lower())
    if found is None:
        raise unknown_name("model", name, known)
    return found


def _from_config(config: Config, name: str) -> MoEModel:
    family = config.data.get("model_type")
    if not isinstance(family, str | None):
        raise BadInput(f"{str(family)[:40]} is no name", where=f"{config.source} model_type")
    if family not in REGISTRY:
        advice = nearest(config.text(), REGISTRY)
        raise BadInput(
            f"model_type {family!r} is not one whose parameter counts were checked",
            where=config.source,
            way_out=f"{advice}or describe the model inline in YAML; known: {', '.join(sorted(REGISTRY))}",
        )
    text = config.text()
    blocks = text.data.get("layers_block_type")  # Nemotron-H may give no number beside it
    named = ("num_hidden_layers", "num_layers", "encoder_layers")
    layers = len(blocks) if isinstance(blocks, list) else text.integer(*named)
    if layers > MAX_LAYERS:
        raise BadInput(f"more than {MAX_LAYERS} layers", where=f"{text.source} num_hidden_layers")
    family_fields = REGISTRY[family](text)
    if "top_k" not in family_fields:
        family_fields["top_k"] = text.integer("num_experts_per_tok", "experts_per_token")
    fields = {
        "weight_dtype": text.weight_dtype,
        "expert_dtype": text.expert_dtype,
        "kv_dtype": text.kv_dtype,
        "fp4_block": text.fp4_block,
        **family_fields,
    }
    notes = (*fields.pop("approximations", ()), *text.dtype_notes)
    return _checked(
        MoEModel(
            name=name,
            model_type=family,
            approximations=notes,
            hidden_size=fields.pop("hidden_size", None) or text.integer("hidden_size"),
            num_layers=fields.pop("num_layers", layers),
            vocab_size=text.integer("vocab_size"),
            tie_embeddings=fields.pop("tie_embeddings", bool(text.data.get("tie_word_embeddings", False))),
            **fields,
        ),
        config.source,
    )


def _checked(model: MoEModel, source: str) -> MoEModel:
    heads = model.attention
    widths = {
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        **({"expert width": model.expert_intermediate} if model.routed else {"FFN width": model.dense_intermediate}),
        "num_attention_heads": heads.num_heads,
        "num_key_value_heads": heads.num_kv_heads,
        "head_dim": heads.query_head_dim,
    }
    for mixer in model.mixers:
        if isinstance(mixer, Linear):
            widths |= {name: getattr(mixer, name) for name in ("key_heads", "key_dim", "value_heads", "value_dim")}
    empty = [name for name, width in widths.items() if width < 1]
    if empty:
        raise BadInput(f"{empty[0]} is 0", where=source)
    if heads.num_heads % heads.num_kv_heads:
        raise BadInput(f"{heads.num_heads} heads share {heads.num_kv_heads} key-value heads unevenly", where=source)
    some = model.routed or model.num_experts or model.top_k
    if some and not (model.routed and 1 <= model.top_k <= model.num_experts < 65535):
        raise BadInput(
            f"{len(model.moe_layers)} expert layers with top-{model.top_k} of {model.num_experts} experts", where=source
        )
    if model.num_experts % model.num_groups or not 1 <= model.topk_groups <= model.num_groups:
        raise BadInput(
            f"{model.num_experts} experts in {model.num_groups} groups, {model.topk_groups} used", where=source
        )
    return model
