"""The wire: what goes in comes out, whatever else is on the line; C and Python agree."""

from __future__ import annotations

import contextlib
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdrv.guest import bodies, wire
from kdrv.guest.bodies import Step
from kdrv.guest.wire import Decoder, Kind, Message
from tests.fast.guest_fakes import AGENT

messages = st.builds(
    Message,
    kind=st.sampled_from(list(Kind)).map(int),
    session=st.integers(0, wire.SESSIONS - 1),
    call=st.integers(0, 0xFFFFFFFF),
    body=st.binary(max_size=200)
    | st.integers(0, 3 * wire.CHUNK).map(lambda size: bytes(range(251)) * (size // 251)),
)


def feed_in_pieces(decoder: Decoder, data: bytes, size: int) -> list[Message]:
    found: list[Message] = []
    for at in range(0, len(data), size):
        found += decoder.feed(data[at : at + size])
    return found


@settings(max_examples=40)
@given(st.lists(messages, max_size=4), st.integers(1, 70000))
def test_messages_survive_any_cut_of_the_stream(sent: list[Message], size: int) -> None:
    decoder = Decoder()
    stream = b"".join(map(wire.encode, sent))
    assert feed_in_pieces(decoder, stream, max(size, len(stream) // 500 + 1)) == sent
    assert (decoder.junk, decoder.lost) == (0, 0)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_decoder_takes_any_bytes(data: bytes, size: int) -> None:
    decoder = Decoder()
    feed_in_pieces(decoder, data, size)
    assert decoder.junk <= len(data)


@settings(max_examples=40)
@given(messages, st.binary(max_size=100).filter(lambda junk: b"k" not in junk), messages)
def test_what_is_no_frame_is_skipped_and_counted(
    first: Message, junk: bytes, second: Message
) -> None:
    decoder = Decoder()
    assert decoder.feed(wire.encode(first) + junk + wire.encode(second)) == [first, second]
    assert decoder.junk == len(junk)


@pytest.mark.parametrize("lost", range(4))
def test_a_message_that_lost_a_part_is_dropped_and_the_next_one_is_not(lost: int) -> None:
    stream = wire.encode(Message(Kind.ANSWER, 1, 7, bytes(4 * wire.CHUNK)))
    size = wire.CHUNK + 16
    rest = stream[: lost * size] + stream[(lost + 1) * size :]
    after = Message(Kind.ANSWER, 1, 8, bytes(2 * wire.CHUNK))
    decoder = Decoder()
    assert decoder.feed(rest + wire.encode(after)) == [after]
    assert decoder.lost == 3 - lost


def test_a_short_message_may_come_amid_a_long_one_of_its_session() -> None:
    long, short = Message(Kind.ANSWER, 1, 7, bytes(2 * wire.CHUNK)), Message(Kind.ANSWER, 1, 8)
    size = wire.CHUNK + 16
    stream = wire.encode(long)
    assert Decoder().feed(stream[:size] + wire.encode(short) + stream[size:]) == [short, long]


def test_parts_of_different_sessions_may_be_mixed() -> None:
    one, two = (Message(Kind.ANSWER, n, n, bytes([n]) * 2 * wire.CHUNK) for n in (1, 2))
    size = wire.CHUNK + 16
    pieces = [[wire.encode(m)[:size], wire.encode(m)[size:]] for m in (one, two)]
    mixed = pieces[0][0] + pieces[1][0] + pieces[0][1] + pieces[1][1]
    assert Decoder().feed(mixed) == [one, two]


def test_a_message_too_long_is_no_message() -> None:
    with pytest.raises(ValueError, match="the most is"):
        wire.encode(Message(Kind.CALL, 0, 1, bytes(wire.MESSAGE + 1)))


def test_a_buffer_too_large_for_one_call_is_refused_here() -> None:
    with pytest.raises(ValueError, match="at most"):
        bodies.encode_calls([Step(0, (3, bodies.Fill(wire.DATA + 1), wire.DATA + 1))])


@given(st.binary(max_size=120))
def test_any_body_is_decoded_or_is_a_wire_error(body: bytes) -> None:
    steps = [Step(0, (1, bodies.Fill(8), bodies.InOut(b"ab"))), Step(1, (bodies.Out(4),))]
    for decode in (
        bodies.decode_hello,
        bodies.decode_inspection,
        bodies.decode_run,
        bodies.decode_result,
        lambda data: bodies.decode_outcomes(steps, data),
    ):
        with contextlib.suppress(wire.WireError):
            decode(body)


@given(st.binary(max_size=300))
def test_an_inspection_tells_state_and_cpu_of_any_text(stat: bytes) -> None:
    text = struct.pack("<I", len(stat)) + stat + bytes(12)
    found = bodies.decode_inspection(struct.pack("<qIIII", 0, 5, 6, 0, 1) + text)
    assert found.cpu is None or found.cpu >= 0
    assert isinstance(found.state, str)


def test_an_inspection_of_a_sleeping_process() -> None:
    stat = b"29 (a) b) S " + b"0 " * 35 + b"3 0 0\n"
    body = struct.pack("<qIIII", 0, 29, 6, 1, 1)
    for text in (stat, b"0 0x3\n", b"rd", b"[<0>] rd+0x52/0x80 [kt]\n[<0>] ksys_read\n"):
        body += struct.pack("<I", len(text)) + text
    found = bodies.decode_inspection(body)
    assert (found.pid, found.call, found.step, found.busy) == (29, 6, 1, True)
    assert (found.state, found.cpu, found.wchan) == ("S", 3, "rd")
    assert found.stack == ("[<0>] rd+0x52/0x80 [kt]", "[<0>] ksys_read")


def test_c_and_python_say_the_same() -> None:
    header = AGENT.with_name("wire.h").read_text()
    defined = {
        name: int(value, 0)
        for name, value in re.findall(r"^#define WIRE_(\w+) (\w+)", header, re.MULTILINE)
        if value[0].isdigit()
    }
    for kind in Kind:
        assert defined.pop(kind.name) == kind
    for flags in (wire.Flag, bodies.StepFlag, bodies.ProgramFlag):
        for flag in flags:
            assert defined.pop(str(flag.name)) == flag
    for name in ("VERSION", "MAGIC", "CHUNK", "MESSAGE", "SESSIONS"):
        assert defined.pop(name) == getattr(wire, name)
    assert defined.pop("HEADER") == len(wire.encode(Message(Kind.PING, 0, 0)))
    kinds: list[bodies.Argument] = [
        bodies.In(b""),
        bodies.Out(0),
        bodies.Fill(0),
        bodies.InOut(b""),
        bodies.Result(0),
        0,
    ]
    names = ["IN", "OUT", "FILL", "INOUT", "RESULT", "VALUE"]
    for name, argument in zip(names, kinds, strict=True):
        assert bodies.encode_calls([Step(0, (argument,))])[10] == defined.pop(name)
    assert set(defined) == {"ASK_EVERY"}
