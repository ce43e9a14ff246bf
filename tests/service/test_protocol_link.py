"""The backend's link against the add-on's server, over a real loopback socket."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blender_addon import protocol as theirs
from blender_addon.server import JobServer

from toonify3d.service import protocol
from toonify3d.service.link import Link

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server():
    with_server = JobServer()
    yield with_server
    with_server.close()


def pump(server, until, seconds=5.0):
    """Poll like Blender's timer does until ``until(messages)``; all messages."""
    messages, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        messages += server.poll()
        if until(messages):
            return messages
        time.sleep(0.01)
    raise AssertionError(f"not in {seconds} s: {messages}")


def connected(server, **options):
    link = Link(server.port, server.token, **options)
    pump(server, lambda _: server.connected)
    assert link.wait_connected(5.0)
    return link


def raw(server, data):
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(data)
    connection.settimeout(5.0)
    return connection


def status(**fields):
    return {"state": "running", "fraction": 0.5, "problem": None, "warnings": [], **fields}


def test_progress_preview_result_arrive(server, tmp_path):
    link = connected(server, job=tmp_path)
    link.send_status(status(stage="prior", message="Ünï çødé 空間"))
    (tmp_path / "preview").mkdir()
    link.send_preview(tmp_path / "preview" / "current.png")
    link.send_status(status(state="done", fraction=1.0))
    link.send_result(tmp_path / "styles" / "toon" / "result")
    messages = pump(server, lambda m: any(isinstance(x, theirs.Result) for x in m))
    assert messages[-1] == theirs.Result("styles/toon/result")
    assert theirs.Preview("preview/current.png") in messages
    assert [m for m in messages if isinstance(m, theirs.Status)][-1].state == "done"
    link.close()


def test_only_the_newest_status_waits_while_blender_is_busy(server):
    link = connected(server)
    start = time.monotonic()
    for step in range(20000):
        link.send_status(status(fraction=step / 20000, message="m" * 900))
    link.send_problem({"code": "no_face", "message": "No face."})
    assert time.monotonic() - start < 10.0  # 18 MB would have filled every buffer
    time.sleep(0.3)
    messages = pump(server, lambda m: any(isinstance(x, theirs.Problem) for x in m))
    assert messages[-1] == theirs.Problem("no_face", "No face.")
    assert messages[-2].fraction == 19999 / 20000
    assert len(messages) < 5000
    link.close()


def test_cancel_is_acknowledged_within_a_second(server):
    link = connected(server)
    assert not link.cancel_requested
    start = time.monotonic()
    server.send(theirs.Cancel())
    pump(server, lambda m: theirs.Acknowledged("cancel") in m)
    assert time.monotonic() - start < 1.0
    assert link.cancel_requested
    link.close()


def test_cancel_by_file(tmp_path):
    link = Link(None, "", job=tmp_path)
    (tmp_path / protocol.CANCEL_FILE).touch()
    deadline = time.monotonic() + 5.0
    while not link.cancel_requested and time.monotonic() < deadline:
        time.sleep(0.02)
    assert link.cancel_requested
    assert (tmp_path / protocol.ALIVE_FILE).exists()
    link.close()
    assert not (tmp_path / protocol.ALIVE_FILE).exists()


@pytest.mark.parametrize("token", ["", "wrong", "ünï", "0" * 64])
def test_wrong_token_is_refused(server, token):
    link = Link(server.port, token)
    pump(server, lambda _: server.refused == 1)
    assert not server.connected
    assert not link.wait_connected(0.2)
    link.send_status(status())  # goes nowhere, raises nothing
    link.close()


def test_other_protocol_is_refused_with_a_reason(server):
    hello = theirs.Hello(server.token, theirs.PROTOCOL_VERSION + 1)
    connection = raw(server, theirs.encode(hello))
    pump(server, lambda _: server.refused == 1)
    answer = theirs.decode(connection.recv(4096).splitlines()[0])
    assert isinstance(answer, theirs.Refused) and answer.code == "wrong_protocol"
    connection.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        b"{}\n",
        b"\n\n",
    ],
)
def test_garbage_on_the_port_does_no_harm(server, data):
    with raw(server, data) as other:
        link = connected(server)
        link.send_status(status(message="still here"))
        pump(server, lambda m: any(getattr(x, "message", "") == "still here" for x in m))
        other.close()
        link.close()


