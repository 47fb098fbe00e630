"""The line: one spec gives one dataset, whoever builds its shards, in whatever order, how often, and after whatever crash."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from packing.dataset.errors import CommitConflictError, SourceError
from packing.dataset.reader import read_manifest
from service.commands.verify import verify
from service.engine.executor import InlineExecutor, RayExecutor, WorkerLostError
from service.engine.line import Unwatched, build_dataset, discard
from service.engine.poison import ShardPoisonedError
from service.engine.preview import estimate, preview_rows
from service.engine.shard_task import run_task
from service.engine.tokenizers import find_tokenizer
from service.faults import VARIABLE
from service.kinds import spec_of
from service.storage.intake import take_in, take_in_path
from service.storage.objects import Objects
from tests.conftest import conversation, write_lines

FIELDS = {"shard_rows": 7, "strategy": "all", "seed": 5}


class Shuffled:
    """Tasks in another order."""

    def __init__(self, seed):
        self._draws = np.random.default_rng(seed)

    def run(self, payloads, check):
        for i in self._draws.permutation(len(payloads)):
            yield run_task(payloads[i])


def what(result):
    """A task's result without the seconds it took."""
    value = json.loads(result)
    value["receipt"].pop("seconds")
    return value


class Twice:
    """Every task done twice, as after a lost acknowledgement."""

    def run(self, payloads, check):
        for payload in payloads:
            first = run_task(payload)
            assert what(run_task(payload)) == what(first)
            yield first


class Interrupted(Exception):  # noqa: N818 (not an error: somebody pulled the plug)
    """Somebody pulled the plug."""


class StopAfter:
    """A watch that stops the build after some shards."""

    def __init__(self, shards):
        self.left, self.found, self.total = shards, 0, 0

    def planned(self, shards):
        self.total = shards

    def built(self, receipt, *, found):
        self.found += found
        self.left -= not found

    def check(self):
        if self.left <= 0:
            raise Interrupted


def line(talks, out, executor=None, watch=None, **fields):
    spec = spec_of({"kind": "skipalign", "source": {"path": str(talks)}, **FIELDS, **fields})
    objects = Objects.local(out)
    return build_dataset(
        spec=spec,
        sources={"/source": take_in_path(talks, objects=objects, prefix=".work/pieces")},
        tokenizer=find_tokenizer(spec.tokenizer, paths=True),
        objects=objects,
        work=".work",
        target="",
        executor=executor or InlineExecutor(),
        watch=watch or Unwatched(),
    )


def digests(out: Path):
    """Every file of a dataset but the work left beside it."""
    files = sorted(p for p in out.rglob("*") if p.is_file() and not p.is_relative_to(out / ".work"))
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def two_workers():
    with RayExecutor(workers=2) as executor:
        yield executor


@pytest.fixture
def whole(talks, tmp_path):
    """The dataset as this process builds it, in order."""
    line(talks, tmp_path / "whole")
    found = digests(tmp_path / "whole")
    assert len(found) == 9 + 3 + 7
    return found


def test_order_repeats_and_workers_leave_no_trace(talks, tmp_path, whole, two_workers):
    for name, executor in (("shuffled", Shuffled(0)), ("again", Shuffled(1)), ("twice", Twice()), ("ray", two_workers)):
        line(talks, tmp_path / name, executor)
        assert digests(tmp_path / name) == whole, name


def test_one_ray_worker_gives_the_same_bytes_too(talks, tmp_path, whole):
    # a Ray of its own would fight with the module's for the process, so this one runs in another
    import subprocess
    import sys

    (tmp_path / "spec.yaml").write_text(
        f"kind: skipalign\nsource: {{path: {talks}}}\nshard_rows: 7\nstrategy: all\nseed: 5\n"
    )
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "build",
        tmp_path / "spec.yaml",
        "--out",
        tmp_path / "one",
        "--workers",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "one") == whole


def test_who_stops_a_build_over_ray_comes_behind_its_last_writer(tmp_path, two_workers, monkeypatch):
    """What a cancelled job left is removed then: a task that still wrote would leave it there for good."""
    import ray

    def write_for_ever(payload):
        with Path(payload.decode()).open("ab", buffering=0) as stream:
            while True:
                stream.write(b".")

    def stop_when_both_write():
        if all(place.exists() and place.stat().st_size for place in places):
            raise Interrupted

    monkeypatch.setattr(two_workers, "_task", ray.remote(write_for_ever).options(num_cpus=1, max_retries=0))
    for number in range(3):
        places = [tmp_path / f"{number}-{name}" for name in "ab"]
        with pytest.raises(Interrupted):
            list(two_workers.run([str(place).encode() for place in places], stop_when_both_write))
        two_workers.settle()
        sizes = [place.stat().st_size for place in places]
        time.sleep(0.3)
        assert [place.stat().st_size for place in places] == sizes


