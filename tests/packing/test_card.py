"""The dataset card: what a user wrote into a spec stays what it was, wherever it stands in README.md."""

from __future__ import annotations

import pyarrow as pa
import pytest
import yaml

from packing.dataset.card import card

NAMES = [
    "Apache-2.0",
    "CC0-1.0",
    "MIT",
    "no",
    "x\n---\n# a heading",
    'my "own": [terms] # really',
    "licence\u2028of mine",
    "1.0",
]


@pytest.mark.parametrize("license_", NAMES)
def test_a_license_is_one_value_of_the_front_matter(license_):
    text = card(
        "a name",
        {"kind": "cip", "license": license_},
        statistics={"counts": {"rows": 1, "tokens": 2, "files": 1}, "histograms": {}},
        schema=pa.schema([("n_tokens", pa.int64())]),
        splits=["train"],
        warnings=[],
    )
    front = yaml.safe_load(
        text.split("---\n")[1] if "---" not in license_ else text[4 : text.index("\n---\n\n# a name")]
    )
    assert front["license"] == license_
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
