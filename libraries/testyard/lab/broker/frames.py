"""STOMP 1.2 frames: an incremental parser and a serialiser, without I/O.

Source: STOMP 1.2, "STOMP Frames", "Value Encoding", "Repeated Header Entries" and "Augmented BNF". Two of its
points are read as RabbitMQ and the common clients read them: a header value may contain a colon that is not
escaped, and a NUL octet ends only a body, so that a client which forgets the blank line gets an ERROR instead of
silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from types import MappingProxyType

from testyard.lab.broker.errors import ProtocolError

NUL = b"\0"
END_OF_LINE = b"\n"

_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
_UNESCAPES = {escaped: plain for plain, escaped in _ESCAPES.items()}
_TO_ESCAPE = re.compile(r"[\\\r\n:]")
_ESCAPED = re.compile(r"\\.?", re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,18}")


class Command(StrEnum):
    """The commands of STOMP 1.2."""

    CONNECT = "CONNECT"
    STOMP = "STOMP"
    SEND = "SEND"
    SUBSCRIBE = "SUBSCRIBE"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    ACK = "ACK"
    NACK = "NACK"
    BEGIN = "BEGIN"
    COMMIT = "COMMIT"
    ABORT = "ABORT"
    DISCONNECT = "DISCONNECT"
    CONNECTED = "CONNECTED"
    MESSAGE = "MESSAGE"
    RECEIPT = "RECEIPT"
    ERROR = "ERROR"


_NOT_ESCAPED = frozenset({Command.CONNECT, Command.STOMP, Command.CONNECTED})
"""Handshake frames carry no escapes; a STOMP frame is handled in the same manner as a CONNECT frame."""


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How large a frame may be (STOMP 1.2, "Size Limits").

    Args:
        line: Octets of the command line or of one header line.
        headers: Header lines of one frame.
        body: Octets of a body.
    """

    line: int = 16 * 1024
    headers: int = 100
    body: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One STOMP frame.

    Args:
        command: The command line.
        headers: The headers, not escaped; of repeated ones the first.
        body: The body's octets.

    Example:
        >>> Frame("RECEIPT", {"receipt-id": "a:b"}).encode()
        b'RECEIPT\\nreceipt-id:a\\\\cb\\n\\n\\x00'
    """

    command: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    body: bytes = b""

    def encode(self) -> bytes:
        """The frame's octets, with a ``content-length`` when there is a body.

        Raises:
            ValueError: A header contains NUL or has no name, or a handshake frame's header needs an escape.
        """
        escaped = self.command not in _NOT_ESCAPED
        lines = [self.command]
        lines.extend(_encode_header(name, value, escaped=escaped) for name, value in self.headers.items())
        if self.body and "content-length" not in self.headers:
            lines.append(f"content-length:{len(self.body)}")
        return b"".join(("\n".join(lines).encode(), b"\n\n", self.body, NUL))


def check_header(name: str, value: str) -> None:
    """Refuse a header that no STOMP frame can carry.

    Raises:
        ValueError: The header contains NUL, or its name is empty.
    """
    if not name or "\0" in name or "\0" in value:
        message = f"a STOMP header needs a name and cannot contain NUL: {name!r}"
        raise ValueError(message)


def _encode_header(name: str, value: str, *, escaped: bool) -> str:
    check_header(name, value)
    if escaped:
        name, value = (_TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], text) for text in (name, value))
    elif ":" in name or any(character in name + value for character in "\r\n"):
        message = f"the headers of a handshake frame cannot be escaped: {name!r}"
        raise ValueError(message)
    return f"{name}:{value}"


class _Expected(Enum):
    COMMAND = auto()
    HEADER = auto()
    BODY = auto()


class FrameParser:
    """Cuts a stream of octets into frames, however it is split.

    Args:
        limits: What is too large.

    Example:
        >>> parser = FrameParser()
        >>> parser.feed(b"ACK\\nid:1\\n\\n\\0")
        >>> parser.next_frame().headers
        {'id': '1'}
    """

    def __init__(self, limits: FrameLimits | None = None) -> None:
        self._limits = limits or FrameLimits()
        self._buffer = bytearray()
        self._scanned = 0
        self._start_frame()

    def _start_frame(self) -> None:
        self._expected = _Expected.COMMAND
        self._command = ""
        self._headers: dict[str, str] = {}
        self._header_lines = 0
        self._content_length: int | None = None

    def feed(self, data: bytes) -> None:
        """Add octets that arrived."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next complete frame; the end-of-lines before it (heart-beats) are skipped.

        Returns:
            A frame, or nothing when more octets are needed.

        Raises:
            ProtocolError: The octets are not a frame. What follows them has no meaning any more.
        """
        while self._expected is not _Expected.BODY:
            line = self._take_line()
            if line is None:
                return None
            if self._expected is _Expected.COMMAND:
                if line:
                    self._command = line
                    self._expected = _Expected.HEADER
            elif line:
                self._add_header(line)
            else:
                self._content_length = self._declared_length()
                self._expected = _Expected.BODY
        body = self._take_body()
        if body is None:
            return None
        frame = Frame(self._command, self._headers, body)
        self._start_frame()
        return frame

    def _take_line(self) -> str | None:
        end = self._buffer.find(END_OF_LINE, self._scanned)
        complete = end >= 0
        line = self._buffer[: end if complete else None]
        if len(line) > self._limits.line:
            detail = f"A command or header line may have {self._limits.line} octets at most."
            raise ProtocolError("Line too long", detail)
        if line.find(NUL, self._scanned) >= 0:
            raise ProtocolError("Malformed frame", "NUL before the blank line that ends the headers.")
        if not complete:
            self._scanned = len(self._buffer)
            return None
        del self._buffer[: end + 1]
        self._scanned = 0
        if line.endswith(b"\r"):
            del line[-1:]
        if b"\r" in line:
            raise ProtocolError("Malformed frame", "A carriage return may only end a line.")
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise ProtocolError("Malformed frame", "Command and headers must be UTF-8.") from None

    def _add_header(self, line: str) -> None:
        self._header_lines += 1
        if self._header_lines > self._limits.headers:
            detail = f"A frame may have {self._limits.headers} headers at most."
            raise ProtocolError("Too many headers", detail)
        name, colon, value = line.partition(":")
        if not name or not colon:
            raise ProtocolError("Malformed header", f"{line!r} is not NAME:VALUE.")
        if self._command not in _NOT_ESCAPED:
            name, value = _unescape(name), _unescape(value)
        self._headers.setdefault(name, value)

    def _declared_length(self) -> int | None:
        declared = self._headers.get("content-length")
        if declared is None:
            return None
        if not _LENGTH.fullmatch(declared):
            raise ProtocolError("Invalid header", f"content-length {declared!r} is not a number of octets.")
        self._check_body_length(int(declared))
        return int(declared)

    def _take_body(self) -> bytes | None:
        end = self._content_length
        if end is None:
            end = self._buffer.find(NUL, self._scanned)
            self._check_body_length(end if end >= 0 else len(self._buffer))
            if end < 0:
                self._scanned = len(self._buffer)
                return None
        elif len(self._buffer) <= end:
            return None
        elif self._buffer[end] != 0:
            raise ProtocolError("Malformed frame", f"No NUL after the {end} octets that content-length announced.")
        body = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return body

    def _check_body_length(self, length: int) -> None:
        if length > self._limits.body:
            raise ProtocolError("Body too large", f"A body may have {self._limits.body} octets at most.")


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        try:
            return _UNESCAPES[match[0]]
        except KeyError:
            detail = f"{match[0]!r} in {text!r} is not an escape sequence of STOMP 1.2."
            raise ProtocolError("Invalid escape sequence", detail) from None

    return _ESCAPED.sub(plain, text) if "\\" in text else text
