"""What a cip dataset must be, said once more in plain loops that share nothing with the code that builds it."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pyarrow.parquet as pq

from packing.dataset.reader import read_manifest


def rows_of(folder):
    return [row for file in read_manifest(folder).files for row in pq.read_table(folder / file.path).to_pylist()]


def segments_by_document(rows):
    """{source row: [(row, segment, ids)]} in the dataset's order."""
    found = defaultdict(list)
    for number, row in enumerate(rows):
        for segment, source in zip(row["segments"], row["source_rows"], strict=True):
            ids = row["input_ids"][segment["start"] : segment["start"] + segment["length"]]
            found[source].append((number, segment, ids))
    return found


def audit(rows, documents, *, length, eos, bos=None, chunks=2):
    """Assert conservation, order, chunks, edges and labels of rows from `documents`, {source row: (id, ids)}; returns what was counted."""
    counted = Counter()
    by_document = segments_by_document(rows)
    assert set(by_document) == set(documents)
    ends = {}
    for source, (name, ids) in documents.items():
        reached, chunk, last_row = 0, 0, -1
        numbers = []
        for row, segment, found in by_document[source]:
            assert segment["document"] == name
            assert segment["source_start"] == reached
            assert found == ids[reached : reached + len(found)]
            assert segment["chunk"] >= chunk
            if segment["chunk"] == chunk and numbers:
                assert row == last_row + 1, "one chunk in two segments: a row's end has cut it"
                before = by_document[source][len(numbers) - 1]
                assert before[1]["start"] + before[1]["length"] == len(rows[before[0]]["input_ids"])
                counted["chunks cut by a row's end"] += 1
            numbers.append(segment["chunk"])
            reached, chunk, last_row = reached + len(found), segment["chunk"], row
            counted["segments"] += 1
        assert reached == len(ids), "every token is somewhere, once"
        pieces = 1 if not chunks else -(-len(ids) // (length // 2))
        if chunks and pieces == 1:
            assert sorted(set(numbers)) == list(range(min(chunks, len(ids))))
        ends[source] = by_document[source][-1]
        counted["tokens"] += len(ids)
    covered = sum(segment["length"] for row in rows for segment in row["segments"])
    outside = Counter()
    for row in rows:
        inside = set()
        for segment in row["segments"]:
            inside.update(range(segment["start"], segment["start"] + segment["length"]))
        outside.update(token for place, token in enumerate(row["input_ids"]) if place not in inside)
        opens, at = set(), 0
        for size in row["seq_lengths"]:
            opens.add(at)
            at += size
        assert at == len(row["input_ids"]) == row["n_tokens"] <= length
        assert row["labels"] == [-100 if i in opens else token for i, token in enumerate(row["input_ids"])]
    assert covered == counted["tokens"] == sum(len(ids) for _, ids in documents.values())
    expected = Counter({eos: len(documents)})
    if bos is not None:
        expected[bos] += len(documents)
    assert outside == expected, "only the ends (and beginnings) of documents lie outside the segments, once each"
    for row, segment, _ in ends.values():
        behind = segment["start"] + segment["length"]
        ids = rows[row]["input_ids"]
        assert (ids[behind] if behind < len(ids) else rows[row + 1]["input_ids"][0]) == eos
    counted["short rows"] = sum(len(row["input_ids"]) < length for row in rows)
    return counted


def apart(rows):
    """(documents with two chunks or more in one row, those of them with another document in between)."""
    several = between = 0
    for row in rows:
        places = defaultdict(list)
        for place, (segment, source) in enumerate(zip(row["segments"], row["source_rows"], strict=True)):
            places[source].append((place, segment["chunk"]))
        for found in places.values():
            if len({chunk for _, chunk in found}) > 1:
                several += 1
                between += any(b - a > 1 for (a, _), (b, _) in itertools.pairwise(found))
    return several, between
