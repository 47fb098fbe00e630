"""Whether the data's ids are the model's: told before any step, in one line, and only where there is something to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from packing.dataset.errors import TokenizerError
from packing.dataset.manifest import Manifest
from tests.training.test_run import run
from training.config import Config, parse_config
from training.presets import tiny
from training.stream import Extent
from training.vocabulary import check_tokenizer

Build = Callable[..., dict[str, Any]]
EXTENT = Extent(position=10, token_id=60, row_tokens=10)
MADE = b'{"model": "the one that made the data"}'


@pytest.fixture
def made(tiny_manifest: Manifest) -> Manifest:
    about = {"name": "ours", "sha256": sha256(MADE).hexdigest(), "vocab_size": 64}
    return replace(tiny_manifest, tokenizer=about)


@pytest.fixture
def of(tmp_path: Path, config_of: Build) -> Callable[..., Config]:
    """A config whose model's directory, and whose model.tokenizer, hold these bytes as tokenizer.json."""

    def build(model: bytes | None, stated: bytes | None = None, **data: Any) -> Config:
        fields: dict[str, Any] = {"preset": None, "path": str(tmp_path / "model")}
        for name, content in (("model", model), ("stated", stated)):
            (tmp_path / name).mkdir()
            if content is not None:
                (tmp_path / name / "tokenizer.json").write_bytes(content)
        if stated is not None:
            fields["tokenizer"] = str(tmp_path / "stated")
        return parse_config(config_of(model=fields, data=data))

    return build


def test_the_same_file_says_nothing(of: Callable[..., Config], made: Manifest):
    assert check_tokenizer(of(MADE, b"{}"), made, EXTENT) is None


def test_another_file_is_refused_with_both_digests(of: Callable[..., Config], made: Manifest):
    config = of(b"{}", MADE)  # the model's own counts before the one that is stated
    with pytest.raises(TokenizerError) as caught:
        check_tokenizer(config, made, EXTENT)
    wanted, found = sha256(MADE).hexdigest()[:12], sha256(b"{}").hexdigest()[:12]
    for part in ("'ours' (64 tokens, sha256 " + wanted, f"another (sha256 {found}", "data.tokenizer to any"):
        assert part in caught.value.message


def test_a_stated_tokenizer_stands_in_for_a_model_without(of: Callable[..., Config], made: Manifest):
    assert check_tokenizer(of(None, MADE), made, EXTENT) is None


def test_where_the_ids_mean_the_same_it_can_be_said(of: Callable[..., Config], made: Manifest):
    assert check_tokenizer(of(b"{}", tokenizer="any"), made, EXTENT) is None


def test_a_model_without_a_tokenizer_is_said_to_have_none(of: Callable[..., Config], made: Manifest):
    line = check_tokenizer(of(None), made, EXTENT)
    assert line is not None
    assert "holds no tokenizer.json: nothing shows that its ids are those of the tokenizer 'ours' (64 tokens)" in line


def test_messages_and_presets_have_nothing_to_compare(of: Callable[..., Config], made: Manifest, config_of: Build):
    assert check_tokenizer(of(b"{}"), made, replace(EXTENT, messages=True)) is None
    assert check_tokenizer(parse_config(config_of()), made, EXTENT) is None


def test_a_run_is_refused_before_its_model_is_loaded(config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = tmp_path / "model"
    AutoModelForCausalLM.from_config(tiny(64)).save_pretrained(model)
    value = config_of(model={"preset": None, "path": str(model)})
    lines, _ = run(value | {"steps": 3, "checkpoint": {"dir": str(tmp_path / "first")}})
    assert sum("holds no tokenizer.json" in line for line in lines) == 1
    (model / "tokenizer.json").write_text("{}")
    monkeypatch.setattr("training.loop.load_model", None)
    with pytest.raises(TokenizerError, match="is another"):
        run(value)
