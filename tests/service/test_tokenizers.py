"""Tokenizers that users send: data that is tried in a bounded process, and from then on a name in its owner's specs."""

from __future__ import annotations

import json

import pytest

from packing.tokenizers import BUILTIN
from service.access import Scope
from service.cli import main
from service.engine import bounded
from service.engine.bounded import BoundedTokenizerError, run_bounded
from service.problems import BusyError
from service.resolve import resolve_tokenizer
from tests.packing.templates import CHATML
from tests.service.support import assert_problem, conversations, make_runner, open_api, settings_in, spec_for, upload

JSON = (BUILTIN / "tokenizer.json").read_bytes()
CONFIG = json.dumps({"eos_token": "<|im_end|>", "chat_template": CHATML}).encode()


LOOPS = b"{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"


def send(api, name="mine", /, *, headers=None, **files):
    given = {"tokenizer.json": JSON, "tokenizer_config.json": CONFIG} | {
        k.replace("__", "."): v for k, v in files.items()
    }
    form = [(file, (file, data)) for file, data in given.items() if data is not None]
    return api.post(f"/v1/tokenizers?name={name}", files=form, headers=headers)


def split_by(pattern):
    """A tokenizer.json whose texts are first split by a regular expression."""
    value = json.loads(JSON)
    value["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    }
    return json.dumps(value).encode()


SLOW = split_by(r"(?:a|aa){1,20}[^\s\S]")
"""Tries long at every letter of a run, and never quite long enough for the engine to give up."""
GIVES_UP = split_by(r"(?:q|qq)+[^\s\S]")
"""Ends in a panic at a run of a letter that no trial text has."""


def test_a_tokenizer_is_sent_seen_used_and_removed(api, services):
    made = send(api)
    assert made.status_code == 201, made.text
    body = made.json()
    assert made.headers["location"] == f"/v1/tokenizers/{body['id']}"
    assert (body["name"], body["origin"], body["vocab_size"], body["chat_template"]) == ("mine", "upload", 32768, True)
    assert [t["name"] for t in api.get("/v1/tokenizers").json()["data"]] == ["builtin", "mine"]
    assert api.get("/v1/tokenizers/mine").json() == api.get(f"/v1/tokenizers/{body['id']}").json() == body
    assert list(services.settings.incoming.iterdir()) == []

    source = upload(api, conversations(20))["id"]
    spec = spec_for(source, tokenizer="mine")
    assert api.post("/v1/previews?count=2", json=spec).json()["rows"][0]["n_tokens"] > 0
    assert api.post("/v1/jobs?validate_only=true", json=spec).json()["valid"]
    job = api.post("/v1/jobs", json=spec)
    assert job.status_code == 202, job.text
    assert job.json()["id"] in assert_problem(api.delete("/v1/tokenizers/mine"), 409, "conflict")["detail"]
    assert make_runner(services).run_once()
    done = api.get(f"/v1/jobs/{job.json()['id']}").json()
    assert done["state"] == "succeeded", done
    assert api.get(f"/v1/datasets/{done['dataset_id']}/manifest").json()["tokenizer"]["digest"] == body["digest"]

    assert services.objects.list("tokenizers") != []
    assert api.delete("/v1/tokenizers/mine").status_code == 204
    assert services.objects.list("tokenizers") == []
    assert_problem(api.get("/v1/tokenizers/mine"), 404, "not_found")
    assert_problem(api.post("/v1/jobs", json=spec), 422, "invalid_tokenizer")


def test_the_same_tokenizer_by_another_name_is_the_same_dataset(api, services):
    source = upload(api, conversations(10))["id"]
    prints = set()
    for name in ("one", "two"):
        assert send(api, name).status_code == 201
        job = api.post("/v1/jobs", json=spec_for(source, tokenizer=name)).json()
        assert make_runner(services).run_once()
        prints.add(api.get(f"/v1/datasets/{services.jobs.get(job['id']).dataset_id}").json()["fingerprint"])
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({"tokenizer__json": b"{"}, "invalid_tokenizer", "cannot be read as JSON"),
        ({"tokenizer__json": b'{"a": 1}'}, "invalid_tokenizer", "holds no `model`"),
        ({"tokenizer__json": b"[1]"}, "invalid_tokenizer", "holds no `model`"),
        ({"tokenizer__json": b'{"model": {"type": "pickle"}}'}, "invalid_tokenizer", ""),
        ({"tokenizer_config__json": b"[]"}, "invalid_tokenizer", "tokenizer_config.json"),
        ({"tokenizer_config__json": b'{"added_tokens_decoder": {"x": "y"}}'}, "invalid_tokenizer", "of another form"),
        ({"chat_template__jinja": b"\xff\xfe"}, "invalid_tokenizer", "chat_template.jinja is not UTF-8 (byte 0)"),
        ({"chat_template__jinja": b"{% for x in %}"}, "invalid_tokenizer", "cannot be parsed"),
        ({"chat_template__jinja": LOOPS}, "invalid_tokenizer", "stopped"),
        (
            {"chat_template__jinja": b"{{ ''.__class__.__mro__[1].__subclasses__() }}"},
            "invalid_tokenizer",
            "renders no",
        ),
        ({"tokenizer__json": None}, "malformed_request", "a tokenizer is a tokenizer.json"),
        ({"tokenizer__py": b"import os"}, "malformed_request", "is none of a tokenizer's files"),
    ],
)
def test_what_is_no_tokenizer_is_refused_and_nothing_is_left(api, services, files, code, words):
    body = assert_problem(send(api, **files), 422, code)
    assert words in body["detail"]
    assert str(services.settings.data_dir) not in json.dumps(body)
    assert services.objects.list("tokenizers") == []
    assert list(services.settings.incoming.iterdir()) == []
    assert [t["name"] for t in api.get("/v1/tokenizers").json()["data"]] == ["builtin"]


