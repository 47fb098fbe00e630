"""Keys: what is kept of them, how they are compared, quotas and idempotency by owner, the command line."""

from __future__ import annotations

import hmac
import json
import re
import socket
from types import SimpleNamespace

import httpx2
import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from service import access
from service.access import Caller, KeyFormError, Scope
from service.cli import main
from service.client import Client, RefusedError
from service.jobs import keys
from service.jobs.database import api_keys, open_database
from service.jobs.keys import KeyStore, keys_exist
from service.jobs.store import JobStore, Request
from service.problems import IdempotencyError, NotFoundError, QueueFullError
from service.serving import listen, reaches_others
from tests.service.support import assert_problem, conversations, open_api, settings_in, spec_for


@pytest.fixture
def engine(url):
    opened = open_database(url)
    yield opened
    opened.dispose()


@pytest.fixture
def store(engine):
    return KeyStore(engine)


def caller(owner, *scopes):
    return Caller(owner, access.implied(scopes or [Scope.WRITE]), owner)


def request(**fields):
    return Request(**{"kind": "skipalign", "name": "n", "spec": {"a": 1}, "metadata": {}, **fields})


# --- keys as text ---------------------------------------------------------------------------------------------------


def test_keys_are_read_as_they_are_written_and_are_all_different():
    made = [access.new_key() for _ in range(1000)]
    assert len({key.id for key in made} | {key.secret for key in made}) == 2000
    assert all(access.read_key(key.text()) == key for key in made)
    assert all(len(key.digest) == 64 for key in made)


@pytest.mark.parametrize("change", ["{}x", " {}", "{}\n", "x{}", "{}\r\nX: y", "é{}", ""])
def test_what_is_no_key_is_not_repeated(change):
    key = access.new_key()
    with pytest.raises(KeyFormError) as caught:
        access.read_key(change.format(key.text()))
    assert key.secret not in str(caught.value)
    assert key.secret not in repr(key)
    assert key.id in repr(key)


@pytest.mark.parametrize(
    ("given", "means"),
    [([], []), (["read"], ["read"]), (["write"], ["read", "write"]), (["admin", "read"], ["read", "write", "admin"])],
)
def test_scopes_imply_those_before_them(given, means):
    assert access.implied(Scope(name) for name in given) == {Scope(name) for name in means}


def test_methods_that_are_not_known_to_read_write():
    assert {
        m
        for m in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "")
        if access.needed(m) is Scope.READ
    } == {
        "GET",
        "HEAD",
    }


# --- keys in the database -------------------------------------------------------------------------------------------


def test_the_database_holds_digests_and_no_key(engine, store, tmp_path):
    made, key = store.create("laptop", [Scope.WRITE])
    store.caller(key)
    with engine.connect() as connection:
        row = connection.execute(select(api_keys)).mappings().one()
    assert row["digest"] == key.digest
    assert (made.owner, made.scopes) == (made.id, {Scope.READ, Scope.WRITE})
    engine.dispose()
    for path in tmp_path.iterdir():
        assert key.secret.encode() not in path.read_bytes(), path
    assert key.secret not in repr(made) + repr(store.list()) + repr(store.caller(key))


def test_secrets_are_compared_in_constant_time_whatever_is_sent(store, monkeypatch):
    compared = []

    def compare(a, b):
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(keys, "hmac", SimpleNamespace(compare_digest=compare))
    made, key = store.create("k", [Scope.READ])
    other = access.new_key()
    wrong = access.KeyText(made.id, other.secret)
    assert store.caller(key) == Caller(made.id, frozenset({Scope.READ}), made.id)
    assert store.caller(wrong) is None
    assert store.caller(other) is None
    store.revoke(made.id)
    assert store.caller(key) is None
    assert [len(part) for pair in compared for part in pair] == [64] * 8
    assert [a for a, _ in compared] == [key.digest, other.digest, other.digest, key.digest]


def test_a_revoked_key_stays_revoked_and_listed(store):
    made, key = store.create("k", [Scope.ADMIN])
    assert store.stands(made.id)
    first = store.revoke(made.id)
    assert first.revoked_at is not None
    assert store.revoke(made.id).revoked_at == first.revoked_at
    assert (store.caller(key), store.stands(made.id), store.any()) == (None, False, True)
    assert [found.revoked_at for found in store.list()] == [first.revoked_at]
    with pytest.raises(NotFoundError):
        store.revoke("0" * 12)


