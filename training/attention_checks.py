"""Whether a model follows the rows' boundaries by training.attention: what its config shows, what its layers ask for, what
its outputs notice, and whether the kernel computes what the exact path does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel

from training.attention import KINDS, WITHOUT_BOUNDARIES, Kernel, askers, segments, varlen
from training.batch import Batch, ends_of
from training.errors import AttentionError
from training.flex import flex
from training.influence import Forward, check_influence, sequence_numbers

CHECKED = 8192
"""Tokens of the first packed row that a model is run on to check its attention: passes in float32 over 131,072 tokens would
take minutes each on a GPU, and what a boundary or a jump does shows on any number."""

COMPARED = 131_072
"""Tokens of it on which a kernel's outputs are compared: of a row that is shared by ranks no one of them may hold more."""


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
    if config.model_type in WITHOUT_BOUNDARIES:
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
    if model.config.model_type in WITHOUT_BOUNDARIES:
        return
    with torch.no_grad(), askers() as asked:
        forward()
    layers = model.config.num_hidden_layers
    if len(asked) != layers:
        message = (
            f"a {type(model).__name__} computes attention in a way of its own (ours was asked in {len(asked)} of "
            f"{layers} layers), so it cannot be told the rows' boundaries: take a model whose attention goes through "
            "transformers' AttentionInterface"
        )
        raise AttentionError(message)


def refuse_kernel(model: PreTrainedModel) -> None:
    """Raise AttentionError where a model on a CPU was asked for a GPU's kernel."""
    kind = _kind(model)
    if kind in {"varlen", "flex"} and model.device.type != "cuda":
        message = f"model.attention: {kind} needs a GPU, and there is none: leave it out, or set it to exact"
        raise AttentionError(message, param="/model/attention")


def _kind(model: PreTrainedModel) -> str:
    """What model.attention asked for; `exact` for a model with an attention of its own."""
    config: Any = model.config
    return next((kind for kind, name in KINDS.items() if name == config._attn_implementation), "exact")


def check_kernel(model: PreTrainedModel, batch: Batch) -> None:
    """Check, on CUDA, that the kernel a model's attention was asked to use agrees with the exact path on this batch's
    boundaries.

    Random bfloat16 queries [1, heads, N, size] and keys [1, key_heads, N, size], the model's geometry: outputs on
    COMPARED tokens of the row, gradients on CHECKED. A wrong mask errs by the order of 1; rounding by hundredths. Raises
    AttentionError.
    """
    config: Any = model.config
    kind = _kind(model)
    if kind == "exact" or not batch.input_ids.is_cuda:
        return
    heads = config.num_attention_heads
    shape = {
        "heads": heads,
        "key_heads": getattr(config, "num_key_value_heads", heads),
        "size": getattr(config, "head_dim", None) or config.hidden_size // heads,
    }
    kernel = flex if kind == "flex" else varlen
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
        for a, b in zip(fast, results(segments), strict=True)
    ]
    if not max(errors) < 0.1:
        message = (
            f"the {name} attention kernel differs from exact attention by up to {max(errors):.3g} in its "
            f"{'gradients' if backward else 'outputs'} on the first packed row"
        )
        raise AttentionError(message)
