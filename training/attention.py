"""Attention that follows declared boundaries, whatever the positions do.

Hugging Face models take any position step other than +1 for the border of a packed document, so a row with jumping
positions is silently cut: the response never sees its instruction. Here boundaries come as `cu_seq_lens_*` through the
model call and positions serve RoPE alone. Registered under a name without a mask function of its own, so transformers
builds no mask and guesses no boundary; a call without boundaries is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PretrainedConfig, PreTrainedModel

from training.batch import Batch, ends_of
from training.errors import AttentionError
from training.flex import flex
from training.influence import Forward, check_influence, sequence_numbers

NAME = "longweave_boundaries"
"""Our name at transformers. "flash" must not be part of it: that would set off the download of a kernel."""

KINDS = {"auto": NAME, "varlen": f"{NAME}_varlen", "flex": f"{NAME}_flex", "exact": f"{NAME}_exact"}
"""The names at transformers of what model.attention chooses among."""
_ASKED: list[set[int]] = []
"""The modules that have called this attention, while check_routed counts them. (A ContextVar would break every compiled
graph in two.)"""

CHECKED = 8192
"""Tokens of the first packed row that a model is run on to check its attention: passes in float32 over 131,072 tokens would
take minutes each on a GPU, and what a boundary or a jump does shows on any number."""

COMPARED = 131_072
"""Tokens of it on which a kernel's outputs are compared: of a row that is shared by ranks no one of them may hold more."""

ONE_AT_A_TIME = frozenset({"bloom"})
"""Types of models that cannot be told boundaries but take no positions either: they are run a sequence at a time."""

UNSERVED = ("sliding_window", "softcap", "s_aux", "position_bias")
"""Arguments by which models ask attention for more than softmax(q·k)·v inside boundaries."""


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, float], torch.Tensor]
"""Queries, keys, values, boundaries, longest sequence and scale to [1, N, H, D]."""


def boundary_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    kernel: Kernel | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sequence of one packed row, by `kernel`, else by varlen in half precision on CUDA and
    exactly elsewhere.

    query [1, H, N, D], key and value [1, H_kv, N, D] with H a multiple of H_kv; cu_seq_lens_q int32 [S + 1] from 0 to
    N; returns [1, N, H, D] in the value's dtype. Raises AttentionError where boundaries are missing or more is asked
    for than is served.
    """
    if _ASKED:
        _ASKED[-1].add(id(module))
    _refuse(module, query, key, attention_mask, dropout, options)
    if cu_seq_lens_q is None or max_length_q is None:
        message = (
            "attention was called without boundaries (cu_seq_lens_q, max_length_q), and they cannot be guessed from "
            "positions that jump: call the model on what training.RowCollator makes of the rows"
        )
        raise AttentionError(message)
    # Under autocast RoPE lifts queries and keys to float32 while values stay in the compute dtype.
    query, key = query.to(value.dtype), key.to(value.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if kernel is None:
        kernel = _kernel(query.is_cuda, query.dtype)
    return kernel(query, key, value, cu_seq_lens_q, max_length_q, scale), None


def _kernel(cuda: bool, dtype: torch.dtype) -> Kernel:  # noqa: FBT001 (one of the two things that decide)
    return _varlen if cuda and dtype in {torch.float16, torch.bfloat16} else _segments


def kernel_of(model: PreTrainedModel, dtype: torch.dtype) -> str:
    """What a model's attention is computed by where its work is done in a dtype, in words."""
    config: Any = model.config
    name: str = config._attn_implementation
    if not name.startswith(NAME):
        return "the model's own attention, a sequence at a time"
    if name == KINDS["flex"]:
        return "FlexAttention"
    if name != KINDS["exact"] and _kernel(model.device.type == "cuda", dtype) is _varlen:
        return f"torch's varlen kernel ({'grouped heads' if _knows_groups() else 'key heads repeated'})"
    return "scaled_dot_product_attention, a sequence at a time"


def _refuse(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    options: dict[str, Any],
) -> None:
    """Raise AttentionError for anything this attention would otherwise leave out in silence."""
    asked = [name for name in UNSERVED if options.get(name) is not None]
    if mask is not None:
        asked.append("attention_mask")
    if dropout:
        asked.append("dropout")
    if getattr(module, "is_causal", True) is False or options.get("is_causal") is False:
        asked.append("is_causal=False")
    if asked:
        message = f"the model's attention asks for {', '.join(asked)}, which the training worker does not serve"
        raise AttentionError(message)
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        message = (
            "attention takes one packed row without a cache, not queries of shape "
            f"{tuple(query.shape)} and keys of shape {tuple(key.shape)}"
        )
        raise AttentionError(message)


def _segments(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, max_length: int, scale: float
) -> torch.Tensor:
    """One causal call of scaled_dot_product_attention for each sequence: exact on every device, and never N×N."""
    del max_length
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    lengths = bounds.diff().tolist()
    outputs = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        for q, k, v in zip(
            query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True
        )
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _knows_groups() -> bool:
    from torch.nn.attention import varlen

    return "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, max_length: int, scale: float
) -> torch.Tensor:
    """The same through torch's varlen kernel (CUDA, half precision). Its default window is not causal: (-1, 0) is."""
    from torch.nn.attention.varlen import varlen_attn

    gqa: dict[str, Any] = {}
    if query.shape[1] != key.shape[1]:
        if _knows_groups():
            gqa = {"enable_gqa": True}
        else:  # torch 2.11 wants as many key heads as query heads
            repeats = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    output: Any = varlen_attn(q, k, v, bounds, bounds, max_length, max_length, scale=scale, window_size=(-1, 0), **gqa)
    return output[None]


