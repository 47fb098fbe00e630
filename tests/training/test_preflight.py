"""The preflight on models and batches of other people: what it finds, what it lets pass, and what it leaves as it was."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, PreTrainedModel

from tests.training.conftest import token_rows
from tests.training.reference import SIZES, build
from training import ATTENTION, AttentionError, ColumnsError, RowCollator, check_attention
from training.influence import PADDING, REPEATS, check_influence, numbers_from_lengths, sequence_numbers

ROWS = token_rows(5, seed=2)
CONFIG = LlamaConfig(**SIZES | {"vocab_size": 64})


def jumping(attention: str, **settings: Any) -> PreTrainedModel:
    return build(LlamaConfig(**SIZES | {"vocab_size": 64} | settings), attention)


@pytest.mark.parametrize(
    ("attention", "collator"),
    [
        (ATTENTION, RowCollator()),
        (ATTENTION, RowCollator(pad_to=256)),
        ("sdpa", RowCollator(attention="mask")),
        ("eager", RowCollator(attention="mask", pad_to=80)),
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_collated_batch_passes(attention: str, collator: RowCollator, checkpointing: bool):
    model = jumping(attention)
    if checkpointing:
        model.activation_checkpointing_enable()
    check_attention(model, collator(ROWS))


def test_half_precision_passes_as_well():
    model = build(CONFIG, "sdpa").to(torch.bfloat16)
    check_attention(model, RowCollator(attention="mask", mask_dtype=torch.bfloat16)(ROWS))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_boundaries_alone_do_nothing_for_a_stock_model(attention: str):
    with pytest.raises(AttentionError, match="attention is cut"):
        check_attention(jumping(attention), RowCollator()(ROWS))


def test_the_model_is_called_as_in_training_and_left_as_it_was():
    """In eval mode gradient checkpointing would leave the cache on, and the cut would go unnoticed."""
    model, row = jumping("sdpa"), token_rows(1, seed=3, sequences=1, longest=24)[0]
    assert row["position_ids"][-1] > len(row["input_ids"])
    call = {name: torch.from_numpy(row[name])[None].long() for name in ("input_ids", "position_ids")}
    lengths = [row["seq_lengths"].tolist()]
    check_attention(model, call, seq_lengths=lengths)  # one sequence, the cache left on: right
    model.activation_checkpointing_enable()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with pytest.raises(AttentionError, match="attention is cut"):
        check_attention(model, call, seq_lengths=lengths)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    check_attention(model.train(), RowCollator(attention="mask")(ROWS))
    assert model.training


class Dropping(torch.nn.Module):
    """Not a PreTrainedModel, and it draws dropout in training."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **call: Any) -> torch.Tensor:
        return torch.nn.functional.dropout(self.model(**call).logits, 0.5, self.training)


def test_dropout_is_the_same_in_every_pass():
    check_attention(Dropping(jumping(ATTENTION)), RowCollator()(ROWS))


def test_padding_is_not_looked_at():
    """A stock padded batch of single sequences with a mask of ones and zeros, and its lengths said aside."""
    rows = token_rows(3, seed=6, sequences=1, longest=24)
    lengths = [len(row["input_ids"]) for row in rows]
    assert len(set(lengths)) > 1
    collated = RowCollator(attention="mask")(rows)
    ones = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    call = {"input_ids": collated["input_ids"], "position_ids": collated["position_ids"], "use_cache": False}
    check_attention(jumping("sdpa"), {**call, "attention_mask": ones.int()}, seq_lengths=[[n] for n in lengths])
    with pytest.raises(AttentionError, match=f"of {sum(lengths)} tokens of the batch"):
        check_attention(jumping("sdpa"), call, seq_lengths=[[n] for n in lengths])


def test_a_batch_that_lost_its_positions_or_boundaries_is_refused():
    model, batch = jumping(ATTENTION), RowCollator()(ROWS)
    with pytest.raises(ColumnsError, match=r"no position_ids: .*positions are lost; .*remove_unused_columns=False"):
        check_attention(model, {k: v for k, v in batch.items() if k != "position_ids"})
    with pytest.raises(ColumnsError, match="declares no boundaries"):
        check_attention(model, {k: v for k, v in batch.items() if not k.startswith("cu_seq")})
    with pytest.raises(AttentionError, match="does not rise from 0 to the batch's"):
        check_attention(model, {**batch, "cu_seq_lens_q": batch["cu_seq_lens_q"][:-1]})
    with pytest.raises(ValueError, match="seq_lengths do not fit a batch of 1 rows"):
        check_attention(model, batch, seq_lengths=[[10_000]])


