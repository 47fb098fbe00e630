"""Every answer recomputed by the audit, from the messages alone; and the audit finds every error that is planted."""

from __future__ import annotations

import copy
import csv
import html
import io
import json
import re
from itertools import product

import pytest

from synth.audit.evaluate import UnknownQueryError, evaluate
from synth.audit.parse import Grid, UnreadableError, record_cells, table_named
from synth.audit.rows import AnswerError, audit, final_answer, recomputed
from synth.tables.render.formats import FORMATS
from synth.tables.tasks.catalogue import TASKS
from tests.synth.support import LOCALES, row_of

ABSENT = {"Not in the table", "表中没有"}


@pytest.mark.parametrize("format_", FORMATS)
def test_every_task_in_every_format_and_locale_is_recomputed(format_):
    answered = {True: 0, False: 0}
    for number, (task, locale, asked_in_vain) in enumerate(product(TASKS, LOCALES, (0.0, 1.0))):
        options = {"tasks": {task: 1.0}, "formats": {format_: 1.0}, "locales": {locale: 1.0}, "turns": (1, 2)}
        row = row_of(number, split="test" if number % 3 == 0 else "train", unanswerable=asked_in_vain, **options)
        assert (row["task"], row["format"], row["locale"]) == (task, format_, locale)
        assert audit(row) == len(row["answers"]) == len(row["queries"])
        assert recomputed(row) == row["answers"]
        absent = [answer in ABSENT for answer in row["answers"]]
        assert all(absent) == any(absent) == bool(asked_in_vain and TASKS[task].can_lack), (task, row["answers"])
        answered[all(absent)] += 1
    assert answered == {True: 22, False: 34}


def test_a_response_ends_with_its_answer_and_shows_steps_where_asked():
    for number, share in product(range(30), (0.0, 1.0)):
        row = row_of(number, reasoning=share)
        for answer, question, response in zip(row["answers"], row["messages"][::2], row["messages"][1::2], strict=True):
            lines = response["content"].split("\n")
            assert final_answer(response["content"]) == answer
            assert (len(lines) > 1) == bool(share)
            asks = bool(re.search(r"Answer:|答案：", question["content"]))
            assert asks == bool(share)


def wrong_answers(row):
    """Copies of a row with one wrong answer each, in the answer and the response alike."""
    for number, answer in enumerate(row["answers"]):
        wrong = copy.deepcopy(row)
        changed = swapped(answer)
        wrong["answers"][number] = changed
        response = wrong["messages"][2 * number + 1]
        response["content"] = response["content"][: len(response["content"]) - len(answer)] + changed
        yield wrong


def swapped(cell):
    """A cell that differs in its last character."""
    return cell[:-1] + ("1" if cell[-1] != "1" else "2") if cell[-1].isdigit() else cell + "x"


def failing(condition):
    """A cell that does not meet a condition."""
    if condition["is"] == "=":
        return swapped(condition["value"])
    if condition["as"] == "date":
        return "1900-01-01" if condition["is"] == ">=" else "2999-12-31"
    return "-999999999" if condition["is"] == ">=" else "999999999"


def decisive(query, answer, evidence, keys):
    """Which (piece of evidence, column, new cell) makes another answer right: None where one cell alone cannot be sure to."""
    give, where = query["give"], [c for c in query.get("where", []) if "table" not in c]
    what, place = give["what"], len(evidence) // 2
    if "join" in query:
        return (len(evidence) - 1, give["columns"][0], None) if what == "cells" else (0, query["join"]["column"], None)
    if what in ("count", "exists"):
        return (place, where[0]["column"], failing(where[0])) if what == "count" or len(evidence) == 1 else None
    if what in ("sum", "mean", "difference"):
        return place, give["column"], "999999983"
    if what == "groups":
        group = query["group"]
        if give["pick"] == "all":
            return place, group["by"], None
        if group["measure"]["what"] == "count":
            return None
        return place, group["measure"]["column"], "-9999999999" if give["pick"] == "largest" else "9999999999"
    if what == "row_number":
        return 0, where[0]["column"], None
    # the answer lists cells: one of those it lists
    listed = [i for i, key in enumerate(keys) if key in answer]
    return listed[-1] if listed else place, give["columns"][-1], None


