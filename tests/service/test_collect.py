"""Garbage collection: whatever lies in the store, what is or may become a dataset stays, and what is left over goes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cli import main
from service.storage.collect import DAY, PLACES, Known, Scope, collect, leftovers, places
from service.storage.objects import Entry, Objects
from tests.service.support import make_runner
from tests.service.test_runner import queue

NAMES = st.sampled_from(["a", "b", "c", "d"])
NOW = 10_000_000.0
FILES = ["manifest.json", "data/train.parquet", "deep/manifest.json", "header.json", "parts/0/dataset/manifest.json"]
ENTRIES = st.builds(
    lambda room, name, file, age: Entry(path=f"{room}/{name}/{file}", bytes=7, modified=NOW - age),
    st.sampled_from([*PLACES, "elsewhere"]),
    NAMES,
    st.sampled_from(FILES),
    st.sampled_from([0.0, DAY - 1, DAY, DAY + 1, 9 * DAY]),
)
KNOWN = st.builds(
    Known,
    live_jobs=st.frozensets(NAMES),
    live_targets=st.frozensets(NAMES),
    datasets=st.frozensets(NAMES),
    uploads=st.frozensets(NAMES),
    arriving=st.frozensets(NAMES),
)


def may_go(room, name, entries, known, scope):
    """The rule once more, by single entries: what the table in the module says."""
    mine = [entry for entry in entries if entry.path.startswith(f"{room}/{name}/")]
    if any(entry.modified >= NOW - DAY for entry in mine):
        return False
    committed = any(entry.path == f"{room}/{name}/manifest.json" for entry in mine)
    return {
        "work": name not in known.live_jobs,
        "datasets": not committed and name not in known.live_targets and name not in known.datasets,
        "uploads": scope is Scope.ALL and name not in known.uploads | known.arriving,
        "arriving": name not in known.arriving,
        "probe": True,
        "elsewhere": False,
    }[room]


@settings(max_examples=400)
@given(st.lists(ENTRIES, max_size=12), KNOWN, st.sampled_from(list(Scope)))
def test_exactly_what_is_left_over_goes(entries, known, scope):
    found = places(entries)
    chosen = {item.path for item in leftovers(found, known, now=NOW, scope=scope)}
    rooms = {tuple(entry.path.split("/")[:2]) for entry in entries}
    assert chosen == {f"{room}/{name}" for room, name in rooms if may_go(room, name, entries, known, scope)}


def test_files_that_are_nobodys_stay():
    found = places([Entry(path="work", bytes=1, modified=0), Entry(path="readme/x", bytes=1, modified=0)])
    assert found == {}


class Told:
    def __init__(self, known=None, then=lambda: None):
        self._known, self._then = known or Known(), then

    def known(self):
        self._then()
        return self._known

    def forget_silent(self):
        pass


@pytest.fixture
def store(tmp_path):
    objects = Objects.local(tmp_path / "objects")
    for path in (
        "work/job_old/1/receipts/0.json",
        "work/job_live/1/receipts/0.json",
        "datasets/ds_half/data/x.parquet",
        "datasets/ds_whole/data/x.parquet",
        "datasets/ds_whole/manifest.json",
        "datasets/ds_live/data/x.parquet",
        "uploads/up_gone/0.jsonl",
        "uploads/up_here/0.jsonl",
        "uploads/up_coming/0.parquet",
        "arriving/up_coming/000000000000000",
        "arriving/up_silent/000000000000000",
        "probe/1",
    ):
        objects.write(path, b"12345")
    return objects


def make_old(folder: Path, seconds=2 * DAY):
    then = time.time() - seconds
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


KNOWN_HERE = Known(
    live_jobs=frozenset({"job_live"}),
    live_targets=frozenset({"ds_live"}),
    uploads=frozenset({"up_here"}),
    arriving=frozenset({"up_coming"}),
)
ALL_LEFT = ["arriving/up_silent", "datasets/ds_half", "probe/1", "uploads/up_gone", "work/job_old"]


@pytest.mark.parametrize(
    ("scope", "gone"), [(Scope.JOBS, [p for p in ALL_LEFT if "uploads" not in p]), (Scope.ALL, ALL_LEFT)]
)
def test_a_dry_run_shows_and_a_collection_removes(store, tmp_path, scope, gone):
    (tmp_path / "incoming").mkdir()
    make_old(tmp_path / "objects")
    before = store.list("")
    shown = collect(Told(KNOWN_HERE), store, tmp_path / "incoming", scope=scope, delete=False)
    assert [item.path for item in shown if not item.file] == gone
    assert all(item.bytes == 5 * item.objects for item in shown if not item.file)
    assert store.list("") == before
    collect(Told(KNOWN_HERE), store, tmp_path / "incoming", scope=scope, delete=True)
    assert store.list("") == [path for path in before if not path.startswith(tuple(gone))]
    assert not (tmp_path / "objects/work/job_old").exists()
    assert [
        i for i in collect(Told(KNOWN_HERE), store, tmp_path / "incoming", scope=scope, delete=True) if not i.file
    ] == []


def test_what_is_young_stays(store, tmp_path):
    before = store.list("")
    assert not [i for i in collect(Told(), store, tmp_path / "no", scope=Scope.ALL, delete=True) if not i.file]
    assert store.list("") == before


def test_a_dataset_committed_while_we_looked_stays(store, tmp_path):
    make_old(tmp_path / "objects")
    commit = Told(KNOWN_HERE, then=lambda: store.write("datasets/ds_half/manifest.json", b"{}"))
    collect(commit, store, tmp_path / "no", scope=Scope.JOBS, delete=True)
    assert store.list("datasets/ds_half") == ["datasets/ds_half/data/x.parquet", "datasets/ds_half/manifest.json"]


def test_files_on_their_way_in_go_by_command_when_old(store, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    for place in ("incoming/up_1.part", "incoming/young", "temporary/longweave-x", "temporary/other"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"1")
    (tmp_path / "incoming/link").symlink_to(tmp_path / "temporary/other")
    make_old(tmp_path)
    os.utime(tmp_path / "incoming/young")
    collect(Told(KNOWN_HERE), store, tmp_path / "incoming", scope=Scope.JOBS, delete=True)
    assert (tmp_path / "incoming/up_1.part").exists()
    found = collect(Told(KNOWN_HERE), store, tmp_path / "incoming", scope=Scope.ALL, delete=True)
    assert sorted(Path(item.path).name for item in found if item.file) == ["longweave-x", "up_1.part"]
    left = sorted(path.name for room in ("incoming", "temporary") for path in (tmp_path / room).iterdir())
    assert left == ["link", "other", "young"]


def test_a_runner_collects_what_jobs_left_and_keeps_what_is_alive(services):
    done = queue(services)
    runner = make_runner(services)
    runner.run_once()
    waiting = queue(services)
    for path in ("work/job_gone/x", f"work/{waiting.id}/1/receipts/0.json", "datasets/ds_gone/data/x", "uploads/u/x"):
        services.objects.write(path, b"x")
    make_old(Path(services.objects.folder))
    before = set(services.objects.list(""))
    make_runner(services).tend()
    assert before - set(services.objects.list("")) == {"work/job_gone/x", "datasets/ds_gone/data/x"}
    assert services.library.manifest(services.catalog.dataset(done.target)).files
    assert make_runner(services).run_once()
    assert services.jobs.get(waiting.id).state == "succeeded"


def test_the_command_shows_and_removes(services, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    services.objects.write("work/job_gone/x", b"12345")
    make_old(Path(services.objects.folder))
    data = str(services.settings.data_dir)
    services.close()
    assert main(["collect", "--data-dir", data, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["deleted"] is False
    assert ("work/job_gone", 5) in [(item["path"], item["bytes"]) for item in shown["found"]]
    assert services.objects.size("work/job_gone/x") == 5
    assert main(["collect", "--data-dir", data, "--delete"]) == 0
    assert "work/job_gone" in capsys.readouterr().out
    assert services.objects.size("work/job_gone/x") is None
    with pytest.raises(SystemExit):
        main(["collect", "--older-than", "0.5"])
    assert "at least 1 hour" in capsys.readouterr().err