def test_windows_are_refused_even_where_layers_relay_what_they_do_not_see():
    model = build(MistralConfig(**SIZES | {"vocab_size": 64}, sliding_window=32), "sdpa")
    with pytest.raises(AttentionError, match="sliding_attention: a window counts tokens"):
        check_attention(model, RowCollator(attention="mask")(ROWS))


NUMBERS = sequence_numbers(torch.tensor([0, 4, 5, 9, 12]))


def through(seen: torch.Tensor) -> Any:
    """A forward pass by which token t notices exactly the tokens that seen[t] says."""
    weights = seen.double() * torch.rand(seen.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lambda ids: (weights @ ids[0].double())[None, :, None]


def declared() -> torch.Tensor:
    return (NUMBERS[:, None] == NUMBERS).tril()


def influence(seen: torch.Tensor) -> None:
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]])
    check_influence(through(seen), ids, NUMBERS[None], where="a row")


def test_exactly_the_declared_influence_passes():
    influence(declared())


@pytest.mark.parametrize(("reader", "read"), [(5, 4), (11, 0), (9, 5), (4, 3), (0, 5), (4, 11), (2, 3), (0, 3)])
def test_any_leak_of_a_start_or_an_end_is_found(reader: int, read: int):
    """Between neighbours, between sequences that are not, into the past and of the future."""
    seen = declared()
    seen[reader, read] = True
    with pytest.raises(AttentionError, match="attention leaks: 1 of 4 sequences of a row"):
        influence(seen)


def unsteady(forward: Any, at: int) -> Any:
    """The same, but that pass number `at` is computed a little differently, as by threads that add up in another order."""
    passes = iter(range(100))
    return lambda ids: forward(ids) + (1e-7 if next(passes) == at else 0.0)


@pytest.mark.parametrize("at", range(7))
def test_a_pass_that_is_computed_differently_is_no_leak_and_hides_none(at: int):
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]])
    check_influence(unsteady(through(declared()), at), ids, NUMBERS[None], where="a row")
    seen = declared()
    seen[9, 5] = True
    with pytest.raises(AttentionError, match="attention leaks: 1 of 4"):
        check_influence(unsteady(through(seen), at), ids, NUMBERS[None], where="a row")


def test_processes_repeat_their_passes_together():
    """One that has seen nothing makes the passes that another needs: else each would wait for the other."""
    ids, passes = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]]), []
    forward = through(declared())

    def counted(given: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        return forward(given)

    check_influence(counted, ids, NUMBERS[None], where="a row")
    alone = len(passes)
    check_influence(counted, ids, NUMBERS[None], where="a row", anywhere=lambda flag: True)
    assert len(passes) - alone == alone + (alone - 1) * 2 * REPEATS


@pytest.mark.parametrize("cut", [1, 2, 3, 6, 8, 11])
def test_any_cut_is_found_right_behind_the_first_token_too(cut: int):
    seen = declared()
    start = int((NUMBERS[cut] == NUMBERS).int().argmax())
    seen[cut, start] = False
    with pytest.raises(AttentionError, match="attention is cut: 1 of 12 tokens of a row"):
        influence(seen)


def test_numbers_of_sequences_leave_padding_out():
    numbers = numbers_from_lengths([[2, 1], [4]], (2, 5))
    assert numbers.tolist() == [[0, 0, 1, PADDING, PADDING], [2, 2, 2, 2, PADDING]]


def test_the_package_is_light_until_something_is_asked_for():
    program = (
        "import sys, training; assert 'torch' not in sys.modules\n"
        "try: training.nothing\nexcept AttributeError as error: print(error)\n"
        "print(training.AttentionError.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'training' has no attribute 'nothing'\nwrong_attention False\n"


def test_a_model_that_exists_already_takes_our_attention():
    model, batch = jumping("sdpa"), RowCollator()(ROWS)
    with pytest.raises(AttentionError, match="attention is cut"):
        check_attention(model, batch)
    model.set_attn_implementation(ATTENTION)
    check_attention(model, batch)
