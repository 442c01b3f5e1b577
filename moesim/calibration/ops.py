"""The operators that records speak of: which columns say how large one is, and which of them make an unseen shape."""

from __future__ import annotations

from typing import Final, NamedTuple

from moesim.errors import pick


class Op(NamedTuple):
    """family: whose error it shares in a run; shape: columns of FIELDS whose values are held out together; size: the
    column whose bands errors are split by; meaning: what is timed.
    """

    family: str
    shape: tuple[str, ...]
    size: str
    meaning: str


SPARSE: Final = ("hidden", "heads", "batch")
MODULE: Final = ("heads", "batch")
ATTENTION: Final = ("heads", "kv_heads", "head_dim", "window")

OPS: Final[dict[str, Op]] = {
    "gemm": Op("gemm", ("n", "k"), "m", "y[m, n] = x[m, k] w[k, n]"),
    "grouped_gemm": Op(
        "grouped_gemm",
        ("hidden", "inter", "topk", "experts"),
        "tokens",
        "experts of one rank over group_sizes rows; matrices = 1: one bare GEMM [hidden, inter] each; 2 or 3: the "
        "whole FFN without or with a gate, and whatever the kernel fuses with it",
    ),
    "attention_prefill": Op("attention", ATTENTION, "query", "causal core, `query` new after `context` cached tokens"),
    "attention_decode": Op("attention", ATTENTION, "context", "core of one new token over `context` cached tokens"),
    "attention_encoder": Op("attention", ("query",), "query", "core where every token attends to all `query` tokens"),
    "mla_prefill": Op("attention", ("heads", "batch"), "query", "latent attention, keys and values expanded"),
    "mla_decode": Op("attention", ("heads", "batch"), "context", "latent attention in the latent space"),
    "absorbed": Op("attention", ("heads", "tokens"), "tokens", "projections into the latent space and out of it"),
    "latent_prefill": Op("attention", MODULE, "query", "module of latent attention: projections, small kernels, core"),
    "latent_decode": Op("attention", MODULE, "context", "the same of one new token"),
    "dsa_prefill": Op("attention", SPARSE, "query", "module of sparse attention: projections, indexer, core"),
    "dsa_decode": Op("attention", SPARSE, "context", "the same of one new token"),
    "dsa_reuse_prefill": Op("attention", SPARSE, "query", "the same with an earlier layer's picks, without an indexer"),
    "dsa_reuse_decode": Op("attention", SPARSE, "context", "the same of one new token"),
    "csa_prefill": Op("attention", SPARSE, "query", "module of compressed attention with an indexer (DeepSeek-V4)"),
    "csa_decode": Op("attention", SPARSE, "context", "the same of one new token"),
    "hca_prefill": Op("attention", SPARSE, "query", "module of compressed attention to all blocks (DeepSeek-V4)"),
    "hca_decode": Op("attention", SPARSE, "context", "the same of one new token"),
    "msa_prefill": Op("attention", MODULE, "query", "module of attention to picked blocks (MiniMax-M3)"),
    "msa_decode": Op("attention", MODULE, "context", "the same of one new token"),
    "hyper_pre": Op("elementwise", ("hidden", "tokens"), "tokens", "hyper-connections before a block, four copies"),
    "hyper_post": Op("elementwise", ("hidden", "tokens"), "tokens", "and behind it"),
    "conv_prefill": Op("recurrence", ("hidden",), "query", "causal convolution of `hidden` channels"),
    "conv_decode": Op("recurrence", ("hidden",), "batch", "the same of one new token, with the last inputs"),
    "gdn_prefill": Op("recurrence", ("heads", "kv_heads"), "query", "gated delta rule over `query` tokens, in chunks"),
    "gdn_decode": Op("recurrence", ("heads", "kv_heads"), "batch", "gated delta rule of one new token"),
    "kda_prefill": Op("recurrence", ("heads", "kv_heads"), "query", "Kimi delta attention, in chunks"),
    "kda_decode": Op("recurrence", ("heads", "kv_heads"), "batch", "Kimi delta attention of one new token"),
    "permute": Op("elementwise", ("hidden", "topk"), "tokens", "rows sorted by expert"),
    "unpermute": Op("elementwise", ("hidden", "topk"), "tokens", "rows back in order, weighted and summed"),
    "activation": Op("elementwise", ("inter",), "bytes", "between the two GEMMs of experts, in one kernel"),
    "elementwise": Op("elementwise", (), "bytes", "a kernel that only moves `bytes`"),
    "copy_h2d": Op("copy", (), "bytes", "host to device"),
    "copy_d2h": Op("copy", (), "bytes", "device to host"),
    "all_reduce": Op("network", ("world",), "bytes", "collective; bytes: the buffer of one rank"),
    "all_gather": Op("network", ("world",), "bytes", "collective; bytes: what one rank holds at the end"),
    "reduce_scatter": Op("network", ("world",), "bytes", "collective; bytes: what one rank holds at the start"),
    "all_to_all": Op("network", ("world",), "bytes", "bytes: what one rank sends at most, itself included"),
    "point_to_point": Op("network", (), "bytes", "one sender, one receiver"),
    "dispatch": Op("network", ("hidden", "topk", "experts"), "tokens", "tokens of one rank to their experts"),
    "combine": Op("network", ("hidden", "topk", "experts"), "tokens", "and back, summed"),
    "overlap": Op("interference", ("hidden", "inter"), "tokens", "a grouped GEMM while a collective runs"),
    "moe_layer": Op("moe_layer", ("hidden", "inter", "topk", "experts"), "tokens", "a whole layer: the truth"),
}  # fmt: skip


def find_op(name: str, *, where: str = "") -> Op:
    """The operator of that name. Raises BadInput with the known ones."""
    return pick("operator", name, OPS, where=where)