# varlen serves half precision alone: the float32 of a preflight is done exactly.
AttentionInterface.register(KINDS["auto"], boundary_attention)
AttentionInterface.register(KINDS["varlen"], boundary_attention)
AttentionInterface.register(KINDS["flex"], partial(boundary_attention, kernel=flex))
AttentionInterface.register(KINDS["exact"], partial(boundary_attention, kernel=_segments))


def refuse_windows(config: PretrainedConfig) -> None:
    """Raise AttentionError for a model whose layers see only a window, or are no plain causal attention."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if getattr(config, "use_sliding_window", True) and window is not None:
        kinds.add("sliding_attention")
    if kinds - {"full_attention"}:
        found = ", ".join(sorted(kinds - {"full_attention"}))
        message = (
            f"the model has layers of kind {found}: a window counts tokens, so in a row"
            " whose positions jump it sees what it will not see at those distances later; train a model with full "
            "attention in every layer"
        )
        raise AttentionError(message)


def check_attention(forward: Forward, batch: Batch, *, anywhere: Callable[[bool], bool] = bool) -> None:
    """Check on a packed row that every token is noticed by exactly the later tokens of its own sequence.

    `forward` takes token ids [1, N] to hidden states or logits [1, N, …]. A few passes, see training.influence. Raises
    AttentionError saying which way it went wrong.
    """
    sequences = sequence_numbers(batch.cu_seq_lens)[None]
    check_influence(forward, batch.input_ids, sequences, where="the first packed row", anywhere=anywhere)


def refuse_unrouted(config: PretrainedConfig) -> None:
    """Raise AttentionError for a type of model that transformers itself says does not ask the AttentionInterface."""
    # Looked up by type: before its weights are read.
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if config.model_type in ONE_AT_A_TIME:
        return
    if kind is not None and not getattr(kind, "_supports_attention_backend", True):
        message = (
            f"models of type {config.model_type} compute attention in a way of their own, so they cannot be told the "
            "rows' boundaries: take a model whose attention goes through transformers' AttentionInterface"
        )
        raise AttentionError(message)


def check_routed(model: PreTrainedModel, forward: Callable[[], Any]) -> None:
    """Check that every layer asks this attention: a layer that computes its own would pack sequences into one another,
    which no packed row of a single sequence shows.

    `forward` runs the model once. Raises AttentionError.
    """
    if model.config.model_type in ONE_AT_A_TIME:
        return
    asked: set[int] = set()
    _ASKED.append(asked)
    try:
        with torch.no_grad():
            forward()
    finally:
        _ASKED.pop()
    layers = model.config.num_hidden_layers
    if len(asked) != layers:
        message = (
            f"a {type(model).__name__} computes attention in a way of its own (ours was asked in {len(asked)} of "
            f"{layers} layers), so it cannot be told the rows' boundaries: take a model whose attention goes through "
            "transformers' AttentionInterface"
        )
        raise AttentionError(message)


def check_kernel(model: PreTrainedModel, batch: Batch) -> None:
    """Check that the kernel a model's attention was asked to use is there and, on CUDA, agrees with the exact path on this
    batch's boundaries.

    Random bfloat16 queries [1, heads, N, size] and keys [1, key_heads, N, size], the model's geometry: outputs on
    COMPARED tokens of the row, gradients on CHECKED. A wrong mask errs by the order of 1; rounding by hundredths. Raises
    AttentionError.
    """
    config: Any = model.config
    kind = next((kind for kind, name in KINDS.items() if name == config._attn_implementation), "exact")
    if kind == "exact":
        return
    if not batch.input_ids.is_cuda:
        if kind != "auto":
            message = f"model.attention: {kind} needs a GPU, and there is none: leave it out, or set it to exact"
            raise AttentionError(message, param="/model/attention")
        return
    heads = config.num_attention_heads
    shape = {
        "heads": heads,
        "key_heads": getattr(config, "num_key_value_heads", heads),
        "size": getattr(config, "head_dim", None) or config.hidden_size // heads,
    }
    kernel = flex if kind == "flex" else _varlen
    compare_kernel(kernel, ends_of(batch, COMPARED), **shape)
    compare_kernel(kernel, ends_of(batch, CHECKED), **shape, backward=True)


def compare_kernel(
    kernel: Kernel, batch: Batch, *, heads: int, key_heads: int, size: int, backward: bool = False
) -> None:
    """Raise AttentionError where a kernel differs from the exact path, see check_kernel; `backward`: in its gradients."""
    name = kernel.__name__.strip("_")
    generator = torch.Generator(device=batch.input_ids.device).manual_seed(0)
    q, k, v, target = (
        torch.randn(1, h, batch.tokens, size, generator=generator, device=batch.input_ids.device).bfloat16()
        for h in (heads, key_heads, key_heads, heads)
    )

    leaves = [tensor.requires_grad_(backward) for tensor in (q, k, v)]

    def results(of: Kernel) -> Sequence[torch.Tensor]:
        with torch.set_grad_enabled(backward):
            output = of(q, k, v, batch.cu_seq_lens, batch.max_length, size**-0.5)
            return torch.autograd.grad(output, leaves, target.transpose(1, 2)) if backward else (output,)

    try:
        fast = results(kernel)
    except RuntimeError as error:
        message = f"the {name} attention kernel does not serve heads of size {size} on this GPU ({error})"
        raise AttentionError(message) from error
    # The first tokens' gradients are sums over all that see them: what is large may differ by more.
    errors = [
        ((a.float() - b.float()).abs().max() / b.float().abs().max().clamp(min=1.0)).item()
        for a, b in zip(fast, results(_segments), strict=True)
    ]
    if not max(errors) < 0.1:
        message = (
            f"the {name} attention kernel differs from exact attention by up to {max(errors):.3g} in its "
            f"{'gradients' if backward else 'outputs'} on the first packed row"
        )
        raise AttentionError(message)
