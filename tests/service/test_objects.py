"""A local store's writes: what a power cut would find cannot be tried here, so the order of what is asked of the disk is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from service.problems import InsufficientStorageError
from service.storage.objects import Objects


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the file system, in order: files flushed, files put in their places."""
    found: list[str] = []
    fsync, link, replace = os.fsync, Path.hardlink_to, Path.replace

    def noted(name, call):
        def note(*words):
            kind = "directory" if name == "flush" and stat.S_ISDIR(os.fstat(words[0]).st_mode) else "file"
            found.append(f"{name} {kind}" if name == "flush" else name)
            return call(*words)

        return note

    monkeypatch.setattr(os, "fsync", noted("flush", fsync))
    monkeypatch.setattr(Path, "hardlink_to", noted("place", link))
    monkeypatch.setattr(Path, "replace", noted("place", replace))
    return found


def test_a_creation_is_flushed_before_it_stands_in_its_place(tmp_path, asked):
    objects = Objects.local(tmp_path)
    assert objects.create("datasets/ds/manifest.json", b"{}", staging="work/job/partial")
    assert asked[:2] == ["flush file", "place"]
    assert "flush directory" in asked[2:]
    assert not objects.create("datasets/ds/manifest.json", b"[]", staging="work/job/partial")
    assert objects.read("datasets/ds/manifest.json") == b"{}"
    assert list((tmp_path / "work/job/partial").iterdir()) == []


def test_so_is_a_file_that_is_written_in_pieces(tmp_path, asked):
    objects = Objects.local(tmp_path)
    with objects.writing("datasets/ds/data/a.parquet", staging="work/job/partial") as stream:
        stream.write(b"rows")
    assert asked[:2] == ["flush file", "place"]
    assert "flush directory" in asked[2:]


def test_so_is_an_object_written_at_once_unless_it_need_not_last(tmp_path, asked):
    objects = Objects.local(tmp_path)
    objects.write("work/job/header.json", memoryview(b"header"))
    assert asked == ["flush file", "place", "flush directory"]
    objects.write("work/job/header.json", b"mark", durable=False)
    assert asked[3:] == ["place"]
    assert objects.read("work/job/header.json") == b"mark"


def test_a_write_that_fails_leaves_what_stood_there_and_nothing_beside_it(tmp_path, monkeypatch):
    objects = Objects.local(tmp_path)
    objects.write("work/job/header.json", b"before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InsufficientStorageError, match=r"no space left for work/job/header\.json"):
        objects.write("work/job/header.json", b"behind")
    assert objects.read("work/job/header.json") == b"before"
    assert [path.name for path in (tmp_path / "work/job").iterdir()] == ["header.json"]


def test_half_a_write_that_a_killed_process_left_is_no_object(tmp_path, monkeypatch):
    objects = Objects.local(tmp_path)
    left = []
    monkeypatch.setattr(Path, "replace", lambda self, place: left.append(self.rename(self.with_name(self.name))))
    objects.write("work/job/header.json", b"half")
    assert len(left) == 1
    assert left[0].read_bytes() == b"half"
    assert objects.list("work") == []


def test_what_goes_while_a_prefix_is_removed_keeps_nothing_else_alive(tmp_path, monkeypatch):
    objects = Objects.local(tmp_path)
    for number in range(5):
        objects.write(f"work/job/{number}", b"x")
    listed, gone = Objects.list, []

    def and_then_some_go(self, prefix):
        found = listed(self, prefix)
        for path in found[1:3]:
            (tmp_path / path).unlink()
            gone.append(path)
        return found

    monkeypatch.setattr(Objects, "list", and_then_some_go)
    objects.delete_prefix("work/job")
    assert len(gone) == 2
    assert not (tmp_path / "work/job").exists()
