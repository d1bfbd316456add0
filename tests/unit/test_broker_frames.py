"""STOMP 1.2 frames: every rule of the parser, and that splitting and encoding change nothing."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.lab.broker.errors import ProtocolError
from testyard.lab.broker.frames import Command, Frame, FrameLimits, FrameParser

UNTIMED = settings(deadline=None, database=None)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAMES = TEXT.filter(lambda name: name and name != "content-length")
FRAMES = st.builds(
    Frame,
    st.sampled_from([command for command in Command if command not in {"CONNECT", "STOMP", "CONNECTED"}]),
    st.dictionaries(NAMES, TEXT, max_size=6),
    st.binary(max_size=60),
)


def parse(octets: bytes, limits: FrameLimits | None = None) -> list[Frame]:
    parser = FrameParser(limits)
    parser.feed(octets)
    frames = []
    while (frame := parser.next_frame()) is not None:
        frames.append(frame)
    return frames


def plain(frame: Frame) -> tuple[str, dict[str, str], bytes]:
    headers = {name: value for name, value in frame.headers.items() if name != "content-length"}
    return frame.command, headers, frame.body


@UNTIMED
@given(
    st.lists(FRAMES, max_size=4),
    st.lists(st.integers(0, 400), max_size=12),
    st.sampled_from([b"", b"\n", b"\r\n\n"]),
)
def test_encoded_frames_are_parsed_back_however_they_are_split(frames, cuts, heart_beats):
    stream = heart_beats + b"".join(frame.encode() + heart_beats for frame in frames)
    parser, parsed, start = FrameParser(), [], 0
    for end in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        parser.feed(stream[start:end])
        start = end
        while (frame := parser.next_frame()) is not None:
            parsed.append(frame)
    assert [plain(frame) for frame in parsed] == [plain(frame) for frame in frames]


@UNTIMED
@given(FRAMES)
def test_one_octet_at_a_time_gives_the_frame_with_its_last_octet(frame):
    stream, parser = frame.encode(), FrameParser()
    for octet in stream[:-1]:
        parser.feed(bytes([octet]))
        assert parser.next_frame() is None
    parser.feed(stream[-1:])
    parsed = parser.next_frame()
    assert parsed is not None
    assert plain(parsed) == plain(frame)


@UNTIMED
@given(st.binary(max_size=200))
def test_arbitrary_octets_are_frames_or_a_protocol_error(octets):
    parser, frames = FrameParser(), 0
    parser.feed(octets)
    with suppress(ProtocolError):
        while parser.next_frame() is not None:
            frames += 1
    assert frames <= octets.count(b"\0")


def test_carriage_returns_may_end_lines():
    (frame,) = parse(b"\r\n\nSEND\r\ndestination:/queue/a\r\n\r\nbody\r\n\0\r\n")
    assert plain(frame) == ("SEND", {"destination": "/queue/a"}, b"body\r\n")


def test_escapes_are_those_of_the_specification():
    (frame,) = parse(rb"SEND" + b"\n" + rb"a\cb:\r\n\c\\n" + b"\n\n\0")
    assert frame.headers == {"a:b": "\r\n:\\n"}
    assert Frame("SEND", frame.headers).encode() == rb"SEND" + b"\n" + rb"a\cb:\r\n\c\\n" + b"\n\n\0"


@pytest.mark.parametrize("command", ["CONNECT", "STOMP", "CONNECTED"])
def test_handshake_frames_carry_no_escapes(command):
    (frame,) = parse(command.encode() + b"\npasscode:a\\cb:c\\\n\n\0")
    assert frame.headers == {"passcode": "a\\cb:c\\"}
    assert Frame(command, frame.headers).encode() == command.encode() + b"\npasscode:a\\cb:c\\\n\n\0"


def test_a_value_may_contain_colons_and_blanks_are_kept():
    (frame,) = parse(b"SEND\nurl: http://a:1 \n\n\0")
    assert frame.headers == {"url": " http://a:1 "}


def test_the_first_of_repeated_headers_counts():
    (frame,) = parse(b"SEND\nfoo:World\nfoo:Hello\n\n\0")
    assert frame.headers == {"foo": "World"}


def test_content_length_lets_a_body_contain_nul():
    first, second = parse(b"SEND\ncontent-length:5\n\na\0b\0c\0\nSEND\n\nd\0")
    assert (first.body, second.body) == (b"a\0b\0c", b"d")


def test_without_content_length_the_first_nul_ends_the_body():
    assert [frame.body for frame in parse(b"SEND\n\na\0SEND\n\nb\0")] == [b"a", b"b"]


def test_content_length_counts_octets():
    body = "é€".encode()
    assert b"content-length:5\n" in Frame("MESSAGE", {}, body).encode()
    assert parse(b"SEND\ncontent-length:5\n\n" + body + b"\0")[0].body == body


@pytest.mark.parametrize(
    ("octets", "summary"),
    [
        (b"SEND\na:b\\t\n\n\0", "Invalid escape sequence"),
        (b"SEND\na:b\\\n\n\0", "Invalid escape sequence"),
        (b"SEND\nno colon\n\n\0", "Malformed header"),
        (b"SEND\n:no name\n\n\0", "Malformed header"),
        (b"SEND\na:b\rc\n\n\0", "Malformed frame"),
        (b"SEND\na:\xff\n\n\0", "Malformed frame"),
        (b"SEND\ndestination:/queue/a\0", "Malformed frame"),
        (b"\0", "Malformed frame"),
        (b"SEND\ncontent-length:2\n\nabc", "Malformed frame"),
        (b"SEND\ncontent-length:-1\n\n\0", "Invalid header"),
        (b"SEND\ncontent-length:+1\n\na\0", "Invalid header"),
        (b"SEND\ncontent-length:\n\na\0", "Invalid header"),
        ("SEND\ncontent-length:²\n\na\0".encode(), "Invalid header"),
    ],
)
def test_what_is_not_a_frame_is_refused(octets, summary):
    with pytest.raises(ProtocolError) as refusal:
        parse(octets)
    assert refusal.value.summary == summary


LIMITS = FrameLimits(line=20, headers=2, body=10)


@pytest.mark.parametrize(
    "octets",
    [
        b"SEND\n" + b"a:" + b"x" * 18 + b"\n\n\0",
        b"SEND\na:1\nb:2\n\n\0",
        b"SEND\n\n" + b"x" * 10 + b"\0",
        b"SEND\ncontent-length:10\n\n" + b"x" * 10 + b"\0",
    ],
)
def test_a_frame_at_the_limits_is_accepted(octets):
    assert len(parse(octets, LIMITS)) == 1


@pytest.mark.parametrize(
    ("octets", "summary"),
    [
        (b"SEND\n" + b"a:" + b"x" * 19 + b"\n\n\0", "Line too long"),
        (b"x" * 21, "Line too long"),
        (b"SEND\na:1\nb:2\nc:3\n\n\0", "Too many headers"),
        (b"SEND\na:1\na:2\na:3\n\n\0", "Too many headers"),
        (b"SEND\n\n" + b"x" * 11, "Body too large"),
        (b"SEND\n\n" + b"x" * 11 + b"\0", "Body too large"),
        (b"SEND\ncontent-length:11\n\n", "Body too large"),
        (b"SEND\ncontent-length:9999\n\n", "Body too large"),
    ],
)
def test_a_frame_beyond_the_limits_is_refused_before_it_is_complete(octets, summary):
    with pytest.raises(ProtocolError) as refusal:
        parse(octets, LIMITS)
    assert refusal.value.summary == summary


@pytest.mark.parametrize(
    ("command", "headers"),
    [
        ("MESSAGE", {"a": "\0"}),
        ("MESSAGE", {"\0": "a"}),
        ("MESSAGE", {"": "a"}),
        ("CONNECTED", {"a": "b\nc"}),
        ("CONNECTED", {"a:b": "c"}),
    ],
)
def test_headers_that_no_frame_can_carry_are_not_encoded(command, headers):
    with pytest.raises(ValueError, match="header"):
        Frame(command, headers).encode()
