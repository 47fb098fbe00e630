"""A recipe runs from its one command to its last checkpoint, and every stage starts from the one before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM

from tests.conftest import conversation, write_lines

ROOT = Path(__file__).parents[2]
STAGES = ["1-pretraining", "2-long-pretraining", "3-fine-tuning", "4-long-fine-tuning"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # nine processes one after the other
def test_the_four_stages_of_longskywork(tmp_path: Path):
    documents = [{"id": f"d{n}", "text": f"Document {n} of the river and the mill. " * 60} for n in range(12)]
    write_lines(tmp_path / "documents.jsonl", documents)
    write_lines(tmp_path / "talk.jsonl", [conversation(n, turns=2) for n in range(40)])
    out = tmp_path / "out"
    files = ["--documents", str(tmp_path / "documents.jsonl"), "--conversations", str(tmp_path / "talk.jsonl")]
    script = str(ROOT / "examples" / "recipes" / "longskywork.py")
    done = subprocess.run([sys.executable, script, "--tiny", "--out", str(out), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    configs = [yaml.safe_load((out / "configs" / f"{stage}.yaml").read_text()) for stage in STAGES]
    last = [sorted((out / "runs" / stage).glob("step-*"))[-1] for stage in STAGES]
    assert [config["model"] for config in configs] == [{"preset": "tiny"}, *({"path": str(p)} for p in last[:-1])]
    for stage in STAGES:
        assert len((out / "runs" / stage / "metrics.jsonl").read_text().splitlines()) == 2
    kinds = [json.loads((out / "data" / stage / "manifest.json").read_text())["kind"] for stage in STAGES]
    assert kinds == ["cip", "cip", "skipalign", "mixture"]
    rows = pq.read_table(out / "data" / STAGES[3] / "data").to_pylist()
    share = sum(r["n_tokens"] for r in rows if r["part"] == "synthetic") / sum(r["n_tokens"] for r in rows)
    assert abs(share - 0.8) < 0.1  # to within a row of 2,048 tokens of some 20,000
    model = AutoModelForCausalLM.from_pretrained(last[-1], local_files_only=True)
    assert model.config.vocab_size == 32_768
    table = (out / "runs.md").read_text()
    assert all(str(checkpoint) in table for checkpoint in last)
