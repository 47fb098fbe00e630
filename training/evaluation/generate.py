"""Greedy answers to prompts of any length: batched, with a cache, the prompt read in pieces so that memory is bounded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from training.attention import WITHOUT_BOUNDARIES
from training.memory import at_work
from training.model import output_head
from training.parallel import ALONE, Ranks

PAD = 0
"""Stands left of shorter prompts; masked, so any id would do."""


@contextmanager
def inference(model: PreTrainedModel) -> Generator[None]:
    """The model as it is used, not trained: without dropout, with transformers' own causal attention, which takes a
    cache and a padding mask as ours does not. Positions are plain here, so both see the same. Models that keep to an
    attention of their own keep it."""
    config: Any = model.config
    attention, training = config._attn_implementation, model.training
    own = config.model_type in WITHOUT_BOUNDARIES
    if not own:
        model.set_attn_implementation("sdpa")
    model.eval()
    try:
        with torch.no_grad(), at_work(model):
            yield
    finally:
        if not own:
            model.set_attn_implementation(attention)
        model.train(training)


class InStep:
    """Forward passes of a model whose weights may be spread over ranks: each gathers them, so all ranks must make as
    many, though they work on different things. A rank that is done goes along with empty passes until all are.
    """

    def __init__(self, model: PreTrainedModel, ranks: Ranks) -> None:
        self._model, self._ranks = model, ranks

    def call(self, work: Callable[[PreTrainedModel], Any]) -> Any:
        """work(model), which is to make one pass through the whole model and holds whatever else it needs, so that
        FSDP's hooks see none of it."""
        self._ranks.anywhere(flag=True)
        return self._ranks.call(self._model, work)

    def finish(self) -> None:
        """Go along until no rank has work; every rank must call it."""
        while self._ranks.anywhere(flag=False):
            self._ranks.call(self._model, _empty_pass)


def _empty_pass(model: PreTrainedModel) -> torch.Tensor:
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    return output_head(model)(model.base_model(input_ids=token, use_cache=False).last_hidden_state)


def greedy(
    model: PreTrainedModel,
    prompts: Sequence[NDArray[np.int32]],
    *,
    budgets: Sequence[int],
    stops: frozenset[int],
    prefill: int,
    ranks: Ranks = ALONE,
) -> list[list[int]]:
    """The likeliest next tokens behind every prompt (int32 [n], n ≥ 1), up to its budget or the first of `stops`, which
    is left out. To be called under `inference`.

    Prompts are padded on the left and read `prefill` positions at a time: activations are bounded by that, the cache by
    the prompts. Among several ranks it is to be followed by InStep.finish.
    """
    passes = InStep(model, ranks)
    tokens, mask, positions = _padded(prompts, model.device)
    cache = DynamicCache(config=model.config)
    padded = not bool(mask.all())
    logits = torch.empty(0)
    for start in range(0, tokens.shape[1], prefill):
        stop = min(start + prefill, tokens.shape[1])
        part = slice(start, stop)
        seen = mask[:, :stop] if padded else None
        logits = passes.call(partial(_next_logits, tokens[:, part], seen, positions[:, part], cache))
    answers: list[list[int]] = [[] for _ in prompts]
    going = [budget > 0 for budget in budgets]
    place = positions[:, -1:]
    while True:
        chosen = logits.argmax(dim=-1)
        for number, token in enumerate(chosen.tolist()):
            going[number] = going[number] and token not in stops
            if going[number]:
                answers[number].append(token)
                going[number] = len(answers[number]) < budgets[number]
        if not any(going):
            return answers
        place = place + 1
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        logits = passes.call(partial(_next_logits, chosen[:, None], mask if padded else None, place, cache))


def _next_logits(
    tokens: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Any, model: PreTrainedModel
) -> torch.Tensor:
    """Logits float32 [B, vocabulary] of what follows the last of `tokens` [B, n]; they are added to the cache."""
    hidden = model.base_model(
        input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return output_head(model)(hidden[:, -1]).float()


def _padded(
    prompts: Sequence[NDArray[np.int32]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, mask (1 = real) and positions, int64 [B, longest]; a prompt's own first token has position 0."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = np.full((len(prompts), longest), PAD, np.int64)
    for number, prompt in enumerate(prompts):
        tokens[number, longest - len(prompt) :] = prompt
    sizes = np.array([len(prompt) for prompt in prompts])[:, None]
    positions = np.arange(longest)[None] - (longest - sizes)
    mask = (positions >= 0).astype(np.int64)
    made = (torch.from_numpy(array).to(device) for array in (tokens, mask, np.maximum(positions, 0)))
    first, second, third = made
    return first, second, third
