"""A dataset in an S3 bucket: the rows of the directory, with ranges, errors and a whole run."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from packing.dataset.errors import DatasetError, SourceError
from tests.service.object_store import ObjectStore, object_store, s3
from training.config import parse_config
from training.loop import train
from training.source import BucketSource, LocalSource, open_source
from training.stream import DataState, RowStream

__all__ = ["object_store", "s3"]


def put(store: ObjectStore, key: str, data: bytes) -> None:
    endpoint = urllib.parse.urlsplit(store.url).netloc
    bucket = fs.S3FileSystem(endpoint_override=endpoint, scheme="http")
    with bucket.open_output_stream(f"bucket/{key}") as stream:
        stream.write(data)


def upload(store: ObjectStore, folder: Path, prefix: str) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        put(store, f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
    assert len(files) == 5
    return f"s3://bucket/{prefix}"


def test_the_same_rows_as_from_the_directory(dataset: Path, s3: ObjectStore):
    there, here = open_source(upload(s3, dataset, "same") + "/"), LocalSource(dataset)
    assert isinstance(there, BucketSource)
    assert there.digest == here.digest
    s3.asked.clear()
    streams = [RowStream(source, seed=3).rows_from(DataState()) for source in (there, here)]
    for _ in range(25):
        (one, at), (two, place) = (next(stream) for stream in streams)
        assert (one.name, at) == (two.name, place)
        for column in ("input_ids", "labels", "position_ids", "seq_lengths"):
            assert np.array_equal(getattr(one, column), getattr(two, column))
    shards = [asked for asked in s3.asked if asked.path.endswith(".parquet") and asked.method == "GET"]
    assert shards
    assert all(asked.range for asked in shards)


def test_a_run_on_it(config_of: Callable[..., dict[str, Any]], dataset: Path, s3: ObjectStore):
    metrics: list[dict[str, Any]] = []
    value = config_of(data={"source": upload(s3, dataset, "run")}, steps=4)
    train(parse_config(value), say=lambda line: None, record=metrics.append)
    assert len(metrics) == 4


def test_damage_and_absence_are_sentences_that_name_the_object(dataset: Path, s3: ObjectStore):
    with pytest.raises(SourceError, match=r"s3://bucket/nowhere/manifest\.json is not there"):
        open_source("s3://bucket/nowhere")
    place = upload(s3, dataset, "damaged")
    name = "data/train-00002-of-00004.parquet"
    whole = (dataset / name).read_bytes()
    put(s3, f"damaged/{name}", whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    rows = RowStream(open_source(place), seed=3).rows_from(DataState())
    with pytest.raises(DatasetError, match=r"train-00002-of-00004\.parquet is damaged"):
        list(zip(range(25), rows, strict=False))
    put(s3, f"damaged/{name}", whole[:-1])
    with pytest.raises(DatasetError, match=rf"{name} has {len(whole) - 1} bytes, the manifest says {len(whole)}"):
        RowStream(open_source(place), seed=3)


def test_a_store_that_refuses_says_so(s3: ObjectStore):
    s3.away = True
    with pytest.raises(SourceError, match=r"s3://bucket/away/manifest\.json cannot be read"):
        open_source("s3://bucket/away")