def test_use_is_noted_once_a_minute(engine, store):
    made, key = store.create("k", [Scope.READ])
    assert store.list()[0].last_used_at is None
    store.caller(access.KeyText(made.id, access.new_key().secret))
    assert store.list()[0].last_used_at is None
    store.caller(key)
    first = store.list()[0].last_used_at
    assert first is not None
    store.caller(key)
    assert store.list()[0].last_used_at == first
    with engine.begin() as connection:
        connection.execute(update(api_keys).values(last_used_at=first - 61))
    store.caller(key)
    assert store.list()[0].last_used_at >= first


def test_a_note_that_cannot_be_written_refuses_nobody(store, monkeypatch):
    _, key = store.create("k", [Scope.READ])

    class Busy:
        connect = store._engine.connect

        def begin(self):
            raise OperationalError("UPDATE", {}, Exception("locked"))

    monkeypatch.setattr(store, "_engine", Busy())
    assert store.caller(key) is not None


def test_a_key_may_share_what_another_owns(store):
    first, _ = store.create("first", [Scope.WRITE])
    second, key = store.create("second", [Scope.READ], of=first.id)
    third, _ = store.create("third", [Scope.READ], of=second.id)
    assert (second.owner, third.owner) == (first.id, first.id)
    store.revoke(first.id)
    assert store.caller(key) == Caller(first.id, frozenset({Scope.READ}), second.id)
    with pytest.raises(NotFoundError):
        store.create("fourth", [Scope.READ], of="0" * 12)
    assert len(store.list()) == 3


def test_a_database_that_is_not_there_has_no_keys_and_is_not_made(tmp_path):
    url = f"sqlite:///{tmp_path}/none.db"
    assert not keys_exist(url)
    assert list(tmp_path.iterdir()) == []
    engine = open_database(url)
    assert not keys_exist(url)
    KeyStore(engine).create("k", [Scope.READ])
    engine.dispose()
    assert keys_exist(url)


# --- owners ---------------------------------------------------------------------------------------------------------


def test_each_owner_has_a_queue_of_their_own(engine):
    store = JobStore(engine, queue_limit=5, key_queue_limit=2)
    one, two, three = (store.seen_by(caller(name)) for name in ("one", "two", "three"))
    kept = [one.submit(request(key=f"{n}"))[0].id for n in range(2)]
    with pytest.raises(QueueFullError, match="of this key") as caught:
        one.submit(request())
    assert caught.value.headers["Retry-After"]
    assert one.submit(request(key="1"))[0].id == kept[1]  # a replay adds nothing
    for _ in range(2):
        two.submit(request())
    one.cancel(kept[0])
    one.submit(request())
    three.submit(request())
    with pytest.raises(QueueFullError, match="5 jobs wait"):
        three.submit(request())
    assert len(store.list()) == 6
    assert {job.key_id for job in one.list()} == {"one"}


def test_without_keys_only_the_whole_queue_counts(engine):
    store = JobStore(engine, queue_limit=4, key_queue_limit=1)
    for _ in range(4):
        store.submit(request())
    with pytest.raises(QueueFullError):
        store.submit(request())


def test_idempotency_keys_are_each_owners_own(engine):
    store = JobStore(engine, queue_limit=100)
    one, two = store.seen_by(caller("one")), store.seen_by(caller("two"))
    first, _ = one.submit(request(key="k", body_sha256="a"))
    second, found = two.submit(request(key="k", body_sha256="b"))
    assert (first.id != second.id, found) == (True, False)
    assert one.submit(request(key="k", body_sha256="a")) == (first, True)
    with pytest.raises(IdempotencyError):
        two.submit(request(key="k", body_sha256="a"))


def test_full_queues_are_429_with_a_time_to_wait(tmp_path):
    services, api = open_api(settings_in(tmp_path, MAX_QUEUED_JOBS_PER_KEY="1"))
    with api:
        _, key = services.keys.create("k", [Scope.WRITE])
        api.headers["Authorization"] = f"Bearer {key.text()}"
        source = api.post("/v1/uploads", content=conversations(3)).json()["id"]
        assert api.post("/v1/jobs", json=spec_for(source)).status_code == 202
        response = api.post("/v1/jobs", json=spec_for(source))
        assert_problem(response, 429, "queue_full")
        assert int(response.headers["retry-after"]) > 0
    services.close()


def test_a_stream_ends_when_its_key_is_revoked(tmp_path, monkeypatch):
    services, api = open_api(settings_in(tmp_path))
    with api:
        made, key = services.keys.create("k", [Scope.WRITE])
        header = {"Authorization": f"Bearer {key.text()}"}
        job = services.jobs.seen_by(services.keys.caller(key)).submit(request())[0]
        asked = []

        def stands(key_id):
            asked.append(key_id)
            if len(asked) == 3:
                services.keys.revoke(key_id)
            return KeyStore(services.engine).stands(key_id)

        monkeypatch.setattr(services.keys, "stands", stands)
        answer = api.get(f"/v1/jobs/{job.id}/events", headers=header | {"Accept": "text/event-stream"})
        assert '"state":"queued"' in answer.text.replace(" ", "")
        assert asked == [made.id] * 3
    services.close()