@pytest.mark.parametrize("name", ["", "../x", "a b", "tok_1", ".hidden", "x" * 65, "a/b", "a%22b"])
def test_names_that_are_none(api, name):
    response = send(api, name)
    assert response.status_code == 422
    assert response.json()["code"] in ("malformed_request", "invalid_request")


def test_names_are_unique_and_shadow_nothing(tmp_path):
    folder = tmp_path / "tokenizers" / "house"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(JSON)
    services, api = open_api(settings_in(tmp_path / "data", TOKENIZERS=str(tmp_path / "tokenizers")))
    with api:
        for name in ("builtin", "house"):
            assert "of this service" in assert_problem(send(api, name), 409, "conflict")["detail"]
        assert send(api).status_code == 201
        assert "of yours already" in assert_problem(send(api), 409, "conflict")["detail"]
        assert [t["origin"] for t in api.get("/v1/tokenizers").json()["data"]] == ["builtin", "operator", "upload"]
        for name in ("builtin", "house"):
            assert_problem(api.delete(f"/v1/tokenizers/{name}"), 404, "not_found")
    services.close()


def test_a_name_that_the_operator_takes_later_changes_no_waiting_job(tmp_path):
    services, api = open_api(settings_in(tmp_path / "data", TOKENIZERS=str(tmp_path / "tokenizers")))

    def meant(owner=""):
        return resolve_tokenizer(  # as a runner asks when it begins a job
            "mine", owner=owner, settings=services.settings, catalog=services.catalog, objects=services.objects
        )

    told = {
        "digest": "d",
        "sha256": "s",
        "vocab_size": 1,
        "chat_template": True,
        "files": {"tokenizer.json": "s"},
        "bytes": 1,
    }
    entry = services.catalog.tokenizers.add(services.catalog.tokenizers.new_id(), "mine", told)
    folder = tmp_path / "tokenizers" / "mine"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(JSON)
    assert "mine" in services.settings.registered_tokenizers()
    assert (meant().prefix, meant().digest) == (entry.prefix, "d")
    assert meant("another").folder == str(folder)
    with api:
        assert api.get("/v1/tokenizers/mine").json()["id"] == entry.id
        assert api.delete("/v1/tokenizers/mine").status_code == 204
        assert api.get("/v1/tokenizers/mine").json()["origin"] == "operator"
        assert_problem(api.delete("/v1/tokenizers/mine"), 404, "not_found")
    assert meant().folder == str(folder)
    services.close()


def test_a_name_is_its_owners_alone(tmp_path):
    services, api = open_api(settings_in(tmp_path))
    keys = [services.keys.create(name, [Scope.WRITE])[1].text() for name in ("a", "b")]
    one, other = ({"Authorization": f"Bearer {key}"} for key in keys)
    with api:
        made = send(api, headers=one)
        assert made.status_code == 201
        source = api.post("/v1/uploads", content=conversations(3), headers=other).json()["id"]
        spec = spec_for(source, tokenizer="mine")
        assert_problem(api.post("/v1/jobs", json=spec, headers=other), 422, "invalid_tokenizer")
        for path in ("mine", made.json()["id"]):
            assert_problem(api.get(f"/v1/tokenizers/{path}", headers=other), 404, "not_found")
            assert_problem(api.delete(f"/v1/tokenizers/{path}", headers=other), 404, "not_found")
        assert send(api, headers=other, tokenizer_config__json=b"{}").status_code == 201
        job = api.post("/v1/jobs", json=spec | {"chat_template": CHATML, "eos_token": "<|im_end|>"}, headers=other)
        assert job.status_code == 202, job.text
        # The other's job by the same name is no reason to keep this one.
        assert api.delete("/v1/tokenizers/mine", headers=one).status_code == 204
        assert make_runner(services).run_once()
        assert services.jobs.get(job.json()["id"]).state == "succeeded"
    services.close()