@pytest.mark.parametrize("after", [1, 4, 8])
def test_an_interrupted_build_goes_on_where_it_stopped(talks, tmp_path, whole, after):
    out = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        line(talks, out, watch=StopAfter(after))
    assert not (out / "manifest.json").exists()
    watch = StopAfter(10**6)
    line(talks, out, watch=watch)
    assert (watch.found, watch.total) == (after, 9)
    assert digests(out) == whole


def test_a_damaged_or_missing_shard_is_built_again(talks, tmp_path, whole):
    out = tmp_path / "hurt"
    with pytest.raises(Interrupted):
        line(talks, out, watch=StopAfter(5))
    (out / "data/train-00001-of-00009.parquet").unlink()
    (out / "data/train-00002-of-00009.parquet").write_bytes(b"short")
    watch = StopAfter(10**6)
    line(talks, out, watch=watch)
    assert watch.found == 3
    assert digests(out) == whole


def test_a_finished_dataset_is_found_and_another_is_not_overwritten(talks, tmp_path, whole):
    out = tmp_path / "whole"
    watch = StopAfter(10**6)
    assert line(talks, out, watch=watch).fingerprint == read_manifest(out).fingerprint
    assert watch.total == 0
    with pytest.raises(CommitConflictError, match="another dataset stands"):
        line(talks, out, seed=6)
    assert digests(out) == whole


def test_surveys_are_made_once_a_piece_by_any_worker(talks, tmp_path, two_workers):
    line(talks, tmp_path / "inline", shard_rows=None, shard_tokens=1000)
    line(talks, tmp_path / "ray", two_workers, shard_rows=None, shard_tokens=1000)
    assert len(read_manifest(tmp_path / "ray").files) > 5
    assert digests(tmp_path / "ray") == digests(tmp_path / "inline")


def test_discard_takes_what_is_unfinished_and_never_a_dataset(talks, tmp_path, whole):
    objects = Objects.local(tmp_path / "whole")
    discard(objects, work=".work", target="")
    assert digests(tmp_path / "whole") == whole
    assert not (tmp_path / "whole/.work").exists()
    out = tmp_path / "partial"
    with pytest.raises(Interrupted):
        line(talks, out, watch=StopAfter(3))
    discard(Objects.local(out), work=".work", target="")
    assert not [p for p in out.rglob("*") if p.is_file()]


def test_a_piece_that_changed_in_the_store_is_noticed(talks, tmp_path):
    out = tmp_path / "out"
    objects = Objects.local(out)
    spec = spec_of({"kind": "skipalign", "source": {"path": str(talks)}, **FIELDS})
    record = take_in(talks, name="talks.jsonl", objects=objects, prefix="pieces")
    path = next((out / "pieces").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(SourceError, match="damaged in the store"):
        preview_rows(
            spec=spec, sources={"/source": record}, tokenizer=find_tokenizer("builtin"), objects=objects, count=1
        )


def test_a_preview_is_the_first_rows_of_the_dataset(talks, tmp_path):
    import pyarrow.parquet as pq

    line(talks, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/data/train-00000-of-00009.parquet").to_pylist()[:4]
    objects = Objects.local(tmp_path / "store")
    spec = spec_of({"kind": "skipalign", "source": {"path": str(talks)}, **FIELDS})
    sources = {"/source": take_in_path(talks, objects=objects, prefix="pieces")}
    shown = preview_rows(spec=spec, sources=sources, tokenizer=find_tokenizer("builtin"), objects=objects, count=4)
    assert [{k: v for k, v in row.items() if k != "reading"} for row in shown] == rows
    assert shown[0]["reading"][0]["role"] == "user"
    text = "".join(block["text"] for block in shown[0]["reading"])
    assert text.startswith("<|im_start|>system\n")
    assert sum(block["trained"] for block in shown[0]["reading"]) == sum(label != -100 for label in rows[0]["labels"])


def test_an_estimate_says_what_it_is_taken_from(tmp_path):
    talks = write_lines(tmp_path / "many.jsonl", [conversation(i % 50, turns=3, longest=300) for i in range(900)])
    objects = Objects.local(tmp_path / "store")
    spec = spec_of({"kind": "skipalign", "source": {"path": str(talks)}, "shard_rows": 75})
    sources = {"/source": take_in_path(talks, objects=objects, prefix="pieces")}
    guess = estimate(spec=spec, sources=sources, tokenizer=find_tokenizer("builtin"), objects=objects)
    line(talks, tmp_path / "out", strategy="outer", seed=0, shard_rows=75)
    true = read_manifest(tmp_path / "out").counts
    assert (guess["shards"], guess["source_rows"], guess["rows"]) == (12, 900, 900)
    assert guess["sampled"]
    assert abs(guess["tokens"] / true["tokens"] - 1) < 0.02


def test_every_bit_of_damage_is_found_by_verify(talks, tmp_path):
    from packing.dataset.errors import DatasetError

    out = tmp_path / "out"
    line(talks, out)
    draws = np.random.default_rng(0)
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and not p.is_relative_to(out / ".work")]
    found = done = 0
    for path in files:
        data = path.read_bytes()
        for _ in range(6):
            damaged = bytearray(data)
            kind = draws.integers(3)
            if kind == 0:
                damaged[draws.integers(len(data))] ^= 1 << int(draws.integers(8))
            elif kind == 1:
                damaged = damaged[: draws.integers(len(data))]
            path.unlink() if kind == 2 else path.write_bytes(damaged)
            done += 1
            try:
                manifest = verify(out)
                # a flipped bit in the manifest's words (a warning, a name) is still a whole dataset of other words
                assert path.name == "manifest.json"
                assert manifest.to_bytes() != data
            except DatasetError:
                found += 1
            path.write_bytes(data)
    assert done == 114
    assert found >= 111
    verify(out)


def test_a_worker_killed_under_a_task_is_replaced(talks, tmp_path, whole, two_workers):
    """SIGKILL a Ray worker in mid-build: Ray runs its task again and the bytes are the same."""
    import signal

    killed = []

    class Killer(Unwatched):
        def built(self, receipt, *, found):
            workers = [p for p in _descendants(os.getpid()) if _title(p).startswith("ray::run_task")]
            if workers and len(killed) < 2:
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])

    source = write_lines(tmp_path / "more.jsonl", [conversation(i, turns=6, longest=200) for i in range(600)])
    line(source, tmp_path / "calm", shard_rows=40)
    line(source, tmp_path / "killed", two_workers, Killer(), shard_rows=40)
    assert killed, "no worker was caught at work: nothing was tested"
    assert digests(tmp_path / "killed") == digests(tmp_path / "calm")