def test_ten_megabyte_line_is_cut_off(server):
    connection = raw(server, b"")
    connection.setblocking(False)
    sent, deadline = 0, time.monotonic() + 5.0
    with pytest.raises(OSError):
        while sent < 10_000_000 and time.monotonic() < deadline:
            server.poll()
            try:
                sent += connection.send(b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.001)
    assert sent < 10_000_000
    assert server.refused == 1
    connection.close()


def test_oversized_line_of_the_worker_ends_the_connection_only(server):
    connection = raw(server, theirs.encode(theirs.Hello(server.token, theirs.PROTOCOL_VERSION)))
    pump(server, lambda _: server.connected)
    connection.sendall(b"y" * (2 * theirs.MAX_LINE_BYTES))
    pump(server, lambda _: not server.connected)
    link = connected(server)  # the worker may come back
    link.close()
    connection.close()


def test_silent_connections_do_not_keep_the_worker_out(server, monkeypatch):
    monkeypatch.setattr("blender_addon.server._HELLO_TIMEOUT_S", 0.3)
    others = [raw(server, b"") for _ in range(8)]
    link = Link(server.port, server.token)
    pump(server, lambda _: server.connected)
    for other in others:
        other.close()
    link.close()


def test_socket_cut_never_raises_into_training(server):
    link = connected(server)
    server.close()
    deadline = time.monotonic() + 5.0
    while link.connected and time.monotonic() < deadline:
        link.send_status(status())
        time.sleep(0.02)
    assert not link.connected
    assert not link.cancel_requested  # a lost socket is no reason to stop
    link.send_result({"folder": "styles/a/result"})
    link.close()
    link.close()


def test_nobody_listening(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    link = Link(port, "x", job=tmp_path)
    link.send_status(status())
    assert not link.connected and not link.cancel_requested
    link.close()


def test_a_status_that_cannot_be_sent_is_dropped(server, caplog):
    link = connected(server)
    link.send_status({"state": "nonsense"})
    link.send_status(status(fraction=float("nan")))
    assert "not sent" in caplog.text
    link.send_status(status(message="x" * 10**6, warnings=["w" * 10**5] * 100))
    messages = pump(server, lambda m: len(m) == 1)
    assert len(messages[0].message) == 1000 and len(messages[0].warnings) == 20
    link.close()


def test_from_environment(monkeypatch, server, tmp_path):
    monkeypatch.delenv(protocol.ENV_PORT, raising=False)
    assert Link.from_environment(tmp_path) is None
    monkeypatch.setenv(protocol.ENV_PORT, str(server.port))
    monkeypatch.setenv(protocol.ENV_TOKEN, server.token)
    monkeypatch.setenv(protocol.ENV_KEEP, "1")
    link = Link.from_environment(tmp_path)
    assert link is not None
    pump(server, lambda _: server.connected)
    link.close()
    monkeypatch.setenv(protocol.ENV_PORT, "not a port")
    link = Link.from_environment(tmp_path)
    assert link is not None and not link.connected
    link.close()


CHILD = """
import sys, time
from toonify3d.service import link as module
module.PARENT_GONE_GRACE_S = float(sys.argv[1])
link = module.Link.from_environment()
print("ready", flush=True)
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    if link.cancel_requested and sys.argv[2] == "good":
        print("parent gone" if link.parent_gone else "cancelled", flush=True)
        sys.exit(3)
    time.sleep(0.02)
"""


@pytest.mark.parametrize(("grace", "manner"), [("20", "good"), ("0.5", "deaf")])
def test_worker_ends_when_blender_dies(server, grace, manner):
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "backend"))
    environment[protocol.ENV_PORT] = str(server.port)
    environment[protocol.ENV_TOKEN] = server.token
    environment.pop(protocol.ENV_KEEP, None)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, grace, manner],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as child:
        try:
            assert child.stdout.readline().strip() == b"ready"
            child.stdin.close()
            assert child.wait(timeout=10) == 3
            assert child.stdout.read().strip() == (b"parent gone" if manner == "good" else b"")
        finally:
            child.kill()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_worker_is_noticed_at_once(server):
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "backend"))
    environment[protocol.ENV_PORT] = str(server.port)
    environment[protocol.ENV_TOKEN] = server.token
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, "20", "good"], stdin=subprocess.PIPE, env=environment
    ) as child:
        pump(server, lambda _: server.connected, 20.0)
        os.kill(child.pid, signal.SIGKILL)
        pump(server, lambda _: not server.connected)