def test_a_file_that_is_too_large_is_refused(api, monkeypatch):
    monkeypatch.setitem(__import__("service.tokenizers").tokenizers.LARGEST, "tokenizer.json", 1000)
    assert_problem(send(api), 413, "too_large")


def test_a_regular_expression_without_end_stops_at_the_limit_and_the_api_answers(api, services, monkeypatch):
    monkeypatch.setattr(bounded, "CPU_SECONDS", 6)
    body = assert_problem(send(api, tokenizer__json=SLOW), 422, "tokenizer_limits")
    assert "do not end in time" in body["detail"]
    assert api.get("/healthz").status_code == 200
    assert services.objects.list("tokenizers") == []


def test_an_engine_that_gives_up_is_a_sentence_and_costs_no_runner(api, services):
    assert_problem(send(api, tokenizer__json=split_by(r"(?:a|aa)+[^\s\S]")), 422, "invalid_tokenizer")
    assert send(api, tokenizer__json=GIVES_UP).status_code == 201
    talk = [{"role": "user", "content": "q" * 200}, {"role": "assistant", "content": "yes"}]
    source = upload(api, json.dumps({"messages": talk}).encode() + b"\n")["id"]
    spec = spec_for(source, tokenizer="mine")
    assert "gives up" in assert_problem(api.post("/v1/previews", json=spec), 422, "invalid_tokenizer")["detail"]
    job = api.post("/v1/jobs", json=spec).json()
    assert make_runner(services).run_once()
    ended = services.jobs.get(job["id"])
    assert (ended.state, ended.error["code"]) == ("failed", "invalid_tokenizer")


def test_one_that_is_slow_only_later_is_bounded_in_previews_too(api, services, monkeypatch):
    assert send(api).status_code == 201
    source = upload(api, conversations(3))["id"]
    monkeypatch.setattr(bounded, "MEMORY_BYTES", 64 * 1024 * 1024)  # nothing can be opened in it
    for path in ("/v1/previews", "/v1/jobs", "/v1/jobs?validate_only=true"):
        assert_problem(api.post(path, json=spec_for(source, tokenizer="mine")), 422, "tokenizer_limits")
    assert api.get("/v1/jobs").json()["data"] == []
    assert api.post("/v1/previews", json=spec_for(source)).status_code == 200


def test_the_clock_ends_what_only_sleeps(monkeypatch, tmp_path):
    with pytest.raises(BoundedTokenizerError, match=r"0\.01 seconds"):
        run_bounded("check", {"folder": str(tmp_path), "name": "x"}, wall_seconds=0.01)


def test_only_so_many_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(bounded, "WAIT_SECONDS", 0.01)
    for _ in range(bounded.AT_ONCE):
        assert bounded._places.acquire(blocking=False)
    try:
        with pytest.raises(BusyError):
            run_bounded("check", {"folder": str(tmp_path), "name": "x"})
    finally:
        for _ in range(bounded.AT_ONCE):
            bounded._places.release()


def test_a_tokenizer_damaged_in_the_store_fails_its_job(api, services):
    made = send(api).json()
    source = upload(api, conversations(3))["id"]
    job = api.post("/v1/jobs", json=spec_for(source, tokenizer="mine")).json()
    for path in services.objects.list(f"tokenizers/{made['id']}"):
        services.objects.write(path, b"{}")
    from service.engine import tokenizers

    tokenizers._load_stored.cache_clear()
    assert make_runner(services).run_once()
    error = services.jobs.get(job["id"]).error
    assert error["code"] == "invalid_tokenizer"
    assert "damaged" in error["message"]


def test_the_operators_folder_at_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LONGWEAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("LONGWEAVE_TOKENIZERS", raising=False)
    assert main(["tokenizers", "list", "--operator"]) == 1
    monkeypatch.setenv("LONGWEAVE_TOKENIZERS", str(tmp_path / "t"))
    assert main(["tokenizers", "add", "house", str(BUILTIN), "--operator"]) == 0
    assert main(["tokenizers", "add", "house", str(BUILTIN), "--operator"]) == 1
    assert main(["tokenizers", "add", "../x", str(BUILTIN), "--operator"]) == 1
    assert main(["tokenizers", "add", "empty", str(tmp_path), "--operator"]) == 1
    capsys.readouterr()
    assert main(["tokenizers", "list", "--operator", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "house", "folder": str(tmp_path / "t" / "house")}]
    assert main(["tokenizers", "remove", "house", "--operator"]) == 0
    assert main(["tokenizers", "remove", "house", "--operator"]) == 1
