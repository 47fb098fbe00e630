"""The command line: what it prints, how it exits, and what bad input leaves behind (nothing)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
import yaml

from service.cli import COMMANDS, main
from tests.conftest import conversation, write_lines


def spec_file(tmp_path, **fields):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({"kind": "skipalign", **fields}))
    return path


@pytest.fixture
def good(talks, tmp_path):
    return spec_file(tmp_path, source={"path": str(talks)}, shard_rows=20)


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_build_verify_and_build_again(good, tmp_path, capsys):
    code, out, err = run(capsys, "build", good, "--out", tmp_path / "set")
    assert code == 0
    assert "60 rows" in out
    assert "shard 3/3" in err
    assert not (tmp_path / "set/.longweave").exists()
    assert run(capsys, "verify", tmp_path / "set")[:2] == (
        0,
        f"{tmp_path}/set: whole; 60 rows and {_tokens(tmp_path)} tokens in 3 files checked\n",
    )
    assert run(capsys, "build", good, "--out", tmp_path / "set")[0] == 0, "a finished dataset is found, not made again"


def _tokens(tmp_path):
    return f"{json.loads((tmp_path / 'set/manifest.json').read_text())['counts']['tokens']:,}"


def test_json_output_is_json(good, tmp_path, capsys):
    _, out, err = run(capsys, "build", good, "--out", tmp_path / "set", "--json")
    assert json.loads(out)["counts"]["rows"] == 60
    assert err == ""
    _, out, _ = run(capsys, "verify", tmp_path / "set", "--json")
    assert json.loads(out)["whole"] is True
    _, out, _ = run(capsys, "preview", good, "-n", 2, "--json")
    assert [json.loads(line)["source_ids"] for line in out.splitlines()] == [["talk/0"], ["talk/1"]]
    code, _, err = run(capsys, "verify", tmp_path / "nowhere", "--json")
    assert code == 1
    assert json.loads(err)["error"]["code"] == "invalid_dataset"


def test_preview_is_readable(good, capsys):
    code, out, _ = run(capsys, "preview", good, "-n", 1)
    assert code == 0
    assert "source talk/0" in out
    assert "<|im_start|>user" in out
    assert "trained" in out


def test_damage_is_exit_1_with_the_file(good, tmp_path, capsys):
    run(capsys, "build", good, "--out", tmp_path / "set")
    victim = tmp_path / "set/data/train-00001-of-00003.parquet"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    code, out, err = run(capsys, "verify", tmp_path / "set")
    assert (code, out) == (1, "")
    assert err == "error: data/train-00001-of-00003.parquet is damaged: its sha256 is not the manifest's\n"


BAD_SPECS = {
    "unknown field": ({"colour": "red"}, 2, "/colour: no such field\n"),
    "misspelt field": ({"strategie": "outer"}, 2, "/strategie: no such field; did you mean strategy?\n"),
    "wrong type": ({"seed": "seven"}, 2, "/seed"),
    "p of 1.5": ({"probability": 1.5}, 2, "/probability"),
    "negative length": ({"max_length": -4}, 2, "/max_length"),
    "unknown kind": ({"kind": "skipaline"}, 2, "/kind: there is no kind 'skipaline'"),
    "upload without a service": ({"source": {"upload": "up_1"}}, 2, "/source"),
    "missing source": ({"source": {"path": "/nowhere/at/all.jsonl"}}, 1, "/nowhere/at/all.jsonl does not exist"),
    "unknown tokenizer": ({"tokenizer": "gpt-99"}, 1, "no tokenizer 'gpt-99'"),
    "no template": ({"chat_template": "{% if %}"}, 1, "chat template cannot be parsed"),
}


@pytest.mark.parametrize("what", BAD_SPECS)
@pytest.mark.parametrize("command", ["build", "preview"])
def test_bad_specs(talks, tmp_path, capsys, what, command):
    fields, code, sentence = BAD_SPECS[what]
    spec = spec_file(tmp_path, **{"source": {"path": str(talks)}, **fields})
    words = ["build", spec, "--out", tmp_path / "set"] if command == "build" else ["preview", spec]
    done, out, err = run(capsys, *words)
    assert done == code
    assert out == ""
    assert sentence in err
    errors = [line for line in err.splitlines() if not line.startswith(("shard", "1 shard"))]
    assert len(errors) == 1, errors
    assert "Traceback" not in err
    assert not (tmp_path / "set").exists(), "a failed build leaves nothing"


def test_every_offending_field_is_named(talks, tmp_path, capsys):
    spec = spec_file(tmp_path, source={"path": str(talks)}, probability=2, max_position="far", colour=1)
    code, _, err = run(capsys, "build", spec, "--out", tmp_path / "set")
    assert code == 2
    assert len(err.splitlines()) == 3
    for field in ("/probability", "/max_position", "/colour"):
        assert f"error: {field}: " in err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"kind: [unclosed", "line 1"),
        (b"\xff\xfe", "not UTF-8"),
        (b"- a list", "one object"),
        (b"a: &x [1]\nb: *x", "aliases"),
        (b"kind: skipalign\nsource: {path: x}\nseed: .nan", "/seed: infinity and NaN"),
        (b"kind: needle\nlengths: [4096, .inf]", "/lengths/1: infinity and NaN"),
        (b"kind: skipalign\nseed: 1\nseed: 2", "line 3: the field 'seed' stands there twice"),
        (b"kind: skipalign\nsource: {path: a, path: b}", "line 2: the field 'path' stands there twice"),
        (b'{"kind": "cip", "seed": 1, "seed": 1}', "the field 'seed' stands there twice"),
        (b"kind: skipalign\nseed: " + b"9" * 5000, "neither JSON nor YAML"),
        (
            b"kind: cip\nsource: {path: x}\ndocuments_per_sequence: many",
            "error: /documents_per_sequence: Input should be",
        ),
        (b"", "one object"),
    ],
)
def test_specs_that_cannot_be_read(tmp_path, capsys, text, sentence):
    (tmp_path / "spec.yaml").write_bytes(text)
    code, _, err = run(capsys, "preview", tmp_path / "spec.yaml")
    assert code == 2
    assert sentence in err


BAD_SOURCES = {
    "not JSON": (b'{"messages": oops}\n', "row 1: not JSON"),
    "no messages": (b'{"text": "x"}\n', "row 1: no messages"),
    "invalid UTF-8": (b'{"messages": [{"role": "user", "content": "\xff"}]}\n', "row 1: not JSON"),
    "empty file": (b"", "is empty"),
    "truncated Parquet": (b"PAR1\x00\x00", "damaged or cut short"),
    "no assistant": (b'{"messages": [{"role": "user", "content": "x"}]}\n', "row 1: no assistant message"),
    "only blank lines": (b"\n\n\n", "no row is left"),
}


@pytest.mark.parametrize("what", BAD_SOURCES)
def test_bad_sources(tmp_path, capsys, what):
    data, sentence = BAD_SOURCES[what]
    (tmp_path / "bad.jsonl").write_bytes(data)
    spec = spec_file(tmp_path, source={"path": str(tmp_path / "bad.jsonl")}, strategy="inner")
    code, out, err = run(capsys, "build", spec, "--out", tmp_path / "set")
    assert (code, out) == (1, "")
    assert sentence in err.splitlines()[-1]
    assert not (tmp_path / "set").exists()


def test_a_failed_build_harms_nothing_that_was_there(good, tmp_path, capsys):
    precious = tmp_path / "set"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    code, _, err = run(capsys, "build", good, "--out", precious)
    assert code == 1
    assert "is not empty" in err
    assert [p.name for p in precious.iterdir()] == ["thesis.txt"]
    run(capsys, "build", good, "--out", tmp_path / "first")
    before = {p.name: p.read_bytes() for p in (tmp_path / "first").rglob("*") if p.is_file()}
    other = spec_file(tmp_path, source={"path": str(tmp_path / "talks.jsonl")}, seed=9)
    code, _, err = run(capsys, "build", other, "--out", tmp_path / "first")
    assert code == 1
    assert "another dataset stands" in err
    assert {p.name: p.read_bytes() for p in (tmp_path / "first").rglob("*") if p.is_file()} == before


def test_a_failed_build_takes_no_file_that_no_build_writes(good, tmp_path, capsys):
    """An interrupted build's directory is gone on with; what its user put there since is the user's."""
    out = tmp_path / "set"
    (out / ".longweave").mkdir(parents=True)
    for name in ("data/thesis.txt", "data/train-00000-of-00001.parquet", "charts/me.png", "charts/row_tokens.vl.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("years of work")
    bad = spec_file(tmp_path, source={"path": str(tmp_path / "talks.jsonl")}, columns={"messages": "nowhere"})
    assert run(capsys, "build", bad, "--out", out)[0] == 1
    left = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert left == ["charts/me.png", "data/thesis.txt"]


def test_places_that_cannot_be_written_are_one_line(good, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "build", good, "--out", tmp_path / "file/set")
    assert (code, len(err.splitlines())) == (1, 1)
    assert f"{tmp_path}/file/set cannot be made (Not a directory)" in err

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere")

    monkeypatch.setattr("service.commands.build.take_in_sources", refused)
    assert run(capsys, "build", good, "--out", tmp_path / "set") == (1, "", "error: /somewhere: Permission denied\n")


@pytest.mark.parametrize("command", ["build", "preview"])
def test_pipes_and_devices_are_no_sources(tmp_path, capsys, command):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for place in (tmp_path / "pipe.jsonl", "/dev/zero"):
        spec = spec_file(tmp_path, source={"path": str(place)})
        words = ["--out", tmp_path / "set"] if command == "build" else []
        code, _, err = run(capsys, command, spec, *words)
        assert (code, len(err.splitlines())) == (1, 1)
        assert f"{place} is neither a file nor a folder" in err


@pytest.mark.parametrize(
    "words",
    [
        ["build", "x", "--out", "y", "--workers", "two"],
        ["preview", "x", "-n", "0"],
        ["preview", "x", "-n", "9999"],
        ["jobs", "--limit", "0"],
        ["serve", "--port", "65536"],
        ["ask", "x", "--concurrency", "0"],
    ],
)
def test_numbers_out_of_bounds_are_said_in_the_users_words(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{words[-1]!r} is no " in said


def test_usage(capsys):
    assert run(capsys)[0] == 0
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2
    for name in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert "usage: longweave" in capsys.readouterr().out


LAZY = """
import sys
from service.cli import main
try:
    main([{name!r}, "--help"])
except SystemExit:
    pass
heavy = {{"torch", "transformers", "ray", "fastapi", "sqlalchemy", "uvicorn"}} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["build", "preview", "verify", "submit", "train"])
def test_help_imports_nothing_heavy(name):
    done = subprocess.run([sys.executable, "-c", LAZY.format(name=name)], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_ctrl_c_leaves_what_the_next_build_goes_on_from(tmp_path):
    import signal
    import time

    source = write_lines(tmp_path / "many.jsonl", [conversation(i, turns=6, longest=300) for i in range(1500)])
    spec = spec_file(tmp_path, source={"path": str(source)}, shard_rows=50)
    command = [sys.executable, "-m", "service.cli", "build", str(spec), "--out", str(tmp_path / "set")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("shard 3/"):
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    time.sleep(0)
    assert not (tmp_path / "set/manifest.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "(found)" in done.stderr, "the second build made everything again"
    assert "shard 30/30" in done.stderr
