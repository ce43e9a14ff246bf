"""The wire protocol: round trips, refusals, and that both sides hold the same file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toonify3d.service import protocol

ROOT = Path(__file__).resolve().parents[2]

TEXT = st.text(max_size=200)
FRACTION = st.floats(0, 1)
PROBLEM = st.builds(protocol.Problem, TEXT, TEXT)
STATUS = st.builds(
    protocol.Status,
    state=st.sampled_from(protocol.STATES),
    stage=TEXT,
    stage_index=st.integers(0, 99),
    stage_count=st.integers(0, 99),
    fraction=FRACTION,
    step_fraction=FRACTION,
    eta_s=st.none() | st.floats(0, 1e7),
    message=TEXT,
    problem=st.none() | PROBLEM,
    pid=st.integers(0, 2**31),
    updated=st.floats(0, 4e9),
    preview=st.none() | TEXT,
    result=st.none() | TEXT,
    warnings=st.lists(TEXT, max_size=5).map(tuple),
)
MESSAGES = st.one_of(
    STATUS,
    PROBLEM,
    st.builds(protocol.Hello, TEXT, st.integers(0, 9), TEXT, st.integers(0, 9)),
    st.builds(protocol.Welcome),
    st.builds(protocol.Refused, TEXT, TEXT),
    st.builds(protocol.Preview, TEXT),
    st.builds(protocol.Result, TEXT),
    st.builds(protocol.Cancel),
    st.builds(protocol.Acknowledged, TEXT),
)


def test_both_sides_hold_the_same_file():
    theirs = ROOT / "blender_addon" / "protocol.py"
    ours = ROOT / "backend" / "toonify3d" / "service" / "protocol.py"
    assert theirs.read_bytes() == ours.read_bytes()


@given(MESSAGES)
def test_every_message_survives_the_wire(message):
    line = protocol.encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert protocol.decode(line) == message


@given(STATUS)
def test_status_file_holds_the_same_fields(status):
    text = json.dumps(protocol.status_to_document(status), ensure_ascii=False)
    # Lone surrogates cannot be written as UTF-8; job files never hold them.
    assert protocol.status_from_json(text.encode("utf-8", "replace")).state == status.state
    assert protocol.status_from_document(protocol.status_to_document(status)) == status


@given(st.binary(max_size=300))
def test_garbage_is_refused_not_crashed_on(data):
    with pytest.raises(protocol.ProtocolError):
        protocol.decode(b"\x00" + data)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"3",
        b'{"type": "launch"}',
        b'{"type": ["hello"]}',
        b'{"type": "hello"}',
        b'{"type": "hello", "token": 3, "protocol": 1}',
        b'{"type": "hello", "token": "x", "protocol": true}',
        b'{"type": "status", "state": "sleeping"}',
        b'{"type": "status", "state": "running", "fraction": NaN}',
        b'{"type": "status", "state": "running", "fraction": 1e999}',
        b'{"type": "status", "state": "running", "fraction": "1"}',
        b'{"type": "status", "state": "running", "problem": {"code": 1}}',
        b'{"type": "status", "state": "running", "warnings": "abc"}',
        b'{"type": "status", "state": "running", "warnings": [1]}',
        b'{"type": "preview", "path": null}',
        b"[" * 50000,
    ],
)
def test_wrong_messages_are_refused(line):
    with pytest.raises(protocol.ProtocolError):
        protocol.decode(line)


def test_unknown_fields_are_ignored():
    line = b'{"type": "result", "folder": "styles/a/result", "mood": "good"}'
    assert protocol.decode(line) == protocol.Result("styles/a/result")


def test_a_newer_status_file_is_readable():
    data = b'{"state": "running", "eta_s": 3, "elapsed_s": 7.5, "problem": null}'
    status = protocol.status_from_json(data)
    assert status.eta_s == 3.0 and status.message == ""


def test_too_long_messages_are_not_sent():
    with pytest.raises(protocol.ProtocolError):
        protocol.encode(protocol.Problem("x", "y" * protocol.MAX_LINE_BYTES))
    with pytest.raises(protocol.ProtocolError):
        protocol.encode(protocol.Status("running", fraction=float("nan")))


@given(st.lists(MESSAGES, max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_lines_survive_any_cutting(messages, sizes):
    stream = b"".join(protocol.encode(message) for message in messages)
    buffer, lines, at, turn = protocol.LineBuffer(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        lines += buffer.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert [protocol.decode(line) for line in lines] == messages


def test_endless_line_is_cut_off():
    buffer = protocol.LineBuffer()
    with pytest.raises(protocol.ProtocolError):
        for _ in range(10000):
            buffer.feed(b"x" * 1024)
