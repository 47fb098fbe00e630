"""The files as users read them: datasets, polars and pyarrow, from a directory and over HTTP."""

from __future__ import annotations

import json
import threading
import time
import urllib.request

# datasets decides when it is imported whether it may use the network, and a Ray of an earlier test would have said no.
import datasets
import fsspec
import polars as pl
import pyarrow.parquet as pq
import pytest
import uvicorn

from packing.dataset.reader import read_manifest
from service.app import create_app
from service.services import Services
from tests.conftest import conversation
from tests.service.support import make_runner, settings_in

ROWS = 60


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The URL of a finished dataset at a real server."""
    settings = settings_in(tmp_path_factory.mktemp("readers"))
    services = Services.open(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(settings, services), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    lines = "".join(json.dumps(conversation(i, turns=3)) + "\n" for i in range(ROWS)).encode()
    upload = _post(f"{base}/uploads", lines, "application/jsonl")
    spec = {"kind": "skipalign", "source": {"upload": upload["id"]}, "shard_rows": 25}
    job = _post(f"{base}/jobs", json.dumps(spec).encode(), "application/json")
    assert make_runner(services).run_once()
    job = json.loads(urllib.request.urlopen(f"{base}/jobs/{job['id']}").read())
    yield f"{base}/datasets/{job['dataset_id']}"
    server.should_exit = True
    thread.join()
    services.close()


def _post(url, data, kind):
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind})
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())


@pytest.fixture(scope="module")
def files(url):
    with urllib.request.urlopen(f"{url}/parquet") as response:
        found = [file["url"] for file in json.loads(response.read())["parquet_files"]]
    assert len(found) == 3
    return found


def test_polars_over_http(files):
    table = pl.concat([pl.read_parquet(file) for file in files])
    assert table.height == ROWS
    assert table["source_ids"].list.first().to_list() == [f"talk/{i}" for i in range(ROWS)]
    assert (table["input_ids"].list.len() == table["n_tokens"]).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_over_http(files, tmp_path, streaming):
    datasets.disable_progress_bars()
    rows = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    found = list(rows)
    assert [row["source_ids"] for row in found] == [[f"talk/{i}"] for i in range(ROWS)]
    assert found[0]["position_ids"][0] == 0


def test_pyarrow_over_http(files):
    with fsspec.open(files[0]) as stream:
        assert pq.read_table(stream).num_rows == 25


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_all_of_them_read_a_directory_alike(talks, build, tmp_path):
    folder = build(talks, shard_rows=25)
    pattern = str(folder / "data/*.parquet")
    datasets.disable_progress_bars()
    rows = list(datasets.load_dataset("parquet", data_files=pattern, split="train", cache_dir=str(tmp_path / "cache")))
    assert rows == pq.read_table(folder / "data").to_pylist() == pl.read_parquet(pattern).to_dicts()
    assert len(rows) == sum(file.rows for file in read_manifest(folder).files) == 60
    carded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert carded.num_rows == 60, "the card's front matter names the files"
