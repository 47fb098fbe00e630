"""Ulysses against one process: the same outputs and gradients on a packed row, over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from tests.training.reference import FAMILIES, build, packed
from training.attention import FUNCTIONS, KINDS, boundary_attention
from training.attention import NAME as WHOLE_ROWS
from training.errors import AttentionError
from training.parallel import Ranks
from training.sequence_parallel import attend_across, padded, preflight_across

RANK = """
import sys
import torch
from torch import distributed as dist, nn
from training.attention import boundary_attention
from training.errors import AttentionError
from training.sequence_parallel import across_ranks

heads, key_heads = int(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
whole = [torch.randn(1, h, 24, 8, dtype=torch.float64) for h in (heads, key_heads, key_heads)]
target = torch.randn(1, 24, heads, 8, dtype=torch.float64)
options = {"cu_seq_lens_q": torch.tensor([0, 5, 17, 24], dtype=torch.int32), "max_length_q": 12}

def run(attention, tensors, target):
    leaves = [t.clone().requires_grad_() for t in tensors]
    out, _ = attention(nn.Identity(), *leaves, None, **options)
    (out * target).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]

def mine(t, dim):
    return t.chunk(size, dim)[rank]

attention = across_ranks(boundary_attention, dist.group.WORLD)
if heads % size:
    try:
        run(attention, [mine(t, 2) for t in whole], mine(target, 1))
    except AttentionError as error:
        print(error)
else:
    wanted = run(boundary_attention, whole, target)
    found = run(attention, [mine(t, 2) for t in whole], mine(target, 1))
    for name, a, b, dim in zip("oqkv", wanted, found, (1, 2, 2, 2), strict=True):
        assert b.abs().max() > 1e-3, name
        torch.testing.assert_close(b, mine(a, dim), rtol=1e-10, atol=1e-10)
    print("equal")
del attention  # it holds the group, whose threads must have ended before the interpreter does
dist.barrier()
dist.destroy_process_group()
"""


def ranks(size: int, heads: int, key_heads: int) -> list[str]:
    """What each rank printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(heads), str(key_heads)],
            env=os.environ | shared | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said: list[str] = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(out.strip())
    return said


@pytest.mark.parametrize(("size", "heads", "key_heads"), [(2, 4, 2), (4, 8, 2), (2, 6, 3)])
def test_outputs_and_gradients_are_those_of_one_process(size: int, heads: int, key_heads: int):
    """Key heads shared evenly, fewer key heads than ranks, and key heads that no even share exists for."""
    assert ranks(size, heads, key_heads) == ["equal"] * size


def test_heads_that_cannot_be_shared_are_refused():
    assert ranks(2, 3, 1) == ["the model's 3 attention heads cannot be shared evenly by 2 ranks of a sequence"] * 2


def test_a_row_is_padded_by_a_sequence_of_its_own():
    row = packed("B: two, both from 0")
    assert padded(row, 4) is row  # 44 tokens
    longer = padded(row, 8)
    assert longer.cu_seq_lens.tolist() == [0, 24, 44, 48]
    assert longer.position_ids[0, 44:].tolist() == [0, 1, 2, 3]
    assert longer.targets[0, 44:].tolist() == [-100] * 4
    assert torch.equal(longer.input_ids[:, :44], row.input_ids)
    assert longer.max_length == 24


@pytest.fixture
def group():
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize("attention", [WHOLE_ROWS, "sdpa"])
def test_attention_across_ranks_is_checked_before_the_first_step(group: dist.ProcessGroup, attention: str):
    """By one rank that holds all of its row: what is wrong with an attention shows there as well."""
    ranks = Ranks(device=torch.device("cpu"), grouped=True, row_group=group)
    model = build(FAMILIES["llama"], attention)
    row = padded(packed("F: the second goes on counting"), 16)
    if attention == WHOLE_ROWS:
        attend_across(model, group)
        preflight_across(model, row, ranks)
    else:
        with pytest.raises(AttentionError, match="attention"):
            preflight_across(model, row, ranks)


def test_across_ranks_the_kernel_that_was_asked_for_computes(group: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def watched(*arguments: Any, kernel: Any = None, **options: Any) -> Any:
        asked.append(kernel)
        return boundary_attention(*arguments, **options)

    monkeypatch.setitem(FUNCTIONS, KINDS["flex"], partial(watched, kernel="flex"))
    ranks = Ranks(device=torch.device("cpu"), grouped=True, row_group=group)
    model = build(FAMILIES["llama"], KINDS["flex"])
    attend_across(model, group)
    preflight_across(model, padded(packed("B: two, both from 0"), 4), ranks)
    assert set(asked) == {"flex"}
