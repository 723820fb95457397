"""A request head: parsed by llhttp, gated by us.

llhttp is a parser, not a gate (decision 13): it accepts RTSP and HTTP/0.9 request lines, coding
lists that end in chunked, and any Upgrade. `RequestHead.parse` adds what an edge must insist on
and leaves the fields that the rest of the edge works with. One object serves a connection for
life, because building a parser per request costs a third of parsing.
"""

from __future__ import annotations

from typing import Final

import httptools

from heim_proxy.edge.cookie import Cookies, split_cookies
from heim_proxy.edge.limits import HEADER_BYTES, HEADER_COUNT, REQUEST_LINE_BYTES
from heim_proxy.edge.names import REQUEST_NAMES, RequestField, field_value, without
from heim_proxy.identity.bearer import is_ours
from heim_proxy.observe.trace import trace_id, valid_traceparent
from heim_proxy.target import BadTarget, Target, canonicalise

__all__ = ["BadRequest", "RequestHead", "head_end"]

_NO_COOKIES: Final = Cookies(None, 0, (), None)
_FORBIDDEN_METHODS: Final = frozenset((b"CONNECT", b"TRACE"))
_BODY_LIMIT: Final = 1 << 62
# Longer ones are looked at each time: ten thousand idle connections would hold on to them.
_REMEMBERED_BYTES: Final = 2048


