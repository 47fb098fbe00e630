"""FlexAttention's blocks against the mask they stand for, and its forward pass against the exact path. Its kernels run on
GPUs alone: there the preflight compares them with the exact path before the first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from packing.dataset.manifest import Manifest
from tests.training.reference import packed
from tests.training.test_attention import LargestProduct, heads
from training.attention import KINDS, segments
from training.attention_checks import compare_kernel
from training.config import ModelConfig
from training.errors import AttentionError, ModelError
from training.flex import BLOCK, block_mask, compiled, flex
from training.influence import sequence_numbers
from training.model import hidden_states, load_model, preflight
from training.stream import Extent

EXTENT = Extent(position=200_000, token_id=63, row_tokens=200)
LENGTHS = {
    "less than a block": [7, 1, 30],
    "borders on blocks": [128, 256, 128],
    "one long sequence": [700],
    "many short ones": [50] * 13,
    "long after short": [3, 300, 5, 129, 260],
}
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def bounds_of(case: str) -> torch.Tensor:
    return torch.tensor([0, *torch.tensor(LENGTHS[case]).cumsum(0).tolist()], dtype=torch.int32)


@pytest.mark.parametrize("case", LENGTHS)
def test_blocks_are_those_of_the_dense_mask(case: str):
    bounds = bounds_of(case)
    numbers = sequence_numbers(bounds)
    tokens = len(numbers)
    dense = (numbers[:, None] == numbers[None]).tril()
    size = -(-tokens // BLOCK) * BLOCK
    tiles = torch.zeros(size, size, dtype=torch.bool)
    tiles[:tokens, :tokens] = dense
    tiles = tiles.view(size // BLOCK, BLOCK, size // BLOCK, BLOCK)
    mask = block_mask(bounds)
    assert torch.equal(mask.to_dense()[0, 0].bool(), tiles.any(3).any(1))
    full: dict[int, list[int]] = {
        row: mask.full_kv_indices[0, 0, row, : int(count)].tolist()
        for row, count in enumerate(mask.full_kv_num_blocks[0, 0])
    }
    for row, columns in full.items():  # where nothing is masked, so that the kernel need not look
        filled = min(BLOCK, tokens - row * BLOCK)
        whole = tiles[row, :filled].all(2).all(0).nonzero().flatten().tolist()
        assert columns == [c for c in whole if c < row]
    q, k = torch.meshgrid(torch.arange(tokens), torch.arange(tokens), indexing="ij")
    assert torch.equal(mask.mask_mod(torch.zeros(()), torch.zeros(()), q, k), dense)


@pytest.mark.parametrize("case", LENGTHS)
def test_the_forward_pass_equals_the_exact_one(case: str):
    bounds = bounds_of(case)
    tokens, longest = int(bounds[-1]), max(LENGTHS[case])
    arguments = (heads(4, tokens), heads(2, tokens), heads(2, tokens) * 2, bounds, longest, 0.3)
    with torch.no_grad():
        ours, exact = flex(*arguments), segments(*arguments)
    assert ours.shape == exact.shape == (1, tokens, 4, 16)
    assert torch.allclose(ours, exact, atol=1e-5)


def test_other_boundaries_are_another_mask():
    """All layers of a pass share one; the next row has its own."""
    q, k, v = heads(4, 40), heads(2, 40), heads(2, 40) * 2
    with torch.no_grad():
        for cut in (10, 20, 30):
            bounds = torch.tensor([0, cut, 40], dtype=torch.int32)
            assert torch.allclose(flex(q, k, v, bounds, 40, 0.3), segments(q, k, v, bounds, 40, 0.3), atol=1e-5)


def test_no_mask_of_the_whole_row_is_made():
    with LargestProduct(1000) as made:
        block_mask(torch.tensor([0, 300, 1000], dtype=torch.int32))
    assert made.seen > 10
    assert made.squares == 0


def test_rows_of_any_length_are_few_graphs():
    """Ragged rows with and without gradients in two dtypes, by the graphs that dynamo makes for a GPU too; a limit reached
    is an error."""
    torch._dynamo.reset()
    seen: set[tuple[int, bool, torch.dtype]] = set()
    for number in range(24):
        tokens = (300, 511, 640, 128, 129, 1)[number % 6] + number
        bounds = torch.tensor([0, *([tokens // 3] if tokens > 2 else []), tokens], dtype=torch.int32)
        dtype, graded = (torch.float32, torch.bfloat16)[number // 6 % 2], number // 12 % 2 == 0
        q, k, v = (heads(h, tokens).to(dtype) for h in (4, 2, 2))
        with torch.set_grad_enabled(graded):
            states = compiled("eager")(q, k, v, block_mask=block_mask(bounds), scale=0.3, enable_gqa=True)
        exact = segments(q, k, v, bounds, tokens, 0.3)
        assert torch.allclose(states.transpose(1, 2).float(), exact.float(), atol=0.05)
        seen.add((tokens, graded, dtype))
    assert len(seen) == 24


@pytest.mark.parametrize("kind", ["exact", "flex"])
def test_a_model_takes_the_kernel_it_is_asked_for(kind: str, tiny_manifest: Manifest, monkeypatch: pytest.MonkeyPatch):
    auto, model = (
        load_model(ModelConfig(preset="tiny", attention=asked), extent=EXTENT, manifest=tiny_manifest).eval()
        for asked in ("auto", kind)
    )
    assert model.config._attn_implementation == KINDS[kind]
    batch = packed("C: the second starts at 37")
    with torch.no_grad():
        wanted = hidden_states(auto, batch)
        monkeypatch.setattr("training.attention.varlen", None)
        assert torch.allclose(hidden_states(model, batch), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["varlen", "flex"])
def test_on_a_cpu_kernels_of_a_gpu_are_refused_before_the_first_step(kind: str, tiny_manifest: Manifest):
    model = load_model(ModelConfig(preset="tiny", attention=kind), extent=EXTENT, manifest=tiny_manifest)
    with pytest.raises(AttentionError, match=f"model.attention: {kind} needs a GPU") as caught:
        preflight(model, packed("C: the second starts at 37"))
    assert caught.value.param == "/model/attention"


def test_a_model_with_an_attention_of_its_own_takes_no_kernel(tiny_manifest: Manifest):
    plain = Extent(position=70, token_id=63, row_tokens=71)
    with pytest.raises(ModelError, match="bloom has an attention of its own"):
        load_model(ModelConfig(preset="tiny-alibi", attention="exact"), extent=plain, manifest=tiny_manifest)


def test_the_kernel_check_passes_flex_and_finds_one_that_forgets_the_boundaries():
    batch = packed("C: the second starts at 37")

    def leaking(q: Any, k: Any, v: Any, bounds: Any, longest: int, scale: float) -> torch.Tensor:
        return flex(q, k, v, bounds[[0, -1]], longest, scale)

    with torch.no_grad():
        compare_kernel(flex, batch, heads=4, key_heads=2, size=16)
        with pytest.raises(AttentionError, match="the leaking attention kernel differs"):
            compare_kernel(leaking, batch, heads=4, key_heads=2, size=16)
