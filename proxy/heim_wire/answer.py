"""An HTTP/1.1 answer to a request for a tunnel, as it arrives.

Sans-IO. What comes back may be ours, a load balancer's or a captive portal's page, so everything
is bounded, and all that is not the wanted answer becomes a `Refused` that says what happened.
"""

from __future__ import annotations

from heim_wire.problem import Refused, is_problem, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["BODY_BYTES", "FIELD_NAME", "HEAD_BYTES", "Answer", "Head"]

# An answer's head, and a refusal's body: four times what nginx sends, and no more is ever kept.
HEAD_BYTES: Final = 64 * 1024
BODY_BYTES: Final = 64 * 1024
# Characters of a field's name (RFC 9110, 5.6.2).
FIELD_NAME: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
# Interim answers (1xx) that are skipped; an endless row of them is an attack.
_INTERIM: Final = 8


class Head:
    """The parsed head of an answer; field names in lower case, repeated fields joined."""

    __slots__ = ("fields", "status")

    def __init__(self, status: int, fields: dict[str, str]) -> None:
        self.status = status
        self.fields = fields

    def lists(self, name: str, word: str) -> bool:
        """Whether the comma-separated field `name` holds `word`, in any case."""
        return word in (part.strip().lower() for part in self.fields.get(name, "").split(","))


class Answer:
    """Collects an answer: a head, and when it is a refusal as much of its body as is bearable.

    Subclasses say by `wanted` what they hope for.

    Attributes:
        speaker: Who is supposed to answer, for people.
    """

    __slots__ = ("_body", "_bytes", "_head", "_interim", "speaker")

    def __init__(self, speaker: str) -> None:
        self.speaker = speaker
        self._bytes = b""
        self._head: Head | None = None
        self._body = b""
        self._interim = 0

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes of the answer: None while it is incomplete, else what followed its head.

        Raises:
            Refused: It is not the wanted answer.
        """
        if self._head is not None:
            self._body += data
            self._refuse(self._head, over=False)
            return None
        self._bytes += data
        while True:
            end = self._bytes.find(b"\r\n\r\n")
            if end < 0:
                self._look(self._bytes)
                return None
            head = self._parse(self._bytes[:end])
            rest = self._bytes[end + 4 :]
            if not (100 <= head.status < 200 and head.status != 101):
                break
            self._interim += 1
            if self._interim > _INTERIM:
                raise self.strange("sent interim answers without end")
            self._bytes = rest
        self._bytes = b""
        if self.wanted(head):
            return rest
        if not is_problem(head.fields):
            # Nobody will read its body, however long it is.
            raise refusal(self.speaker, head.status, head.fields, b"")
        self._head = head
        self._body = rest
        self._refuse(head, over=False)
        return None

    def eof(self) -> Refused:
        """The peer closed before the answer was complete: what is known."""
        head = self._head
        if head is None:
            what = "closed the connection in the middle of its answer"
            if not self._bytes:
                what = "closed the connection without an answer"
            return self.strange(what)
        try:
            self._refuse(head, over=True)
        except Refused as refused:
            return refused
        raise AssertionError("unreachable")

    def wanted(self, head: Head) -> bool:
        """Whether this is it.

        Raises:
            Refused: It is nearly, and the head says what is wrong.
        """
        raise NotImplementedError

    def _refuse(self, head: Head, *, over: bool) -> None:
        """Raise the refusal once its body is complete, or as large as is bearable."""
        over = over or len(self._body) > BODY_BYTES
        body, complete = _body(head, self._body, over=over)
        if complete or over:
            raise refusal(self.speaker, head.status, head.fields, body)

    def _look(self, start: bytes) -> None:
        """Give up on an incomplete head as soon as it cannot become one."""
        if len(start) > HEAD_BYTES:
            raise self.strange(f"sent a head of more than {HEAD_BYTES // 1024} KiB")
        if not start.startswith(b"HTTP/1."[: len(start)]):
            raise self.strange("does not speak HTTP (wrong port, or no TLS where it is expected?)")

    def _parse(self, raw: bytes) -> Head:
        self._look(raw)
        if len(raw) > HEAD_BYTES:
            raise self.strange(f"sent a head of more than {HEAD_BYTES // 1024} KiB")
        first, *lines = raw.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        status, _, _ = rest.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not _is_status(status):
            raise self.strange("sent a head that is not HTTP")
        fields: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or not FIELD_NAME.issuperset(name):
                raise self.strange("sent a head with a broken field")
            name, value = name.lower(), value.strip(" \t")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return Head(int(status), fields)

    def strange(self, what: str) -> Refused:
        """The refusal of an answer that makes no sense: the speaker's name, and `what` it did."""
        return Refused(0, "", f"{self.speaker} {what}")


def _is_status(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdecimal() and text[0] in "12345"


def _body(head: Head, raw: bytes, *, over: bool) -> tuple[bytes, bool]:
    """What there is of the body in `raw`, and whether that is all of it."""
    if head.status in (101, 204, 304):
        return b"", True
    if head.lists("transfer-encoding", "chunked"):
        # Looked at only when it may be complete: it might come byte by byte.
        return _dechunked(raw) if raw.endswith(b"\r\n\r\n") or over else (b"", False)
    length = head.fields.get("content-length", "")
    if length.isascii() and length.isdecimal() and len(length) < 16:
        return raw[: int(length)], len(raw) >= int(length)
    return raw, False


def _dechunked(raw: bytes) -> tuple[bytes, bool]:
    """RFC 9112, 7.1, as far as it goes; what is broken ends the body."""
    body, position = b"", 0
    while True:
        end = raw.find(b"\r\n", position)
        if end < 0:
            return body, False
        digits = raw[position:end].split(b";", 1)[0].strip()
        if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
            return body, True
        size = int(digits, 16)
        if not size:
            return body, True
        chunk = raw[end + 2 : end + 2 + size]
        body += chunk
        if len(chunk) < size:
            return body, False
        position = end + 2 + size + 2