class BadRequest(Exception):  # noqa: N818 - reads as the HTTP status it becomes
    """A request that is refused before it has a backend; the connection is closed after it."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def head_end(data: bytes) -> int:
    """Length of the request head at the start of `data`, 0 while it is incomplete.

    Raises:
        BadRequest: 414 or 431 when it is longer than we read.
    """
    end = data.find(b"\r\n\r\n") + 4
    size = end if end > 3 else len(data)
    if size > REQUEST_LINE_BYTES:
        line = data.find(b"\r\n")
        if line < 0 or line > REQUEST_LINE_BYTES:
            raise BadRequest(414, f"request line longer than {REQUEST_LINE_BYTES} bytes")
        if size - line > HEADER_BYTES:
            raise BadRequest(431, f"header fields longer than {HEADER_BYTES} bytes")
    return end if end > 3 else 0


class RequestHead:
    """The current request of one connection. Fields are valid from `parse` to `clear`."""

    __slots__ = (
        "_complete",
        "_cookie_line",
        "_cookie_lines",
        "_cookie_split",
        "_cookie_values",
        "_foreign",
        "_parser",
        "_transfer_coding",
        "_uncommon",
        "absolute",
        "chunked",
        "connection",
        "cookies",
        "credentials",
        "expect_continue",
        "fields",
        "forwarded",
        "has_body",
        "host",
        "keep_alive",
        "length",
        "method",
        "target",
        "trace_id",
        "upgrade",
        "version",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser | None = None
        # The last Cookie line of this connection and what it divided into: browsers repeat it.
        self._cookie_line = b""
        self._cookie_values: tuple[bytes, ...] = (b"",)
        self._cookie_split = _NO_COOKIES
        # The last credential that was not ours: programs repeat it, and to look is 1 to 2 µs.
        self._foreign = b""
        self._uncommon = True
        self.clear()

    def clear(self) -> None:
        """Forget the request, so that an idle connection holds no memory for it."""
        self._complete = False
        self._cookie_lines: tuple[bytes, ...] | None = None
        self.method = b""
        self.target: Target = _NO_TARGET
        self.version = b""
        self.host: bytes | None = None
        self.keep_alive = False
        self.connection: bytes | None = None
        self.cookies = _NO_COOKIES
        # The lines that may pass upstream, as they came.
        self.fields: list[bytes] = []
        if self._uncommon:
            self._clear_uncommon()

    def _clear_uncommon(self) -> None:
        """The fields that most requests leave as they are."""
        self._uncommon = False
        self._transfer_coding: bytes | None = None
        # Bytes of body announced by Content-Length; 0 when there is none or it is chunked.
        self.length = 0
        self.chunked = False
        # Whether bytes of a body follow the head.
        self.has_body = False
        self.expect_continue = False
        # Protocol named by Upgrade when Connection allows it, lower-case; None otherwise.
        self.upgrade: bytes | None = None
        # Whether the target was a whole URL (RFC 9112, 3.2.2).
        self.absolute = False
        # Authorization lines that hold a credential of ours. They are kept apart from `fields`, so
        # that they pass only where somebody takes them.
        self.credentials: tuple[bytes, ...] = ()
        # The trace that a valid traceparent names; empty without one.
        self.trace_id = b""
        # Forwarding headers as (lower-case name, value); believed from trusted proxies only.
        self.forwarded: list[tuple[bytes, bytes]] | None = None

    def parse(self, data: bytes) -> None:
        """Parse one complete head (up to and including the empty line).

        llhttp validates; after that every line is exactly "name: value", so dividing the head at
        its line ends is safe, and three times cheaper than a callback per field.

        Raises:
            BadRequest: With the status to answer; the connection cannot be used any further.
        """
        self._validate(data)
        lines = data.split(b"\r\n")
        # RFC 9112, 2.2: an empty line before the request line is to be ignored.
        line = lines[0] or lines[1]
        # llhttp also accepts a request line without a version, RTSP/1.0, ICE/1.0 and runs of
        # spaces; it must read exactly "METHOD target HTTP/1.x".
        method, _, rest = line.partition(b" ")
        url, _, version = rest.partition(b" ")
        # It skips bare line ends before the method, too.
        if version not in _VERSIONS or not method[:1].isalpha():
            raise BadRequest(400, "request line is not HTTP/1.0 or HTTP/1.1")
        self.method, self.version = method, version
        if method in _FORBIDDEN_METHODS:
            raise BadRequest(405, f"{method.decode('ascii')} is not served")
        if len(lines) > HEADER_COUNT + 3:
            raise BadRequest(431, f"more than {HEADER_COUNT} header fields")
        passed = self.fields.append
        for line in lines[1 if lines[0] else 2 : -2]:
            name, _, value = line.partition(b":")
            field = REQUEST_NAMES[name]
            if not field:
                passed(line)
            elif field == RequestField.HOST:
                if self.host is not None:
                    raise BadRequest(400, "more than one Host header")
                self.host = value.strip(b" \t")
            elif field == RequestField.COOKIE:
                self._cookie(value.strip(b" \t"))
            elif field != RequestField.DROP:
                self._special(field, line, value.strip(b" \t"))
        host = self.host
        if not host:
            raise BadRequest(400, "no Host header")
        if not url.startswith(b"/"):
            url = _origin_form(url, host)
            self.absolute = self._uncommon = True
        try:
            self.target = canonicalise(url)
        except BadTarget as error:
            raise BadRequest(400, str(error)) from None
        self.keep_alive = version == b"HTTP/1.1"
        if self._uncommon or version == b"HTTP/1.0":
            self._settle()

    def _validate(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # llhttp stops at any Upgrade; whether it is served is decided later, and the parser
            # is of no use after it.
            self._parser = None
        except httptools.HttpParserError as error:
            raise _refusal(data, error) from None
        if not self._complete:
            # A body follows (the parser now waits for it), or there was only an empty line.
            self._parser = None

    def on_message_complete(self) -> None:
        """llhttp: the request has no body, so the parser is ready for the next head."""
        self._complete = True

    def get(self, name: bytes) -> bytes | None:
        """The first passed-on header of this lower-case name; for the paths that are not hot."""
        return field_value(self.fields, name)

    @property
    def cookie_line(self) -> bytes | None:
        """The whole Cookie value as received, ours included: for the portal only."""
        return b"; ".join(self._cookie_lines) if self._cookie_lines is not None else None

    def _special(self, field: int, line: bytes, value: bytes) -> None:
        if field == RequestField.CONNECTION and value == b"keep-alive":
            # What browsers always say; it only means something to HTTP/1.0.
            self.connection = value if self.connection is None else self.connection + b"," + value
            return
        if field == RequestField.AUTHORIZATION and (value == self._foreign or not is_ours(value)):
            self._foreign = value if len(value) <= _REMEMBERED_BYTES else b""
            self.fields.append(line)
            return
        self._uncommon = True
        if field == RequestField.AUTHORIZATION:
            self.credentials += (line,)
        elif field == RequestField.CONNECTION:
            self.connection = value if self.connection is None else self.connection + b"," + value
        elif field == RequestField.CONTENT_LENGTH:
            # llhttp has refused repetitions, signs, lists and overflows.
            self.length = int(value)
            if self.length > _BODY_LIMIT:
                raise BadRequest(400, "Content-Length out of range")
        elif field == RequestField.TRANSFER_ENCODING:
            if self._transfer_coding is not None or value.lower() != b"chunked":
                raise BadRequest(400, "Transfer-Encoding must be exactly chunked")
            self._transfer_coding = value
        elif field == RequestField.UPGRADE:
            self.upgrade = value.lower() if self.upgrade is None else b""
        elif field == RequestField.EXPECT:
            if self.expect_continue or value.lower() != b"100-continue":
                raise BadRequest(417, "only Expect: 100-continue is known, and once")
            self.expect_continue = True
        elif field == RequestField.TRACEPARENT:
            if valid_traceparent(value):
                self.fields.append(line)
                self.trace_id = self.trace_id or trace_id(value)
        else:
            if self.forwarded is None:
                self.forwarded = []
            self.forwarded.append((line.partition(b":")[0].lower(), value))

    def _cookie(self, value: bytes) -> None:
        if self._cookie_lines is None and value == self._cookie_line:
            self._cookie_lines = self._cookie_values
            self.cookies = self._cookie_split
            return
        if self._cookie_lines is not None:
            # Several Cookie lines mean the same as one joined line (RFC 9113, 8.2.3).
            self._cookie_lines = (*self._cookie_lines, value)
            self.cookies = split_cookies(b"; ".join(self._cookie_lines))
            return
        self._cookie_lines = self._cookie_values = (value,)
        self.cookies = self._cookie_split = split_cookies(value)
        self._cookie_line = value

    def _settle(self) -> None:
        """What uncommon fields mean together."""
        if self._transfer_coding is not None:
            if self.version == b"HTTP/1.0":
                # RFC 9112, 6.1: HTTP/1.0 has no codings; somebody in between is confused.
                raise BadRequest(400, "Transfer-Encoding in an HTTP/1.0 request")
            self.chunked = True
        self.has_body = self.chunked or self.length > 0
        if self.connection is not None:
            self._apply_connection(self.connection)
        elif self.upgrade is not None:
            self.upgrade = None
        if self.version == b"HTTP/1.0" or not self.has_body:
            # RFC 9110, 10.1.1: to be ignored there, and meaningless without a body.
            self.expect_continue = False

    def _apply_connection(self, value: bytes) -> None:
        """Drop what the client's Connection header names (RFC 9110, 7.6.1)."""
        named = {token.strip(b" \t") for token in value.lower().split(b",")}
        if b"upgrade" not in named:
            self.upgrade = None
        # RFC 9112, 9.3: close wins over keep-alive.
        self.keep_alive = b"close" not in named and (self.keep_alive or b"keep-alive" in named)
        named -= _CONNECTION_OPTIONS
        if not named:
            return
        self.fields = without(self.fields, named)
        if b"cookie" in named:
            self.cookies = _NO_COOKIES


_NO_TARGET: Final = Target(b"", b"", b"")
_VERSIONS: Final = frozenset((b"HTTP/1.1", b"HTTP/1.0"))
_CONNECTION_OPTIONS: Final = frozenset((b"", b"close", b"keep-alive", b"upgrade"))


def _origin_form(url: bytes, host: bytes) -> bytes:
    """The origin-form of an absolute-form target whose authority is the Host (RFC 9112, 3.2.2)."""
    scheme, separator, rest = url.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise BadRequest(400, "request target is neither a path nor an absolute URL")
    authority, slash, path = rest.partition(b"/")
    if not slash:
        authority, mark, query = rest.partition(b"?")
        path = mark + query
    if authority.lower() != host.lower():
        raise BadRequest(400, "request target and Host header name different hosts")
    return b"/" + path


def _refusal(data: bytes, error: httptools.HttpParserError) -> BadRequest:
    reason = str(error) or "malformed request"
    if data.startswith((b"CONNECT ", b"TRACE ")):
        return BadRequest(405, "this method is not served")
    return BadRequest(400, reason[0].lower() + reason[1:])