# --- the command line and the client --------------------------------------------------------------------------------


def run(capsys, *words):
    capsys.readouterr()
    code = main([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_keys_are_created_listed_and_revoked(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LONGWEAVE_DATA_DIR", str(tmp_path))
    code, out, err = run(capsys, "keys", "list")
    assert (code, out) == (0, "no keys\n")
    code, out, err = run(capsys, "keys", "create", "my laptop")
    key = access.read_key(out.strip())
    assert (code, key.id in err, key.secret in err) == (0, True, False)
    code, out, _ = run(capsys, "keys", "create", "ops", "--scopes", "admin,read", "--of", key.id, "--json")
    made = json.loads(out)
    assert (made["owner"], made["scopes"]) == (key.id, ["read", "write", "admin"])
    assert access.read_key(made["key"]).id == made["id"]
    code, out, _ = run(capsys, "keys", "--json", "revoke", key.id)
    assert (code, json.loads(out)["revoked_at"] is not None) == (0, True)
    code, out, _ = run(capsys, "keys", "list")
    assert re.search(rf"^{key.id} {key.id} read,write .* my laptop$", out, re.MULTILINE)
    code, listed, _ = run(capsys, "keys", "list", "--json")
    assert [found["name"] for found in json.loads(listed)] == ["my laptop", "ops"]
    for secret in (key.secret, made["key"][16:], key.digest):
        assert secret not in out + listed
    code, _, err = run(capsys, "keys", "revoke", "nobody")
    assert (code, err.count("\n")) == (1, 1)
    assert "no key with the id 'nobody'" in err


@pytest.mark.parametrize(
    "words",
    [
        ["create"],
        ["create", ""],
        ["create", "a\nb"],
        ["create", "a", "--scopes", "root"],
        ["create", "a", "--scopes", ""],
        [],
    ],
)
def test_keys_that_cannot_be_meant(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(["keys", "--data-dir", str(tmp_path), *words])
    assert caught.value.code == 2
    assert not (tmp_path / "longweave.db").exists()


def test_the_client_sends_its_key_and_nothing_else_shows_it():
    key = access.new_key()
    sent = []

    def answer(request):
        sent.append(request.headers.get("authorization"))
        return httpx2.Response(401, json={"code": "key_needed", "detail": "no", "errors": []})

    for given in (key.text(), f" {key.text()}\n", None, ""):
        with Client("http://127.0.0.1:1", key=given, transport=httpx2.MockTransport(answer)) as client:
            with pytest.raises(RefusedError) as caught:
                client.job("job_1")
            assert key.secret not in repr(client) + repr(client._wire.http.headers) + str(caught.value)
    assert sent == [f"Bearer {key.text()}"] * 2 + [None] * 2


@pytest.mark.parametrize("command", [["jobs"], ["watch", "job_1"], ["cancel", "job_1"], ["download", "job_1", "x"]])
def test_commands_take_the_key_from_the_environment(capsys, monkeypatch, command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("LONGWEAVE_KEY", "lw_mine\nX-Evil: 1")
    code, _, err = run(capsys, *command, "--url", url)
    assert (code, "this is no key" in err, "Evil" in err) == (1, True, False)
    seen = []

    def connect(url, **options):
        seen.append(options)
        return Client(url, pause=0.001, **options)

    monkeypatch.setattr(f"service.commands.{command[0]}.Client", connect)
    key = access.new_key().text()
    monkeypatch.setenv("LONGWEAVE_KEY", key)
    code, _, err = run(capsys, *command, "--url", url)
    assert (code, seen, key in err) == (1, [{"key": key}], False)


def test_other_machines_may_reach_a_service_once_it_has_keys(tmp_path):
    settings = settings_in(tmp_path)
    settings.prepare()
    engine = open_database(settings.database_url)
    KeyStore(engine).create("k", [Scope.READ])
    engine.dispose()
    sock = listen("0.0.0.0", 0, keys_exist=lambda: keys_exist(settings.database_url))  # noqa: S104
    try:
        assert reaches_others(sock)
    finally:
        sock.close()
    sock = listen("127.0.0.1", 0, keys_exist=lambda: pytest.fail("nobody has to ask"))
    try:
        assert not reaches_others(sock)
    finally:
        sock.close()
