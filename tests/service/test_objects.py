"""A local store's writes: what a power cut would find cannot be tried here, so the order of what is asked of the disk is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

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
