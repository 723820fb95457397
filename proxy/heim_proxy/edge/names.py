"""What each header name means to the edge.

A client's names are looked up once per spelling: the table is keyed on the raw bytes of a name as
it was received, so the hot path is one dict hit without lower-casing; a miss is judged by its
lower-case and alphanumeric normal forms and remembered, within a bound, because the names come
from the network. In answers only a few names mean anything, and one expression finds those.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from heim_proxy.identity.cookies import is_ours
from heim_proxy.identity.dialects import is_identity_header

__all__ = [
    "REQUEST_NAMES",
    "RESPONSE_FIELDS",
    "NameTable",
    "RequestField",
    "ResponseField",
    "field_value",
    "response_field",
    "sets_our_cookie",
    "without",
]

# Distinct spellings remembered per table; a browser fleet uses a few dozen.
_REMEMBERED: Final = 2048
# Longer names are judged each time: a name may have 32 KiB, and 2048 of those would be 64 MiB.
_REMEMBERED_BYTES: Final = 64
_ORDINARY: Final = re.compile(rb"[a-z0-9-]+")


class RequestField:
    """How a request header is treated. `PASS` must stay 0: the hot path tests for it.

    Plain integers: until Python 3.12 an enum's member costs 70 ns each time it is named.
    """

    PASS: Final = 0
    DROP: Final = 1
    HOST: Final = 2
    CONTENT_LENGTH: Final = 3
    TRANSFER_ENCODING: Final = 4
    CONNECTION: Final = 5
    COOKIE: Final = 6
    UPGRADE: Final = 7
    FORWARDED: Final = 8
    TRACEPARENT: Final = 9
    EXPECT: Final = 10
    AUTHORIZATION: Final = 11


class ResponseField:
    """How a response header is treated; those that are not here pass."""

    DROP: Final = 1
    CONTENT_LENGTH: Final = 2
    TRANSFER_ENCODING: Final = 3
    CONNECTION: Final = 4
    SET_COOKIE: Final = 5
    UPGRADE: Final = 6
    CORS: Final = 7
    CLEAR_SITE_DATA: Final = 8


# RFC 9110, 7.6.1 and the obsolete or unregistered ones that proxies must not pass on.
_HOP_BY_HOP: Final = (
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"proxy-authenticate",
    b"te",
    b"trailer",
)

_REQUEST: Final[Mapping[bytes, int]] = {
    **dict.fromkeys(_HOP_BY_HOP, RequestField.DROP),
    b"host": RequestField.HOST,
    b"content-length": RequestField.CONTENT_LENGTH,
    b"transfer-encoding": RequestField.TRANSFER_ENCODING,
    b"connection": RequestField.CONNECTION,
    b"cookie": RequestField.COOKIE,
    b"upgrade": RequestField.UPGRADE,
    # h2c upgrade settings (RFC 7540, 3.2.1): never forwarded, or the upstream switches protocol.
    b"http2-settings": RequestField.DROP,
    b"traceparent": RequestField.TRACEPARENT,
    b"expect": RequestField.EXPECT,
    # Passes, unless it holds a credential of ours.
    b"authorization": RequestField.AUTHORIZATION,
    # Believed from trusted proxies only, and rebuilt for the upstream.
    b"x-forwarded-for": RequestField.FORWARDED,
    b"x-request-id": RequestField.FORWARDED,
    # Other ways in which a client or a proxy names the address, path, host or method it wants us
    # to believe in. Policy judges the wire; upstreams must not hear another story.
    **dict.fromkeys(
        (
            b"forwarded",
            b"x-real-ip",
            b"cf-connecting-ip",
            b"cf-connecting-ipv6",
            b"true-client-ip",
            b"x-client-ip",
            b"client-ip",
            b"proxy-client-ip",
            b"wl-proxy-client-ip",
            b"x-originating-ip",
            b"x-forwarded",
            b"forwarded-for",
            b"x-forward-for",
            b"x-cluster-client-ip",
            b"fastly-client-ip",
            b"fly-client-ip",
            b"x-envoy-external-address",
            b"x-envoy-original-path",
            b"x-original-url",
            b"x-original-uri",
            b"x-original-method",
            b"x-original-host",
            b"x-rewrite-url",
            b"x-host",
            b"x-http-host-override",
            b"x-http-method",
            b"x-http-method-override",
            b"x-method-override",
            b"front-end-https",
            b"x-url-scheme",
            b"x-scheme",
            # CGI turns it into HTTP_PROXY, which libraries take for their proxy (CVE-2016-5385).
            b"proxy",
        ),
        RequestField.DROP,
    ),
}

_RESPONSE: Final[Mapping[bytes, int]] = {
    **dict.fromkeys(_HOP_BY_HOP, ResponseField.DROP),
    b"content-length": ResponseField.CONTENT_LENGTH,
    b"transfer-encoding": ResponseField.TRANSFER_ENCODING,
    b"connection": ResponseField.CONNECTION,
    b"set-cookie": ResponseField.SET_COOKIE,
    b"upgrade": ResponseField.UPGRADE,
    # Ours is on every answer, and upstreams are told it.
    b"x-request-id": ResponseField.DROP,
    # An upstream must not send browsers to another address for this origin (RFC 7838).
    b"alt-svc": ResponseField.DROP,
    b"clear-site-data": ResponseField.CLEAR_SITE_DATA,
    b"access-control-allow-origin": ResponseField.CORS,
    b"access-control-allow-credentials": ResponseField.CORS,
    b"access-control-expose-headers": ResponseField.CORS,
}


def _spellings(names: Iterable[bytes]) -> bytes:
    """An expression for lower-case names in any case; few are tried beyond their first letter."""
    rest: dict[bytes, list[bytes]] = {}
    for name in sorted(names):
        rest.setdefault(name[:1], []).append(re.escape(name[1:]))
    return b"|".join(
        b"[%b%b](?i:%b)" % (first.upper(), first, b"|".join(ends)) for first, ends in rest.items()
    )


# Splits the lines of an answer's head, each after its CRLF, into runs of lines that pass; between
# each two stands a line that means something, as its name and the rest. llhttp has seen to it that
# a line is "name: value" without CR. Line by line it took twice as long.
RESPONSE_FIELDS: Final = re.compile(rb"\r\n(%b)(:[^\r]*)" % _spellings(_RESPONSE))


def response_field(name: bytes) -> int:
    """How the response header of a name that `RESPONSE_FIELDS` found is treated."""
    return _RESPONSE[name.lower()]


class NameTable(dict[bytes, int]):
    """A client's header name, raw, to field; judges and remembers names it has not seen."""

    def __missing__(self, name: bytes) -> int:
        field = self._judge(name.lower())
        if len(self) < _REMEMBERED and len(name) <= _REMEMBERED_BYTES:
            self[name] = field
        return field

    def _judge(self, name: bytes) -> int:
        known = _REQUEST.get(name)
        if known is not None:
            return known
        if (
            # `X_Auth_Id` reaches CGI-like servers as X-Auth-Id: names are letters, digits, hyphens.
            not _ORDINARY.fullmatch(name)
            or name.startswith(b"x-forwarded-")
            or is_identity_header(name)
        ):
            return RequestField.DROP
        return RequestField.PASS


REQUEST_NAMES: Final = NameTable()


def field_value(lines: list[bytes], name: bytes) -> bytes | None:
    """The value of the first header line of a lower-case name; None when there is none."""
    size = len(name)
    for line in lines:
        if line[size : size + 1] == b":" and line[:size].lower() == name:
            return line[size + 1 :].strip(b" \t")
    return None


def without(lines: list[bytes], names: Collection[bytes]) -> list[bytes]:
    """Header lines but those of some lower-case names."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


def sets_our_cookie(set_cookie: bytes) -> bool:
    """Whether a Set-Cookie value of an upstream names a cookie that only Heim may set."""
    # Browsers send a cookie without a name as its bare value, which can spell out ours.
    return is_ours(set_cookie.lstrip(b"= \t").partition(b"=")[0])
