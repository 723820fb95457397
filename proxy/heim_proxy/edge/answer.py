"""The head of an upstream's answer: parsed by llhttp, gated by us.

An answer that could be read in two ways is `BadAnswer`: the client gets 502 and the upstream
connection is closed, so that no byte of it can become part of somebody else's answer.
"""

from __future__ import annotations

from collections.abc import Collection
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import httptools

from heim_proxy.edge.names import (
    RESPONSE_FIELDS,
    ResponseField,
    response_field,
    sets_our_cookie,
    without,
)

__all__ = ["AnswerHead", "BadAnswer", "date_line", "status_line"]

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}
# What a Connection header says in practice; it names no other header.
_ORDINARY_CONNECTIONS: Final = frozenset((b"", b",keep-alive", b",close", b",upgrade"))
# Every status there can be, by its digits.
_STATUSES: Final = {b"%d" % status: status for status in range(100, 600)}
_ONE: Final = 0x31
_VERSIONS: Final = (b"HTTP/1.1 ", b"HTTP/1.0 ")


class BadAnswer(Exception):  # noqa: N818 - reads as what it is at the raise
    """An answer that is not exactly HTTP/1.1 or that nobody asked for."""


def status_line(status: int) -> bytes:
    """The status line for a code, without CRLF; the reason phrase is ours, it means nothing."""
    line = _STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d " % status


@lru_cache(2)
def date_line(second: int) -> bytes:
    """The Date line, without CRLF, for a time in whole seconds since the epoch."""
    return b"Date: %b" % formatdate(second, usegmt=True).encode("ascii")


class AnswerHead:
    """The answer head of one upstream connection, from one `parse` to the next.

    `length` is the Content-Length, -1 when there is none. `passed` holds the lines that may pass to
    the client as they came, each after its CRLF; an upstream can neither set our cookies nor, where
    we answer CORS ourselves, CORS headers (`drop_cors`).
    """

    __slots__ = (
        "_drop_cors",
        "_protect_cookies",
        "_transfer_coding",
        "chunked",
        "keep_alive",
        "length",
        "passed",
        "status",
        "upgrade",
    )

    def parse(self, data: bytes, *, drop_cors: bool, protect_cookies: bool) -> None:
        """Parse one complete head, up to and including the empty line.

        Raises:
            BadAnswer: When it is not exactly an HTTP/1.0 or HTTP/1.1 response head.
        """
        try:
            httptools.HttpResponseParser(_NOTHING).feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadAnswer(str(error) or "malformed answer") from None
        if not data.startswith(_VERSIONS):
            raise BadAnswer("answer is not HTTP/1.0 or HTTP/1.1")
        status = _STATUSES.get(data[9:12])
        if status is None:
            raise BadAnswer("its status does not exist")
        self.status = status
        self._drop_cors = drop_cors
        self._protect_cookies = protect_cookies
        self._transfer_coding = connection = b""
        self.length = -1
        self.chunked = False
        self.upgrade: bytes | None = None
        parts = RESPONSE_FIELDS.split(data[data.find(b"\r\n") : -4])
        for at in range(1, len(parts), 3):
            name, rest = parts[at], parts[at + 1]
            field = response_field(name)
            if field == ResponseField.CONTENT_LENGTH:
                self.length = int(rest[1:])
            elif field == ResponseField.CONNECTION:
                connection += b"," + rest[1:].strip(b" \t")
            elif field != ResponseField.DROP and self._passes(field, rest[1:].strip(b" \t")):
                parts[at + 2] = b"\r\n%b%b%b" % (name, rest, parts[at + 2])
        self.passed = b"".join(parts[::3])
        if self._transfer_coding:
            if self._transfer_coding.lower() != b"chunked":
                raise BadAnswer("Transfer-Encoding must be exactly chunked")
            self.chunked = True
        if connection == b",keep-alive":
            self.keep_alive = data[7] == _ONE or self.length >= 0
            return
        connection = connection.lower()
        if data[7] == _ONE:
            self.keep_alive = b"close" not in connection
        else:
            self.keep_alive = b"keep-alive" in connection and self.length >= 0
        if connection not in _ORDINARY_CONNECTIONS:
            self._drop_named(connection)

    @property
    def fields(self) -> list[bytes]:
        """The lines that may pass, one by one; for the paths that are not hot."""
        return self.passed.split(b"\r\n")[1:]

    def has(self, line: bytes) -> bool:
        """Whether a line that passes begins like `line`: CRLF, name, colon."""
        passed = self.passed
        # Not `in`: for bytes that raises and catches an error inside, at twice the price.
        return passed.find(line) >= 0 or passed.lower().find(line.lower()) >= 0

    def drop(self, names: Collection[bytes]) -> None:
        """Let the headers of some lower-case names not pass."""
        self.passed = b"".join(b"\r\n" + line for line in without(self.fields, names))

    def _passes(self, field: int, value: bytes) -> bool:
        """Take note of a header that means something; whether the client may see it."""
        if field == ResponseField.TRANSFER_ENCODING:
            # Joined, so that a coding named before the last line is seen, and refused.
            self._transfer_coding += value
            return False
        if field == ResponseField.UPGRADE:
            self.upgrade = value.lower()
            return False
        if field == ResponseField.SET_COOKIE:
            return not (self._protect_cookies and sets_our_cookie(value))
        if field == ResponseField.CLEAR_SITE_DATA:
            # It clears the cookies of the whole domain: ours on every sibling host, too.
            return b"cookies" not in value.lower() and b"*" not in value
        return not self._drop_cors

    def _drop_named(self, connection: bytes) -> None:
        named = {token.strip(b" \t") for token in connection.split(b",")}
        named -= {b"", b"close", b"keep-alive", b"upgrade"}
        if named:
            self.drop(named)


class _Nothing:
    """llhttp calls nobody: it only validates. A missing callback would cost an AttributeError."""

    on_message_begin = on_status = on_header = on_headers_complete = None
    on_body = on_chunk_header = on_chunk_complete = on_message_complete = None


_NOTHING: Final = _Nothing()
