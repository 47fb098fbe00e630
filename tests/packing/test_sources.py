"""Sources: containers told by their bytes, cut into pieces that keep row numbers, and refused where they cannot be decoded."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing import sources
from packing.bare_rows import Bare
from packing.dataset.errors import SourceError
from packing.records import Rejected, conversations
from packing.sources import Limits, container_of, cut, lines_table, runs_of_lines
from packing.spec import Columns
from service.engine.inputs import StoreInputs
from service.engine.tokenizers import find_tokenizer
from service.storage.intake import take_in, take_in_path
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord

TALK = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
LINES = [json.dumps({"id": f"r{i}", "messages": TALK}).encode() for i in range(500)]


def pieces(path, limits=None):
    return list(cut(path, name=path.name, limits=limits or Limits()))


def lines_of(path):
    return [line for piece in pieces(path) for line in piece.table.column("line").to_pylist()]


@pytest.mark.parametrize(
    ("container", "pack"),
    [("plain", bytes), ("gzip", gzip.compress), ("zstd", lambda data: pa.Codec("zstd").compress(data, asbytes=True))],
)
@pytest.mark.parametrize("ending", [b"\n", b""])
def test_lines_come_back_from_every_container(tmp_path, monkeypatch, container, pack, ending):
    monkeypatch.setattr(sources, "PIECE_BYTES", 1000)
    monkeypatch.setattr(sources, "READ_BYTES", 333)
    data = b"\n".join(LINES) + ending
    path = tmp_path / "whatever.bin"
    path.write_bytes(pack(data))
    assert container_of(path) == container
    cuts = pieces(path)
    assert len(cuts) > 20
    assert b"".join(lines_of(path)) == data
    assert [c.first_row for c in cuts] == [1 + sum(p.table.num_rows for p in cuts[:i]) for i in range(len(cuts))]


@pytest.mark.parametrize("read", [1000, 1717])
@pytest.mark.parametrize("ending", [b"\n", b"", b"\n\n", b"\n" + b"x" * 2500])
@pytest.mark.parametrize("mark", [b"", sources.BOM])
def test_runs_of_lines_are_the_pieces_that_a_plain_file_is_cut_into(tmp_path, monkeypatch, mark, ending, read):
    monkeypatch.setattr(sources, "PIECE_BYTES", 1000)
    monkeypatch.setattr(sources, "READ_BYTES", read)
    path = tmp_path / "plain.jsonl"
    path.write_bytes(mark + b"\n".join(LINES) + ending)
    data, cuts = path.read_bytes(), pieces(path)
    runs, digest, size = runs_of_lines(path, name=path.name, limits=Limits())
    assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert [(r.first_row, r.rows, r.bytes) for r in runs] == [(c.first_row, c.table.num_rows, c.bytes) for c in cuts]
    found = [data[run.start : run.start + run.bytes] for run in runs]
    assert [lines_table(part) for part in found] == [c.table for c in cuts]
    assert [run.checksum for run in runs] == list(map(zlib.crc32, found))
    assert len(runs) > 20


def test_runs_of_lines_are_refused_as_pieces_are(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 100)
    monkeypatch.setattr(sources, "READ_BYTES", 100)
    path = tmp_path / "plain.jsonl"
    for data, limits in (
        (b"", Limits()),
        (sources.BOM, Limits()),
        (b"short\n" + b"x" * 1000, Limits(line_bytes=500)),
        (LINES[0] * 100, Limits(bytes=1000)),
    ):
        path.write_bytes(data)
        with pytest.raises(SourceError) as by_cut:
            pieces(path, limits)
        with pytest.raises(SourceError) as by_runs:
            runs_of_lines(path, name=path.name, limits=limits)
        assert by_runs.value.message == by_cut.value.message


def test_several_frames_and_members_are_one_file(tmp_path):
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(LINES[0] + b"\n") + gzip.compress(LINES[1] + b"\n"))
    assert len(lines_of(path)) == 2


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES[0])
    assert lines_of(path) == [LINES[0]]


def parquet(path, count=100, **options):
    table = pa.table({"id": [f"r{i}" for i in range(count)], "messages": [TALK] * count})
    pq.write_table(table, path, **options)
    return path


def test_parquet_rows_keep_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_BYTES", 500)
    monkeypatch.setattr(sources, "BATCH_ROWS", 7)
    cuts = pieces(parquet(tmp_path / "a.parquet", row_group_size=30))
    assert sum(c.table.num_rows for c in cuts) == 100
    assert len(cuts) > 4
    rows = [
        item
        for c in cuts
        for item in conversations(
            c.table,
            container="columns",
            name="a",
            row=range(c.first_row, c.first_row + c.table.num_rows),
            index=range(c.first_row - 1, c.first_row - 1 + c.table.num_rows),
            columns=Columns(),
        )
    ]
    assert [(r.row, r.index, r.id) for r in rows] == [(i + 1, i, f"r{i}") for i in range(100)]
    assert rows[0].messages == TALK


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("empty.jsonl", b"", "is empty"),
        ("cut.gz", gzip.compress(b"x" * 10_000, mtime=0)[:-12], "damaged or cut short"),
        ("cut.zst", pa.Codec("zstd").compress(b"x" * 10_000, asbytes=True)[:-4], "damaged or cut short"),
        ("not.parquet", b"PAR1 and nothing else", "damaged or cut short"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_name(tmp_path, name, data, what):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SourceError, match=what) as caught:
        pieces(path)
    assert name in caught.value.message


def test_a_truncated_parquet_is_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", 5000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="damaged or cut short"):
        pieces(path)


def test_bombs_are_refused_before_they_unfold(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\n" * 50_000_000))
    with pytest.raises(SourceError, match="grows to more than"):
        pieces(path, Limits(expansion=100))
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"text": ["x" * 1000] * 200_000}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceError, match="grows to more than"):
        pieces(path, Limits(expansion=100))
    with pytest.raises(SourceError, match="claims"):
        pieces(parquet(tmp_path / "claim.parquet", 2000), Limits(bytes=100))


@pytest.mark.parametrize("nested", [False, True])
def test_parquet_texts_that_are_not_utf_8_are_refused_with_their_rows(tmp_path, monkeypatch, nested):
    monkeypatch.setattr(sources, "BATCH_ROWS", 2)
    raw = pa.array([b"fine", b"fine", b"fine", b"\xff\xfe"], pa.binary())
    texts = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2])
    column = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), texts) if nested else texts
    pq.write_table(pa.table({"text": column}), tmp_path / "x.parquet", use_dictionary=False, write_statistics=False)
    with pytest.raises(SourceError, match=r"x\.parquet, rows 3 to 4: column 'text' does not hold what its type says"):
        pieces(tmp_path / "x.parquet")


def test_extension_types_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"u": pa.array([b"0123456789abcdef"], pa.binary(16)).cast(pa.uuid())}), path)
    with pytest.raises(SourceError, match="extension type"):
        pieces(path)


def read(record, columns=None):
    table = pa.table(
        {"line": pa.array([record if isinstance(record, bytes) else json.dumps(record).encode()], pa.large_binary())}
    )
    items = conversations(table, container="lines", name="s", row=[7], index=[6], columns=columns or Columns())
    return next(iter(items), None)


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TALK},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
        {"prompt": "x", "completion": "y"},
        {"prompt": TALK[:1], "completion": TALK[1:]},
        {"instruction": "x", "output": "y"},
        {"instruction": "x", "input": "", "output": "y"},
    ],
)
def test_the_usual_shapes(record):
    found = read(record)
    assert isinstance(found, Bare)
    assert found.messages == TALK
    assert (found.row, found.index, found.id) == (7, 6, "7")


def test_named_columns_and_ids():
    found = read({"talk": TALK, "key": 12, "id": "no"}, Columns(messages="talk", id="key"))
    assert (found.messages, found.id) == (TALK, "12")
    assert read({"id": "a", "instruction": "x", "input": "z", "output": "y"}).messages[0]["content"] == "x\n\nz"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{not json", "not JSON"),
        (b'{"messages": "\xff"}', "not JSON"),
        (b'{"n": NaN}', "not JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not JSON"),
        ([1], "not a JSON object"),
        ({}, "it has no columns"),
        ({"text": "x"}, "it has text"),
        ({"messages": "x"}, "messages is no list"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["x"]}, "message 1 is no object"),
        ({"messages": TALK[:1]}, "no assistant message"),
        ({"messages": [{"role": "asistant", "content": "x"}]}, "role 'asistant'"),
        ({"messages": [{"role": "assistant"}]}, "no content"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, TALK[1]]}, "multi-modal"),
        ({"messages": [{"role": ["user"], "content": "hello"}, TALK[1]]}, "message 1 has role"),
        ({"messages": [TALK[0], {**TALK[1], "train": "no"}]}, "train is true or false"),
        ({"conversations": [{"from": "martian", "value": "x"}]}, "role 'martian'"),
    ],
)
def test_rows_that_are_no_conversation_say_why(record, reason):
    found = read(record)
    assert isinstance(found, Rejected)
    assert reason in found.reason
    assert found.row == 7


def test_blank_lines_are_passed_over():
    assert read(b"  \n") is None


def test_taking_in_is_the_same_every_time_and_reports_bad_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*LINES[:10], b"bad", b"", *LINES[10:20]]))
    records = [take_in(path, name="a", objects=Objects.local(tmp_path / f"s{i}"), prefix="p") for i in range(2)]
    assert records[0] == records[1]
    assert records[0].rows == 22
    assert records[0].problems["count"] == 1
    assert records[0].problems["first"][0]["row"] == 11


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "b.jsonl").write_bytes(b"\n".join(LINES[10:30]))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(LINES[:10])))
    parquet(folder / "c.parquet", 5)
    (folder / "notes.md").write_text("no source")
    record = take_in_path(folder, objects=Objects.local(tmp_path / "s"), prefix="p")
    assert record.rows == 35
    assert [(p.name, p.first_row, p.first_index, p.rows) for p in record.pieces] == [
        ("a.jsonl.gz", 1, 0, 10),
        ("b.jsonl", 1, 10, 20),
        ("c.parquet", 1, 30, 5),
    ]
    with pytest.raises(SourceError, match="holds no source files"):
        take_in_path(
            (tmp_path / "void").mkdir() or tmp_path / "void", objects=Objects.local(tmp_path / "s"), prefix="p"
        )


def test_a_dataset_directory_is_the_files_of_its_manifest(talks, build, tmp_path):
    from packing.dataset.errors import DatasetError

    folder = build(talks, shard_rows=25)
    record = take_in_path(folder, objects=Objects.local(tmp_path / "s"), prefix="p")
    assert [p.name for p in record.pieces] == [f"data/train-0000{i}-of-00003.parquet" for i in range(3)]
    assert record.rows == 60
    victim = folder / "data/train-00001-of-00003.parquet"
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="train-00001"):
        take_in_path(folder, objects=Objects.local(tmp_path / "s"), prefix="p")


def test_an_upload_of_texts_has_no_problems(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "one"}\n{"text": ""}\n{"messages": [], "text": "x"}\n{"other": 1}\n\n' + LINES[0].decode()
    )
    record = take_in(path, name="a", objects=Objects.local(tmp_path / "s"), prefix="p")
    assert [problem["row"] for problem in record.problems["first"]] == [2, 3, 4]
    assert record.problems["count"] == 3


def test_what_stays_is_packed_and_looked_through_and_what_passes_is_neither(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(b"\n".join([*LINES[:10], b"bad"])))
    stays = take_in(path, name="a", objects=Objects.local(tmp_path / "stays"), prefix="p")
    passes = take_in_path(path, objects=Objects.local(tmp_path / "passes"), prefix="p")
    codecs = [
        pq.read_metadata(next((tmp_path / name / "p").rglob("*.parquet"))).row_group(0).column(0).compression
        for name in ("stays", "passes")
    ]
    assert codecs == ["ZSTD", "UNCOMPRESSED"]
    assert stays.problems["count"] == 1
    assert passes.problems["count"] == 0
    assert (stays.digest, stays.rows) == (passes.digest, passes.rows)


def test_plain_lines_that_pass_are_left_where_they_are(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    objects = Objects.local(tmp_path / "s")
    passes = take_in_path(path, objects=objects, prefix="p")
    stays = take_in(path, name="a.jsonl", objects=objects, prefix="p")
    assert [(p.file, p.start, p.bytes) for p in passes.pieces] == [(str(path), 0, path.stat().st_size)]
    assert [p.file for p in stays.pieces] == [""]
    assert (passes.digest, passes.rows, passes.bytes) == (stays.digest, stays.rows, stays.bytes)
    assert SourceRecord.from_json(json.loads(json.dumps(passes.to_json()))) == passes
    there, copied = (StoreInputs(objects, {"/source": record}, find_tokenizer("builtin")) for record in (passes, stays))
    assert there.read(there.pieces[0]) == copied.read(copied.pieces[0])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda path: path.write_bytes(path.read_bytes().replace(b"r7", b"r8", 1)), "has changed since"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has changed since"),
        (lambda path: path.unlink(), "cannot be read any more"),
    ],
)
def test_lines_that_change_while_they_are_built_from_are_noticed(tmp_path, change, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    objects = Objects.local(tmp_path / "s")
    inputs = StoreInputs(
        objects, {"/source": take_in_path(path, objects=objects, prefix="p")}, find_tokenizer("builtin")
    )
    change(path)
    with pytest.raises(SourceError, match=what):
        inputs.read(inputs.pieces[0])
