"""The head of an upstream's answer: parsed by llhttp, gated by us.

An answer that could be read in two ways is `BadAnswer`: the client gets 502 and the upstream
connection is closed, so that no byte of it can become part of somebody else's answer.
"""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import httptools

from heim_proxy.edge.names import RESPONSE_NAMES, ResponseField, sets_our_cookie, without

__all__ = ["AnswerHead", "BadAnswer", "date_line", "status_line"]

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}
# What a Connection header says in practice; it names no other header.
_ORDINARY_CONNECTIONS: Final = frozenset((b"", b",keep-alive", b",close", b",upgrade"))
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

    `length` is the Content-Length, -1 when there is none. `fields` holds what may pass to the
    client, line by line as it came; an upstream can neither set our cookies
    nor, where we answer CORS ourselves, CORS headers (`drop_cors`). `dated` and `named` say whether
    it has Date and Server.
    """

    __slots__ = (
        "_connection",
        "_drop_cors",
        "_protect_cookies",
        "_transfer_coding",
        "chunked",
        "dated",
        "fields",
        "keep_alive",
        "length",
        "named",
        "status",
        "upgrade",
    )

    def __init__(self) -> None:
        self._begin(drop_cors=False, protect_cookies=True)

    def _begin(self, *, drop_cors: bool, protect_cookies: bool) -> None:
        self._drop_cors = drop_cors
        self._protect_cookies = protect_cookies
        self._connection = b""
        self._transfer_coding = b""
        self.fields: list[bytes] = []
        self.length = -1
        self.status = 0
        self.chunked = False
        self.keep_alive = False
        self.upgrade: bytes | None = None
        self.dated = False
        self.named = False

    def parse(self, data: bytes, *, drop_cors: bool, protect_cookies: bool) -> None:
        """Parse one complete head, up to and including the empty line.

        Raises:
            BadAnswer: When it is not exactly an HTTP/1.0 or HTTP/1.1 response head.
        """
        self._begin(drop_cors=drop_cors, protect_cookies=protect_cookies)
        try:
            httptools.HttpResponseParser(_NOTHING).feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadAnswer(str(error) or "malformed answer") from None
        # llhttp has validated: every line is exactly "name: value".
        lines = data.split(b"\r\n")
        if data[:9] not in _VERSIONS:
            raise BadAnswer("answer is not HTTP/1.0 or HTTP/1.1")
        self.status = status = int(data[9:12])
        if not 100 <= status <= 599:
            raise BadAnswer(f"status {status} does not exist")
        passed = self.fields.append
        for line in lines[1:-2]:
            name, _, value = line.partition(b":")
            field = RESPONSE_NAMES[name]
            if not field:
                passed(line)
            elif field == ResponseField.CONTENT_LENGTH:
                self.length = int(value)
            elif field == ResponseField.DATE:
                self.dated = True
                passed(line)
            elif field == ResponseField.SERVER:
                self.named = True
                passed(line)
            elif field != ResponseField.DROP:
                self._special(field, line, value.strip(b" \t"))
        if self._transfer_coding:
            if self._transfer_coding.lower() != b"chunked":
                raise BadAnswer("Transfer-Encoding must be exactly chunked")
            self.chunked = True
        connection = self._connection
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

    def _special(self, field: int, line: bytes, value: bytes) -> None:
        if field == ResponseField.TRANSFER_ENCODING:
            # Joined, so that a coding named before the last line is seen, and refused.
            self._transfer_coding += value
        elif field == ResponseField.CONNECTION:
            self._connection += b"," + value
        elif field == ResponseField.UPGRADE:
            self.upgrade = value.lower()
        elif field == ResponseField.SET_COOKIE:
            if not (self._protect_cookies and sets_our_cookie(value)):
                self.fields.append(line)
        elif field == ResponseField.CLEAR_SITE_DATA:
            # It clears the cookies of the whole domain: ours on every sibling host, too.
            if b"cookies" not in value.lower() and b"*" not in value:
                self.fields.append(line)
        elif not self._drop_cors:
            self.fields.append(line)

    def _drop_named(self, connection: bytes) -> None:
        named = {token.strip(b" \t") for token in connection.split(b",")}
        named -= {b"", b"close", b"keep-alive", b"upgrade"}
        if named:
            self.fields = without(self.fields, named)


class _Nothing:
    """llhttp calls nobody: it only validates. A missing callback would cost an AttributeError."""

    on_message_begin = on_status = on_header = on_headers_complete = None
    on_body = on_chunk_header = on_chunk_complete = on_message_complete = None


_NOTHING: Final = _Nothing()