def deadly(payload: bytes) -> bytes:
    """In a Ray worker: shard 5 is its worker's death, at a crash point."""
    task = json.loads(payload)
    record = str(Objects.open(task["store"]).folder.parent / "record")
    points = {"task_begun": {"do": "kill", "times": 100}}
    if task["stage"] == "build" and task["shard"]["index"] == 5:
        os.environ[VARIABLE] = json.dumps({"record": record, "points": points})
    return run_task(payload)


def test_a_shard_that_kills_its_workers_is_named_with_its_rows(talks, tmp_path, two_workers, monkeypatch):
    import ray

    record = tmp_path / "record"
    record.mkdir()
    monkeypatch.setattr(two_workers, "_task", ray.remote(deadly).options(num_cpus=1, max_retries=0))
    with pytest.raises(ShardPoisonedError, match=r"shard 5 \(data/train-00005-of-00009.parquet: .*3 times"):
        line(talks, tmp_path / "out", two_workers)
    assert len(list(record.iterdir())) == 3
    assert not (tmp_path / "out/manifest.json").exists()


def _descendants(pid):
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        found += (more := children.get(queue.pop(), []))
        queue += more
    return found


def _title(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_worker_lost_is_an_error_with_a_name():
    assert WorkerLostError.code == "worker_lost"


def test_rows_are_checked_as_they_are_written(talks, tmp_path, monkeypatch):
    """A build whose positions come out wrong ends with the row's number, and no manifest."""
    from packing import positions
    from service.engine.shard_task import TaskError

    right = positions.position_ids
    monkeypatch.setattr(positions, "position_ids", lambda *arrays: right(*arrays) + 1)
    with pytest.raises(TaskError, match="row 0 of the batch") as caught:
        line(talks, tmp_path / "wrong")
    assert caught.value.code == "invalid_dataset"
    assert not (tmp_path / "wrong/manifest.json").exists()


def test_receipts_of_another_spec_are_not_taken_for_ours(talks, tmp_path, whole):
    out = tmp_path / "changed"
    with pytest.raises(Interrupted):
        line(talks, out, watch=StopAfter(4), seed=6)
    watch = StopAfter(10**6)
    line(talks, out, watch=watch)
    assert (watch.found, watch.total) == (0, 9)
    assert digests(out) == whole


def test_charts_show_what_the_statistics_count(talks, tmp_path):
    import json

    out = tmp_path / "out"
    line(talks, out)
    histograms = json.loads((out / "statistics.json").read_text())["histograms"]
    assert len(histograms) == 7
    for name, histogram in histograms.items():
        chart = json.loads((out / f"charts/{name}.vl.json").read_text())
        bins = chart["data"]["values"]
        assert [b["count"] for b in bins] == histogram["counts"]
        assert [b["from"] for b in bins] + [bins[-1]["to"]] == histogram["edges"]
        assert chart["encoding"]["x"]["bin"] == {"binned": True}
        assert name.replace("_", " ") in chart["title"]["text"]