def rewritten(line, format_, column, cell, titles):
    """A row's text with one cell changed: to `cell`, or in its last character."""
    place = titles.index(column)
    cells = record_cells(line, format_)
    cells[place] = swapped(cells[place]) if cell is None else cell
    if format_ == "markdown":
        return "| " + " | ".join(c.replace("\\", "\\\\").replace("|", "\\|") for c in cells) + " |"
    if format_ in ("csv", "tsv"):
        out = io.StringIO()
        csv.writer(out, delimiter="," if format_ == "csv" else "\t", lineterminator="").writerow(cells)
        return out.getvalue()
    if format_ == "json":
        return line[: len(line) - len(line.lstrip())] + json.dumps(dict(zip(titles, cells, strict=True)))
    if format_ == "html":
        return "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
    return "\n".join(f"{title}: {c}" for title, c in zip(titles, cells, strict=True))


def wrong_cells(row):
    """Copies of a row with one decisive cell of the evidence changed each, with the number of the question that it decides."""
    content = row["messages"][0]["content"]
    for number, text in enumerate(row["queries"]):
        query, spans = json.loads(text), [span for span in row["evidence"] if span["question"] == number]
        if not spans:
            continue
        lines = [content[span["start"] : span["end"]] for span in spans]
        keys = [re.search(r"[A-Z]{2,4}-\d{6}", line)[0] for line in lines]
        found = decisive(query, row["answers"][number], lines, keys)
        if found is None:
            continue
        piece, column, cell = found
        in_second = query["give"].get("table") is not None
        name = query["join"]["table"] if in_second else query["table"]
        titles = table_named(content, name, row["format"]).titles
        span, line = spans[piece], rewritten(lines[piece], row["format"], column, cell, titles)
        wrong = copy.deepcopy(row)
        wrong["messages"][0]["content"] = content[: span["start"]] + line + content[span["end"] :]
        yield number, wrong


def test_a_thousand_of_a_thousand_planted_errors_are_found():
    planted = {"answers": 0, "cells": 0}
    tasks = set()
    for number in range(400):
        if min(planted.values()) >= 500:
            break
        row = row_of(number, target=1900, seed=11, distractors=0.0)
        assert audit(row)
        for wrong in wrong_answers(row):
            planted["answers"] += 1
            with pytest.raises(AnswerError):
                audit(wrong)
        for question, wrong in wrong_cells(row):
            planted["cells"] += 1
            tasks.add(json.loads(row["queries"][question])["task"])
            assert recomputed(wrong)[question] != row["answers"][question], row["queries"][question]
    assert planted["answers"] >= 500
    assert planted["cells"] >= 500
    assert tasks == set(TASKS)


def test_evidence_that_is_elsewhere_short_or_missing_is_found():
    planted = 0
    for number in range(40):
        row = row_of(number)
        for place in range(min(3, len(row["evidence"]))):
            for change in ({"start": 0}, {"end": row["evidence"][place]["end"] - 1}, None):
                wrong = copy.deepcopy(row)
                if change is None:
                    del wrong["evidence"][place]
                else:
                    wrong["evidence"][place] |= change
                planted += 1
                with pytest.raises(AnswerError):
                    audit(wrong)
    assert planted > 200


