"""The kind cip: whole datasets built in this process, held against the source token for token."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing import cip, cip_units
from packing.dataset.errors import DatasetError, InputError, SourceError, SpecError
from packing.dataset.reader import read_manifest
from packing.knots import knots_of
from packing.tokenizers import Tokenizer
from service.commands.verify import verify
from service.engine.executor import RayExecutor
from service.engine.shard_task import TaskError
from service.kinds import spec_of
from tests.conftest import WORDS, write_lines
from tests.packing.cip_audit import apart, audit, rows_of, segments_by_document


def text(number, longest=400):
    draws = np.random.default_rng(number)
    return " ".join(draws.choice(WORDS, size=int(draws.integers(1, longest))))


RECORDS = [
    {"id": f"d{i}", "text": text(i, 3000 if i % 40 == 7 else 300), "lang": "en" if i % 3 else "zh"} for i in range(160)
]
RECORDS[5]["text"] = "a"
RECORDS[6]["text"] = "b <|endoftext|> and <|im_start|> are text here"


@pytest.fixture
def corpus(tmp_path):
    return write_lines(tmp_path / "corpus.jsonl", RECORDS)


def expected(tokenizer, records=RECORDS):
    return {i: (r["id"], tokenizer.encode_escaped([r["text"]], [()]).ids.tolist()) for i, r in enumerate(records)}


@pytest.fixture
def eos(builtin):
    return builtin.special[builtin.eos_token]


@pytest.mark.parametrize(
    "fields", [{}, {"chunks": 5}, {"chunks": 64}, {"cut": "equal", "chunks": 3}, {"documents_per_sequence": 4}]
)
@pytest.mark.parametrize("length", [64, 512, 4096])
def test_every_token_is_in_one_place_and_documents_keep_their_order(corpus, build, builtin, eos, length, fields):
    folder = build(corpus, kind="cip", sequence_length=length, seed=2, **fields)
    manifest = verify(folder)
    rows = rows_of(folder)
    counted = audit(rows, expected(builtin), length=length, eos=eos, chunks=fields.get("chunks", 2))
    assert counted["short rows"] <= 1
    assert manifest.counts["source_tokens"] == counted["tokens"] == manifest.counts["placed_tokens"]
    assert manifest.counts["tokens"] == counted["tokens"] + len(RECORDS)
    single = fields.get("chunks") == length  # chunks of one token cannot be cut
    assert counted["chunks cut by a row's end"] > 3 or length == 4096 or single
    several, between = apart(rows)
    assert several > 40 or length == 64
    if length > 64 and not fields:
        assert between >= 0.9 * several


@pytest.mark.parametrize("order", ["concatenate", "best_fit"])
@pytest.mark.parametrize("attention", ["full", "document"])
def test_documents_end_to_end_and_packed(corpus, build, builtin, eos, order, attention):
    folder = build(corpus, kind="cip", sequence_length=256, order=order, attention=attention)
    verify(folder)
    rows = rows_of(folder)
    documents = expected(builtin)
    if order == "concatenate":
        assert audit(rows, documents, length=256, eos=eos, chunks=0)["short rows"] <= 1
    found = segments_by_document(rows)
    for source, (_, ids) in documents.items():
        parts = sorted((segment["source_start"], ids) for _, segment, ids in found[source])
        assert [token for _, part in parts for token in part] == ids
        if order == "best_fit":
            assert len(parts) == -(-(len(ids) + 1) // 256), "nothing is cut that need not be"
    for row in rows:
        assert len(row["input_ids"]) <= 256
        if attention == "full":
            assert row["seq_lengths"] == [row["n_tokens"]]
        else:
            runs = [
                sources
                for i, sources in enumerate(row["source_rows"])
                if i == 0 or row["source_rows"][i - 1] != sources
            ]
            # a row that opens with the end of the document before it has a run without a segment
            opens = int(bool(row["segments"]) and row["segments"][0]["start"] > 0) or int(not row["segments"])
            assert len(row["seq_lengths"]) == len(runs) + opens
    if order == "best_fit":
        fill = sum(row["n_tokens"] for row in rows) / (256 * len(rows))
        assert fill > 0.98
        assert {len(row["input_ids"]) for row in rows} > {256}


def test_a_document_that_fills_its_row_to_the_last_token_gives_one_up_for_its_end(tmp_path, build, builtin, eos):
    ids = builtin.encode(["word " * 200]).ids[:64].tolist()
    table = pa.table({"id": ["a", "b", "c"], "input_ids": [ids, ids[:63], ids * 2]})
    pq.write_table(table, tmp_path / "tokens.parquet")
    rows = rows_of(build(tmp_path / "tokens.parquet", kind="cip", sequence_length=64, order="best_fit"))
    lengths = sorted(row["n_tokens"] for row in rows)
    assert lengths == [2, 2, 63, 63, 64, 64] or sum(lengths) == 64 + 63 + 128 + 3
    assert all(row["segments"] for row in rows), "no row without text"
    assert Counter(row["input_ids"][-1] == eos for row in rows)[True] >= 2


def test_untied_knots_have_their_marks_and_lose_nothing(corpus, build, builtin, eos):
    folder = build(corpus, kind="cip", order="untie_knots", sequence_length=2048, probability=0.7, chunks=3, seed=1)
    verify(folder)
    rows = rows_of(folder)
    stream = [token for row in rows for token in row["input_ids"]]
    labels = [label for row in rows for label in row["labels"]]
    opens = {i * 2048 for i in range(len(rows))}
    found = segments_by_document(rows)
    documents = expected(builtin)
    tied = listed_and_learnt = 0
    marks = {name: builtin.encode_escaped([f"<{name}>"], [()]).ids.tolist() for name in ("h_1", "t_1", "t_2", "S")}
    for source, (_, ids) in documents.items():
        parts = [(row * 2048 + s["start"], s, part) for row, s, part in found[source]]
        assert [token for _, _, part in parts for token in part] == ids, "in order, whole"
        if len(ids) > 1000:
            continue
        chunks = sorted({s["chunk"] for _, s, _ in parts})
        if len(chunks) == 1:
            continue
        assert chunks == [0, 1, 2]
        tied += 1
        ends = {s["chunk"]: place + s["length"] for place, s, _ in parts}
        begins = {s["chunk"]: place for place, s, _ in reversed(parts)}
        names = []
        for chunk in chunks:
            head = marks["h_1"] if chunk else []
            before = stream[begins[chunk] - 11 - len(head) : begins[chunk]]
            mark = builtin.decode(before)
            assert mark.startswith("<CL>")
            assert mark.endswith("</CL>" if not chunk else f"<h_{chunk}>")
            names.append(mark[4:10])
        assert stream[ends[0] : ends[0] + len(marks["t_1"])] == marks["t_1"]
        assert stream[ends[1] : ends[1] + len(marks["t_2"])] == marks["t_2"]
        closing = builtin.decode(stream[ends[2] : ends[2] + 60])
        listed = f"<S>{names[0]}<s>{names[1]}<s>{names[2]}</S>"
        assert closing.startswith(f"{listed}<|endoftext|>")
        pieces = ["<S>", names[0], "<s>", names[1], "<s>", names[2], "</S>"]
        span = range(ends[2], ends[2] + sum(len(builtin.encode_escaped([piece], [()]).ids) for piece in pieces))
        if opens.isdisjoint(span):
            listed_and_learnt += 1
            assert builtin.decode([stream[i] for i in span if labels[i] != -100]) == "".join(names)
        assert len(set(names)) == 3
    assert 60 < tied < 150
    assert listed_and_learnt > 0.9 * tied
    marked = [i for i, label in enumerate(labels) if label == -100 and i not in opens]
    for i in marked[:: len(marked) // 200]:
        assert any(piece in builtin.decode(stream[max(i - 14, 0) : i + 14]) for piece in ("<", ">", "CL")), (
            "only marks are masked"
        )
    covered = sum(s["length"] for row in rows for s in row["segments"])
    assert len(stream) - covered - len(documents) > len(marked) > 0


def test_knots_scatter_what_interleaving_orders(corpus, build):
    """How often a first chunk follows a later one in a row: once a group where rounds follow each other, often where slots are random."""

    def inversions(**fields):
        rows = rows_of(build(corpus, kind="cip", sequence_length=4096, chunks=3, **fields))
        found = [[s["chunk"] > 0 for s in row["segments"]] for row in rows]
        return np.mean([sum(a and not b for a, b in itertools.pairwise(chunks)) for chunks in found])

    assert inversions() <= 1.2
    assert inversions(order="untie_knots", probability=1.0) > 3


def test_marks_are_as_long_as_they_are_counted(builtin):
    knots = knots_of(builtin)
    counts = np.array([2, 3, 7, 64])
    names = [
        builtin.decode(knots.pool[s : s + n].tolist()) for s, n in zip(knots.start[:64], knots.length[:64], strict=True)
    ]
    assert all(name.startswith("<CL>") and len(name) == 15 for name in names)
    assert len(set(names)) == 64

    def written(count):
        pieces = [f"<h_{i}>" for i in range(1, count)] + [f"<t_{i}>" for i in range(1, count)]
        pieces += [names[i] for i in range(count)] + [names[i][4:10] for i in range(count)]
        pieces += ["<S>", "</S>"] + ["<s>"] * (count - 1)
        return sum(len(builtin.encode_escaped([piece], [()]).ids) for piece in pieces)

    assert knots.overhead(counts, labels=True, backtrace=True).tolist() == [written(int(c)) for c in counts]


def test_upsampling_repeats_the_long_and_weighs_domains(tmp_path, build, builtin):
    records = [
        {"id": f"d{i}", "text": text(i, 60) if i % 10 else text(i, 3000), "domain": "ab"[i // 10 % 2]}
        for i in range(600)
    ]
    source = write_lines(tmp_path / "s.jsonl", records)
    plain = read_manifest(build(source, kind="cip", order="concatenate", sequence_length=512)).counts
    folder = build(source, kind="cip", order="upsample", sequence_length=512, long_tokens=600, upsample=4.0)
    verify(folder)
    counts = read_manifest(folder).counts
    assert abs(counts["placed_tokens"] / plain["placed_tokens"] - 1) < 0.1
    times = Counter()
    lengths = {i: len(ids) for i, (_, ids) in expected(builtin, records).items()}
    for source_row, parts in segments_by_document(rows_of(folder)).items():
        times[source_row] = sum(len(ids) for _, _, ids in parts) / lengths[source_row]
    long = [i for i, n in lengths.items() if n >= 600]
    short = [i for i, n in lengths.items() if n < 600]
    assert all(abs(times[i] - round(times[i])) < 1e-9 for i in lengths), "documents come whole"
    ratio = np.mean([times[i] for i in long]) / np.mean([times[i] for i in short])
    assert 3 < ratio < 5.3
    often = build(
        source,
        kind="cip",
        order="upsample",
        sequence_length=512,
        long_tokens=sorted(lengths.values())[-8],
        upsample=100.0,
    )
    order = [
        i
        for row in rows_of(often)
        for i, segment in zip(row["source_rows"], row["segments"], strict=True)
        if segment["source_start"] == 0
    ]
    repeats = len(order) - len(set(order))
    assert repeats > 20
    behind = sum(a == b for a, b in itertools.pairwise(order))
    assert behind < repeats / 2, "copies have places of their own, not behind each other"
    weighed = build(
        source, kind="cip", order="upsample", sequence_length=512, upsample=1.0, domain_weights={"a": 3, "b": 1}
    )
    tokens = Counter()
    for source_row, parts in segments_by_document(rows_of(weighed)).items():
        tokens[records[source_row]["domain"]] += sum(len(ids) for _, _, ids in parts)
    assert 2.3 < tokens["a"] / tokens["b"] < 3.9
    with pytest.raises(InputError, match="names c, the corpus has 'a', 'b'"):
        build(source, kind="cip", order="upsample", domain_weights={"c": 1})


def test_strata_share_no_row(corpus, build, builtin, eos):
    folder = build(corpus, kind="cip", sequence_length=512, strata=True, columns={"domain": "lang"})
    verify(folder)
    rows = rows_of(folder)
    for row in rows:
        assert len({RECORDS[i]["lang"] for i in row["source_rows"]}) <= 1
    assert audit(rows, expected(builtin), length=512, eos=eos)["short rows"] <= 2


def test_how_it_is_sharded_and_by_whom_changes_no_row(corpus, build):
    for order in ("interleave", "untie_knots", "best_fit"):
        fields = {"kind": "cip", "sequence_length": 256, "order": order}
        whole = rows_of(build(corpus, **fields))
        for more in ({"shard_rows": 7}, {"shard_tokens": 3000}):
            folder = build(corpus, **fields, **more)
            assert len(read_manifest(folder).files) > 8
            assert rows_of(folder) == whole
        assert rows_of(build(corpus, **fields, seed=1)) != whole


def test_one_and_two_workers_give_the_same_bytes(corpus, build):
    fields = {"kind": "cip", "sequence_length": 256, "shard_rows": 20}
    one = read_manifest(build(corpus, **fields))
    with RayExecutor(workers=2) as executor:
        two = read_manifest(build(corpus, executor=executor, **fields))
    assert one.to_bytes() == two.to_bytes()
    assert len(one.files) > 5


def test_the_order_is_drawn_over_the_whole_corpus(tmp_path, build, monkeypatch):
    """Documents of one piece of the source do not stay together."""
    from packing import sources

    monkeypatch.setattr(sources, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(sources, "READ_BYTES", 10_000)
    corpus = write_lines(tmp_path / "corpus.jsonl", RECORDS)
    rows = rows_of(build(corpus, kind="cip", sequence_length=2048))
    order = list(dict.fromkeys(i for row in rows for i in row["source_rows"]))
    assert np.corrcoef(order, np.arange(len(order)))[0, 1] < 0.3
    monkeypatch.undo()
    assert rows_of(build(corpus, kind="cip", sequence_length=2048)) == rows, "however the source was cut"


def test_the_remainder_is_dropped_and_counted(corpus, build):
    kept = build(corpus, kind="cip", sequence_length=512)
    folder = build(corpus, kind="cip", sequence_length=512, drop_remainder=True, shard_rows=5)
    counts = verify(folder).counts
    rows, whole = rows_of(folder), rows_of(kept)
    assert whole[-1]["n_tokens"] < 512
    assert rows == whole[:-1]
    assert counts["remainder_tokens"] == whole[-1]["n_tokens"]
    assert counts["placed_tokens"] + counts["remainder_source_tokens"] == counts["source_tokens"]
    each = read_manifest(build(corpus, kind="cip", sequence_length=512, drop_remainder=True, shard_rows=1)).files
    assert [file.rows for file in each] == [1] * len(rows), "no file without rows"
    with pytest.raises(InputError, match="do not fill one row of 1048576"):
        build(corpus, kind="cip", sequence_length=1048576, drop_remainder=True)


def test_equal_documents_are_taken_once(tmp_path, build, builtin):
    records = [{"id": f"d{i}", "text": text(i % 20)} for i in range(60)]
    source = write_lines(tmp_path / "s.jsonl", records)
    folder = build(source, kind="cip", sequence_length=512, deduplicate=True)
    counts = verify(folder).counts
    names = {segment["document"] for row in rows_of(folder) for segment in row["segments"]}
    assert names == {f"d{i}" for i in range(20)}
    assert counts["duplicate_documents"] == 40
    assert counts["duplicate_tokens"] == 2 * counts["placed_tokens"]
    assert {s["document"] for row in rows_of(build(source, kind="cip")) for s in row["segments"]} == {
        r["id"] for r in records
    }


def test_a_tokenizer_that_opens_texts_opens_documents(tmp_path, corpus, build, builtin):
    from packing.tokenizers import BUILTIN

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((BUILTIN / "tokenizer.json").read_bytes())
    config = json.loads((BUILTIN / "tokenizer_config.json").read_text())
    config |= {"bos_token": "<|im_start|>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(folder)
    assert (builtin.opening, tokenizer.opening) == (None, "<|im_start|>")
    assert builtin.digest != tokenizer.digest
    fields = {"kind": "cip", "sequence_length": 256, "tokenizer": str(folder)}
    bos, eos = tokenizer.special["<|im_start|>"], tokenizer.special[tokenizer.eos_token]
    audit(rows_of(build(corpus, **fields)), expected(builtin), length=256, eos=eos, bos=bos)
    audit(rows_of(build(corpus, **fields, bos="none")), expected(builtin), length=256, eos=eos)
    with pytest.raises(TaskError, match="no bos_token to begin a document with"):
        build(corpus, kind="cip", bos="document")


def test_folders_of_texts_and_datasets_are_sources(tmp_path, build, builtin, eos):
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / ".hidden/x.txt").write_text("not this")
    for i in range(30):
        (folder / f"deep/{i:02d}.md").write_text(text(i), encoding="utf-8")
    (folder / "a.txt").write_bytes("b\u00e9".encode("latin-1"))
    with pytest.raises(TaskError, match="texts, row 1: not UTF-8"):
        build(folder, kind="cip", sequence_length=256)
    out = build(folder, kind="cip", sequence_length=256, on_bad_row="skip")
    records = [{"id": "a.txt", "text": ""}] + [{"id": f"deep/{i:02d}.md", "text": text(i)} for i in range(30)]
    wanted = {i: v for i, v in expected(builtin, records).items() if i}
    audit(rows_of(out), wanted, length=256, eos=eos)
    assert read_manifest(out).skipped_inputs["first"] == [{"source": "texts", "row": 1, "reason": "not UTF-8 (byte 1)"}]
    again = build(out, kind="cip", sequence_length=512, order="concatenate")
    assert read_manifest(again).counts["source_rows"] == read_manifest(out).counts["rows"]
    assert verify(again).counts["placed_tokens"] > 0
    one = tmp_path / "one.txt"
    one.write_text(text(3), encoding="utf-8")
    assert {s["document"] for row in rows_of(build(one, kind="cip")) for s in row["segments"]} == {"one.txt"}


@pytest.mark.parametrize(
    ("lines", "fields", "reason"),
    [
        ([b'{"text": "a b"}', b'{"text": "  "}'], {}, "row 2: its text is empty"),
        ([b'{"text": ""}'], {}, "row 1: its text is empty"),
        ([b'{"text": "a b"}', b'{"text": "\xff"}'], {}, "row 2: not JSON"),
        ([b'{"text": "a b c d e f g"}'], {"max_document_bytes": 5}, "13 bytes, more than max_document_bytes (5)"),
        ([b'{"body": "a"}'], {"columns": {"text": "words"}}, "no text in column 'words'; it has body"),
        ([b'{"text": "a", "id": 1}'], {"columns": {"domain": "lang"}}, "no column 'lang'; it has id, text"),
        ([b'{"text": "a <|im_end|>"}'], {"special_tokens_in_text": "refuse"}, "row 1: it spells a special token"),
    ],
)
def test_a_bad_document_fails_by_its_row_or_is_counted(tmp_path, build, lines, fields, reason):
    source = tmp_path / "s.jsonl"
    source.write_bytes(b"\n".join(lines))
    with pytest.raises(TaskError) as caught:
        build(source, kind="cip", **fields)
    assert reason in caught.value.message
    assert caught.value.code == "bad_row"
    source.write_bytes(b"\n".join([*lines, b'{"text": "good", "words": "good", "lang": "en"}']))
    manifest = read_manifest(build(source, kind="cip", on_bad_row="skip", **fields))
    assert manifest.skipped_inputs["count"] == 1
    assert manifest.counts["documents"] == len(lines)
    source.write_bytes(lines[-1])
    if reason.startswith("row 2"):
        with pytest.raises(InputError, match="no document is left: all of 1 rows were rejected or empty, the first: "):
            build(source, kind="cip", on_bad_row="skip", **fields)


def test_a_parquet_without_the_column_names_those_it_has(tmp_path, build):
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "s.parquet")
    with pytest.raises(TaskError, match=r"s\.parquet has no column 'text2'; it has body, n") as caught:
        build(tmp_path / "s.parquet", kind="cip", columns={"text": "text2"}, on_bad_row="skip")
    assert caught.value.param == "/columns/text"


def test_a_footer_that_claims_too_much_is_refused(tmp_path, build, monkeypatch):

    pq.write_table(pa.table({"text": ["a" * 100_000] * 2000}), tmp_path / "s.parquet")
    assert (tmp_path / "s.parquet").stat().st_size < 200_000
    with pytest.raises(SourceError, match=r"grows to more than|claims"):
        build(tmp_path / "s.parquet", kind="cip")


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"chunks": 1}, "/chunks", "greater than or equal to 2"),
        ({"sequence_length": 2**20 + 1}, "/sequence_length", "less than or equal to 1048576"),
        ({"order": "concatenate", "chunks": 3}, "/chunks", "chunks goes with order interleave or untie_knots"),
        ({"order": "interleave", "upsample": 2.0}, "/upsample", "upsample goes with order upsample"),
        ({"order": "upsample", "domain_weights": {"a": 0.0}}, "/domain_weights", "all zero"),
        ({"documents_per_sequence": 1}, "/documents_per_sequence", "greater than or equal to 2"),
        ({"weave": True}, "/weave", "no such field"),
    ],
)
def test_a_spec_that_cannot_be_meant_names_the_field(fields, pointer, words):
    with pytest.raises(SpecError) as caught:
        spec_of({"kind": "cip", "source": {"path": "x"}, **fields})
    found = {p.pointer: p.message for p in caught.value.problems}
    assert any(p.startswith(pointer) and words in m for p, m in found.items()), found


def test_check_finds_what_is_wrong_with_a_row(corpus, build):
    folder = build(corpus, kind="cip", sequence_length=512)
    spec = spec_of(read_manifest(folder).spec)
    table = pq.read_table(folder / read_manifest(folder).files[0].path)
    good = table.slice(0, 3).to_pylist()
    cip.check(spec, pa.RecordBatch.from_pylist(good, table.schema))

    def damaged(change):
        rows = json.loads(json.dumps(good))
        change(rows[1])
        return pa.RecordBatch.from_pylist(rows, table.schema)

    def swap(row):
        row["segments"][0], row["segments"][1] = row["segments"][1], row["segments"][0]

    def foreign(row):
        by = defaultdict(list)
        for i, source in enumerate(row["source_rows"]):
            by[source].append(i)
        a, b = next(v[:2] for v in by.values() if len(v) > 1)
        row["segments"][a]["source_start"], row["segments"][b]["source_start"] = (
            row["segments"][b]["source_start"],
            row["segments"][a]["source_start"],
        )

    changes = {
        "differ in length": lambda r: r["labels"].pop(),
        "seq_lengths do not add up": lambda r: r["seq_lengths"].append(1),
        "neither its own id": lambda r: r["labels"].__setitem__(5, 1 + r["labels"][5]),
        "first token of a sequence has a label": lambda r: r["labels"].__setitem__(0, r["input_ids"][0]),
        "a token has no label": lambda r: r["labels"].__setitem__(7, -100),
        "not one source row": lambda r: r["source_rows"].pop(),
        "outside its row": lambda r: r["segments"][-1].update(length=600),
        "overlap, or are out of order": swap,
        "more than the ends of documents": lambda r: r["segments"][0].update(length=r["segments"][0]["length"] - 3),
        "out of order": foreign,
    }
    for words, change in changes.items():
        with pytest.raises(DatasetError, match=words) as caught:
            cip.check(spec, damaged(change))
        assert "row 1 of the batch" in caught.value.message


def test_the_strip_and_the_spans_are_drawn(corpus, build):
    folder = build(corpus, kind="cip", sequence_length=512)
    strip = json.loads((folder / "charts/interleave_strip.vl.json").read_text())
    first = rows_of(folder)[0]
    shown = [(i["document"], i["start"], i["end"]) for i in strip["data"]["values"] if i["row"] == 0]
    assert shown == [(s["document"], s["start"], s["start"] + s["length"]) for s in first["segments"]]
    spans = json.loads((folder / "charts/document_span_against_concatenation.vl.json").read_text())
    assert {item["rows"] for item in spans["data"]["values"]} == {"as they are", "laid end to end"}
    statistics = json.loads((folder / "statistics.json").read_text())["histograms"]
    assert statistics["document_span"]["mean"] > 1.5 * statistics["document_tokens"]["mean"]
    plain = build(corpus, kind="cip", sequence_length=512, order="concatenate")
    statistics = json.loads((plain / "statistics.json").read_text())["histograms"]
    assert statistics["document_span"]["counts"] == statistics["document_tokens"]["counts"]
    assert statistics["chunk_gap"]["total"] == 0


def test_warnings_say_what_undoes_the_method(tmp_path, corpus, build):
    folder = build(corpus, kind="cip", sequence_length=512, attention="document")
    assert any("undoes" in warning for warning in read_manifest(folder).warnings)
    verify(folder)
    one = build(write_lines(tmp_path / "one.jsonl", RECORDS[:1]), kind="cip")
    assert any("one document" in warning for warning in read_manifest(one).warnings)


def test_kept_tokens_that_were_damaged_are_not_used(corpus, tmp_path):
    from service.engine.executor import InlineExecutor
    from service.engine.line import Unwatched, build_dataset
    from service.engine.shard_task import run_task
    from service.engine.tokenizers import find_tokenizer
    from service.storage.intake import take_in_path
    from service.storage.objects import Objects

    out = tmp_path / "out"
    damaged = []

    class Damage(InlineExecutor):
        def run(self, payloads, check):
            for payload in payloads:
                if b'"build"' in payload and not damaged:
                    path = next(out.glob(".work/*/kept/*.bin"))
                    data = bytearray(path.read_bytes())
                    data[len(data) // 2] ^= 1
                    path.write_bytes(data)
                    damaged.append(path)
                yield run_task(payload)

    spec = spec_of({"kind": "cip", "source": {"path": str(corpus)}, "sequence_length": 512})
    objects = Objects.local(out)
    with pytest.raises(TaskError, match="damaged in the store"):
        build_dataset(
            spec=spec,
            sources={"/source": take_in_path(corpus, objects=objects, prefix=".work/pieces")},
            tokenizer=find_tokenizer("builtin"),
            objects=objects,
            work=".work",
            target="",
            executor=Damage(),
            watch=Unwatched(),
        )
    assert damaged


@pytest.mark.parametrize(
    ("ids", "bos", "left"),
    [
        ([1, 5, 6, 2], [1], [5, 6]),
        ([1, 5, 6, 2], [], [1, 5, 6]),
        ([2, 5, 1], [1], [2, 5, 1]),
        ([1], [1], []),
        ([2], [1], []),
        ([], [1], []),
    ],
)
def test_what_is_put_around_documents_is_taken_from_those_that_have_it(ids, bos, left):
    assert cip_units._bare(np.array(ids, np.int32), bos, [2]).tolist() == left
