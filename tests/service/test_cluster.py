"""What keeps a Ray cluster of ours closed, as far as it shows without one; tests/stack has the cluster itself."""

from __future__ import annotations

import http.server
import os
import threading

import pytest

from service.cli import main
from service.engine import cluster
from service.engine.executor import RayExecutor

TOKEN = "0123456789abcdef" * 3


@pytest.mark.parametrize("token", ["", "short", "x" * (cluster.LEAST_TOKEN - 1)])
def test_without_a_sound_token_nothing_starts(token):
    environ = {cluster.TOKEN: token}
    with pytest.raises(cluster.ClusterError, match="LONGWEAVE_RAY_TOKEN, at least 32 characters"):
        cluster.authenticate(environ)
    assert environ == {cluster.TOKEN: token}


def test_the_token_is_ours_whatever_ray_was_told_before():
    environ = {cluster.TOKEN: TOKEN, "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "another"}
    cluster.authenticate(environ)
    assert (environ["RAY_AUTH_MODE"], environ["RAY_AUTH_TOKEN"]) == ("token", TOKEN)


@pytest.mark.parametrize("address", ["", "auto", "local", "ray://host:10001", "host:", "host:0", "host:65536", ":6380"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(cluster.ClusterError, match="must be HOST:PORT"):
        cluster.parse_address(address)
    assert cluster.parse_address("runner:6380") == ("runner", 6380)


def test_a_head_has_no_dashboard_and_no_token_on_its_command_line():
    words = cluster.head_words("127.0.0.1:6380", cpus=3)
    assert {"--head", "--include-dashboard=false", "--port=6380", "--num-cpus=3", "--disable-usage-stats"} <= set(words)
    assert "--address=127.0.0.1:6380" in cluster.worker_words("127.0.0.1:6380", cpus=1)
    assert not any("token" in word for word in words)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_in_which_sockets_have_no_room_is_refused_before_ray_is_started(name, monkeypatch):
    longest = "/" + "t" * (cluster.SOCKET_NAME - len(cluster.SESSION) - 1)
    cluster.check_folder({name: longest})
    cluster.check_folder({"TMPDIR": longest * 9, "RAY_TMPDIR": "/short"})
    cluster.check_folder({})
    with pytest.raises(cluster.ClusterError, match=f"below {name}=.*set RAY_TMPDIR to a folder of at most 39 bytes"):
        cluster.check_folder({name: longest + "t"})
    monkeypatch.setattr(cluster.subprocess, "Popen", pytest.fail)
    with pytest.raises(cluster.ClusterError, match="have no room"):
        cluster.Node(["start"], {name: longest * 2})
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, longest * 2)
    with pytest.raises(cluster.ClusterError, match="have no room"):
        RayExecutor(workers=1).start()


@pytest.mark.parametrize("words", [["worker"], ["runner", "--ray-head"]])
@pytest.mark.parametrize(
    ("address", "token", "said"),
    [
        ("127.0.0.1:6380", "short", "LONGWEAVE_RAY_TOKEN"),
        ("", TOKEN, "must be HOST:PORT"),
    ],
)
def test_the_commands_refuse_in_one_line(words, address, token, said, tmp_path, monkeypatch, capsys):
    for name, value in {
        "LONGWEAVE_DATA_DIR": str(tmp_path),
        "LONGWEAVE_RAY_ADDRESS": address,
        cluster.TOKEN: token,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("service.processes.end_descendants", lambda **_: None)
    assert main(words) == 1
    told = capsys.readouterr().err
    assert said in told.splitlines()[-1]
    assert "Traceback" not in told


def test_what_is_no_ray_is_not_joined(monkeypatch):
    monkeypatch.setitem(cluster.__dict__, "_ASK", "print('something else')")
    with pytest.raises(cluster.ClusterError, match="does not say whether it takes a token: something else"):
        cluster.check_tokens("127.0.0.1:1", os.environ | {"RAY_AUTH_TOKEN": TOKEN})


@pytest.mark.parametrize(
    ("wrong", "ours", "said"),
    [
        (cluster.OPEN, cluster.OPEN, "lets anybody in"),
        (cluster.REFUSED, cluster.REFUSED, "does not take our LONGWEAVE_RAY_TOKEN"),
        (cluster.REFUSED, cluster.OPEN, None),
    ],
)
def test_a_cluster_is_joined_where_it_takes_our_token_and_no_other(wrong, ours, said, monkeypatch):
    script = f"import os; print({ours!r} if os.environ['RAY_AUTH_TOKEN'] == {TOKEN!r} else {wrong!r})"
    monkeypatch.setitem(cluster.__dict__, "_ASK", script)
    environ = os.environ | {"RAY_AUTH_TOKEN": TOKEN}
    if said is None:
        cluster.check_tokens("127.0.0.1:1", environ)
    else:
        with pytest.raises(cluster.ClusterError, match=said):
            cluster.check_tokens("127.0.0.1:1", environ)


def test_waiting_for_a_head_ends_with_it_with_time_or_with_us():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    cluster.wait_for_head(address, stopping=lambda: False)
    server.shutdown()
    server.server_close()
    with pytest.raises(cluster.ClusterError, match="no Ray answers"):
        cluster.wait_for_head(address, stopping=lambda: False, seconds=0.0)
    cluster.wait_for_head(address, stopping=lambda: True, seconds=0.0)