def test_a_response_that_does_not_end_with_the_answer_is_found():
    row = row_of(3)
    row["messages"][1]["content"] += " or so"
    with pytest.raises(AnswerError, match="does not end with the answer"):
        audit(row)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda q: {**q, "table": "Nobody"}, "0 tables called 'Nobody'"),
        (lambda q: {**q, "give": {"what": "guess"}}, "gives no 'guess'"),
        (lambda q: {**q, "sample": 3}, "no sample"),
        (
            lambda q: {**q, "where": [{"column": "Nothing", "is": "=", "value": "", "as": "text"}]},
            "0 columns are called",
        ),
    ],
)
def test_a_query_outside_the_language_is_refused(change, reason):
    row = row_of(3, unanswerable=0.0)
    row["queries"][0] = json.dumps(change(json.loads(row["queries"][0])))
    with pytest.raises(AnswerError, match=reason):
        audit(row)


@pytest.mark.parametrize(
    ("format_", "part", "damaged", "reason"),
    [
        ("html", "</td></tr>\n", "</tr>\n", "no well-formed HTML"),
        ("html", "</td><td>", "</td><td><b>x</b></td><td>", "<b> stands in <td>"),
        ("html", "</td></tr>\n", "</td></tr>x\n", "the text 'x' stands in no cell"),
        ("html", "<table>", "<!DOCTYPE table><table>", "no HTML table stands where the table should"),
        ("html", "</td></tr>\n", "</td><td>x</td></tr>\n", "is ragged"),
        ("csv", ",", ',"a"b,', "the block is no csv"),
        ("tsv", "\t", "\t\t", "is ragged"),
        ("markdown", " |\n| ", " | x |\n| ", "is ragged"),
        ("json", '", "', '" "', "the block is no JSON"),
        ("key_value", ": ", ":", "no `title: value`"),
    ],
)
def test_a_table_that_is_not_what_its_format_says_is_refused(format_, part, damaged, reason):
    row = row_of(3, formats={format_: 1.0}, tasks={"lookup": 1.0}, locales={"en_US": 1.0})
    before, fence, table = row["messages"][0]["content"].partition("Table: ")
    name, gap, body = table.partition("\n\n")
    row["messages"][0]["content"] = before + fence + name + gap + body.replace(part, damaged, 1)
    with pytest.raises(AnswerError, match=re.escape(reason)):
        audit(row)


def test_a_condition_compares_as_its_query_says():
    """Numbers as numbers and what is to be equal as text: 5.0 is no less than 5, and yet not the same cell."""
    grid = Grid(["Key", "Size"], [["A-1", "5.0"], ["A-2", "12.5"], ["A-3", "5"]])

    def kept(sign, value, as_):
        where = [{"column": "Size", "is": sign, "value": value, "as": as_}]
        return evaluate({"table": "T", "where": where, "give": {"what": "count"}}, {"T": grid}).values

    assert kept(">=", "5", "number") == ["3"]
    assert kept("<=", "5", "number") == ["2"]
    assert kept("=", "5", "number") == kept("=", "5", "text") == ["1"]
    assert kept("in", ["5", "12.5"], "number") == ["2"]
    assert kept(">=", "5", "text") == ["2"]
    with pytest.raises(UnknownQueryError, match="knows no '<'"):
        kept("<", "5", "number")
    with pytest.raises(UnreadableError, match="'A-1' is no number"):
        evaluate({"table": "T", "give": {"what": "sum", "column": "Key"}}, {"T": grid})


def test_the_rows_of_a_joined_table_must_meet_every_condition_to_be_evidence():
    main = Grid(["Key", "Link"], [["A-1", "B-1"], ["A-2", "B-2"], ["A-3", "B-9"]])
    other = Grid(["Link", "Kind", "Size"], [["B-1", "x", "1"], ["B-2", "x", "5"], ["B-3", "y", "7"]])
    where = [
        {"table": "O", "column": "Kind", "is": "=", "value": "x", "as": "text"},
        {"table": "O", "column": "Size", "is": ">=", "value": "3", "as": "number"},
    ]
    join = {"table": "O", "column": "Link", "key": "Link"}
    found = evaluate({"table": "M", "join": join, "where": where, "give": {"what": "count"}}, {"M": main, "O": other})
    assert found.values == ["1"]
    assert found.evidence == [("M", 1), ("O", 1)]
