"""Which tokens notice a change of which: the one test of attention that no mask, cache or kernel can talk its way past.

A change of one token must reach exactly the later tokens of its own sequence. Sequences are told apart by the bits of
their number: for every bit the first and last tokens of the sequences that have it are changed together, then those of
the rest. Any two sequences differ in a bit, so a token that notices another sequence is found whichever two they are.
Then all first tokens are changed, which every token must notice, and all last ones, which nothing else may. That makes
3 + 2·⌈log2 S⌉ passes for S sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from training.errors import AttentionError

Forward = Callable[[torch.Tensor], torch.Tensor]
"""Token ids [B, N] to hidden states or logits [B, N, …]."""

REPEATS = 3
"""Times that a leak must be seen again, between fresh passes: a real one always is."""
PADDING = -1
"""The number of no sequence: what a padded token belongs to. Padding is neither changed nor looked at."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """Tokens that are changed together, bool [B·N], and the tokens that must notice, bool [B·N]."""

    changed: torch.Tensor
    expected: torch.Tensor


def check_influence(
    forward: Forward,
    input_ids: torch.Tensor,
    sequences: torch.Tensor,
    *,
    where: str,
    anywhere: Callable[[bool], bool] = bool,
) -> None:
    """Check that the influence of tokens on each other is exactly that of causal attention inside sequences.

    input_ids: integers [B, N]; sequences: int [B, N], the number of each token's sequence (from 0, tokens of a sequence
    side by side), or PADDING. `where` names the batch in the message. Outputs are compared bit for bit, so what does
    not notice must be computed alike in every pass: dense layers are, nearly always (a busy CPU's threads may now and
    then add up in another order, so a leak counts if it is seen again each time); dropout is where the caller seeds it.
    `anywhere` says whether any of the processes that make these passes together has seen one: they repeat together.
    Raises AttentionError saying which way it went wrong.
    """
    numbers = sequences.flatten()
    count = int(numbers.max()) + 1
    blind, leaked = torch.zeros_like(numbers, dtype=torch.bool), torch.zeros_like(numbers, dtype=torch.bool)
    ids = input_ids.flatten()
    with torch.no_grad():
        before = forward(input_ids)
        for probe in _probes(numbers, count):
            other = torch.where(probe.changed, _other_ids(ids, numbers), ids).view_as(input_ids)
            noticed = (before != forward(other)).flatten(2).any(-1).flatten()
            blind |= probe.expected & ~noticed
            found = noticed & ~probe.expected & (numbers != PADDING)
            for _ in range(REPEATS):
                if not anywhere(bool(found.any())):
                    break
                found &= (forward(input_ids) != forward(other)).flatten(2).any(-1).flatten()
            leaked |= found
    if leaked.any():
        message = (
            f"attention leaks: {len(numbers[leaked].unique())} of {count} sequences of {where} see tokens before their "
            "start or after their own place"
        )
        raise AttentionError(message)
    if blind.any():
        message = (
            f"attention is cut: {int(blind.sum())} of {int((numbers != PADDING).sum())} tokens of {where} do not see "
            "their sequence's first token (is a jump in the positions taken for a boundary?)"
        )
        raise AttentionError(message)


def sequence_numbers(bounds: torch.Tensor) -> torch.Tensor:
    """The number of each token's sequence, int64 [N], from boundaries int [S + 1] between 0 and N."""
    lengths = bounds.diff()
    return torch.repeat_interleave(torch.arange(len(lengths), device=bounds.device), lengths)


def numbers_from_lengths(seq_lengths: Sequence[Sequence[int]], shape: tuple[int, int]) -> torch.Tensor:
    """The same int64 [B, N] from each row's sequence lengths; what they leave of a row is PADDING.

    Raises ValueError where they do not fit the batch's shape [B, N].
    """
    numbers = torch.full(shape, PADDING, dtype=torch.int64)
    if len(seq_lengths) != shape[0] or any(
        sum(lengths) > shape[1] or min(lengths, default=1) < 1 for lengths in seq_lengths
    ):
        message = f"seq_lengths do not fit a batch of {shape[0]} rows of {shape[1]} tokens"
        raise ValueError(message)
    first = 0
    for row, lengths in zip(numbers, seq_lengths, strict=True):
        row[: sum(lengths)] = torch.repeat_interleave(
            torch.arange(first, first + len(lengths)), torch.tensor(lengths, dtype=torch.int64)
        )
        first += len(lengths)
    return numbers


def _probes(numbers: torch.Tensor, count: int) -> Iterator[_Probe]:
    real = numbers != PADDING
    before = torch.cat([numbers.new_full((1,), PADDING), numbers[:-1]])
    after = torch.cat([numbers[1:], numbers.new_full((1,), PADDING)])
    starts, ends = real & (numbers != before), real & (numbers != after)
    for bit in range((count - 1).bit_length()):
        has = real & (numbers >> bit & 1 == 1)
        yield _Probe((starts | ends) & has, has)
        yield _Probe((starts | ends) & ~has, real & ~has)
    yield _Probe(starts, real)
    yield _Probe(ends, ends)


def _other_ids(ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """For each place another id that occurs in the batch; where only one occurs, that id's neighbour."""
    real = ids[numbers != PADDING]
    first = real[0]
    different = real[(real != first).int().argmax()]
    if different == first:
        different = first + 1 if first == 0 else first - 1
    return torch.where(ids == first, different, first)
