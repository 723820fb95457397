"""One request to the login host before there is a lane: JSON there, JSON back.

Certificates are always verified. Plain http is for loopback alone: there, a development proxy or a
sidecar that puts TLS on it.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import urlsplit

from heim_agent.complaints import clean, with_hint
from heim_agent.dialling import OTHER_NAME, TLS_S, Way, open_tcp
from heim_runtime import trust
from heim_runtime.complaints import AUTH, PROTOCOL, TRY_LATER, UNAVAILABLE, Complaint, UsageError
from heim_runtime.link import Link, Lost
from heim_runtime.race import is_loopback_name, literal
from heim_runtime.version import version
from heim_wire.problem import Refused

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

__all__ = ["Host", "Reply", "detour", "post"]

ANSWER_S: Final = 20.0
"""From the request to the end of its answer."""

ANSWER_BYTES: Final = 64 * 1024
"""A certificate, keys and names are 4 KiB; more is not ours."""

_LATER: Final = ("busy", "slow_down")
_CA_ADVICE: Final = "name the file of its authority with --ca-file"


class Host:
    """The login host as it was typed, and how to get there.

    Attributes:
        url: Its origin, `https://auth.x.example.com`.
        name: For people: host, and the port if it is not 443.
        way: Detours and authorities.
        is_plain: Whether it is http on loopback.
    """

    def __init__(
        self, typed: str, *, ca_file: str | None = None, connect_to: str | None = None
    ) -> None:
        """Read `https://host[:port]`, or the host alone.

        Raises:
            UsageError: It is something else, or plain http to another machine.
        """
        text = typed.strip()
        if "://" not in text:
            text = f"https://{text}"
        try:
            parts = urlsplit(text)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            host, port = "", None
        usable = host.isascii() and host.isprintable() and not set(host) & set(" /@?#\\%")
        if not host or not usable or parts.scheme not in ("https", "http"):
            raise UsageError(
                f"{clean(typed, 120)} is no address such as https://auth.x.example.com"
            )
        if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
            raise UsageError(
                f"{clean(typed, 120)}: only https://host[:port] is needed, nothing before or after"
            )
        self.is_plain = parts.scheme == "http"
        if self.is_plain and not _is_loopback(host):
            raise UsageError(
                f"http://{host} would send the join token in the clear; use https://{host}"
            )
        standard = 80 if self.is_plain else 443
        self.way = Way(host, port or standard, ca_file, detour(connect_to))
        shown = f"[{host}]" if ":" in host else host
        self.name = shown if self.way.port == standard else f"{shown}:{self.way.port}"
        self.url = f"{parts.scheme}://{self.name}"

    def is_at(self, url: str) -> bool:
        """Whether an https address that the host told is on the host itself."""
        try:
            parts = urlsplit(url)
            same = (parts.hostname or "") == self.way.host
        except ValueError:
            return False
        plain = url.isascii() and url.isprintable() and not set(url) & set(' "<>\\')
        return plain and parts.scheme == "https" and parts.username is None and same


def detour(text: str | None) -> tuple[str, int] | None:
    """`--connect-to HOST:PORT`. Raises UsageError when it is something else."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--connect-to: {clean(text, 120)} is no HOST:PORT")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    found = literal(host)
    if found is None:
        return is_loopback_name(host)
    family, packed = found
    return packed[0] == 127 if family == socket.AF_INET else packed == b"\0" * 15 + b"\1"


class Reply:
    """An answer: its status, header fields (names in lower case) and JSON object."""

    __slots__ = ("_host", "document", "fields", "status")

    def __init__(
        self, host: str, status: int, fields: Mapping[str, str], document: Mapping[str, object]
    ) -> None:
        self._host = host
        self.status = status
        self.fields = fields
        self.document = document

    def __repr__(self) -> str:
        return f"<Reply {self.status} from {self._host}>"

    def said(self, name: str, limit: int = 400) -> str:
        """A text of the document for people, or ""."""
        value = self.document.get(name)
        return clean(value, limit) if isinstance(value, str) else ""

    def text(self, name: str) -> str:
        """A text of the document. Raises Complaint when there is none."""
        value = self.document.get(name)
        if not isinstance(value, str) or not value:
            raise self.nonsense(f"no {name}")
        return value

    def number(self, name: str) -> float:
        """A number above 0. Raises Complaint when there is none."""
        value = self.document.get(name)
        # An int may have more digits than a float can hold.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
            raise self.nonsense(f"no usable {name}")
        return float(value)

    @property
    def retry_after_s(self) -> float:
        """What Retry-After asks for; 0 when it does not."""
        value = self.fields.get("retry-after", "")
        return float(value) if value.isdecimal() and len(value) < 8 else 0.0

    def refusal(self) -> Complaint:
        """The complaint for an answer that is no success: what the login host says, and its id."""
        code, detail = self.said("code", 64), self.said("detail")
        if self.status in (404, 405):
            # A Heim's, perhaps, but no page of it that speaks with agents.
            return self.nonsense("nothing for agents is at this address")
        if not code or not detail:
            return self.nonsense("its error gives no reason")
        text = with_hint(detail, self.said("hint"))
        request_id = self.said("request_id", 64)
        shown = f"{self._host}: {text}" + (f" (request {request_id})" if request_id else "")
        later = code in _LATER or self.status >= 500
        return Complaint(shown, TRY_LATER if later else AUTH)

    def nonsense(self, what: str) -> Complaint:
        """The complaint for an answer that is not Heim's."""
        return Complaint(
            f"{self._host} answered {self.status}, but not as a Heim login host does ({what}); is "
            "this the login host, and is the proxy new enough to have agents?",
            PROTOCOL,
        )


class _Wire(Protocol):
    def send(self, data: bytes, deadline: float, /) -> None: ...
    def receive(self, deadline: float, /) -> bytes: ...
    def close(self) -> None: ...


def post(
    host: Host,
    path: str,
    document: Mapping[str, object],
    environ: Mapping[str, str] = os.environ,
) -> Reply:
    """POST a JSON object; redirects are not followed.

    Raises:
        Complaint: The host could not be reached, or did not answer HTTP within ANSWER_S.
    """
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\n"
        f"Host: {host.name}\r\n"
        "Content-Type: application/json\r\n"
        "Accept: application/json, application/problem+json\r\n"
        f"User-Agent: heim-agent/{version()}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    wire = _connect(host, environ)
    deadline = time.monotonic() + ANSWER_S
    try:
        wire.send(head.encode("ascii") + body, deadline)
        return _read(host, wire, deadline)
    except TimeoutError as e:
        raise Complaint(f"{host.name} does not answer", UNAVAILABLE) from e
    except http.client.RemoteDisconnected as e:
        raise Complaint(f"{host.name} closed the connection without an answer", UNAVAILABLE) from e
    except (Lost, OSError) as e:
        raise Complaint(f"the connection to {host.name} was lost: {e}", UNAVAILABLE) from e
    except (http.client.HTTPException, ValueError) as e:
        raise Complaint(f"{host.name} does not speak HTTP", PROTOCOL) from e
    finally:
        wire.close()


def _connect(host: Host, environ: Mapping[str, str]) -> _Wire:
    try:
        sock, _ = open_tcp(host.way, environ)
    except Refused as e:
        raise Complaint(with_hint(e.detail, e.hint), UNAVAILABLE) from e
    if host.is_plain:
        return _Plain(sock)
    try:
        context = trust.context(host.way.ca_file, bundle=True)
        link = Link(sock, context, host.way.host)
        link.handshake(time.monotonic() + TLS_S)
    except ssl.SSLError as e:
        sock.close()
        ca_file = host.way.ca_file
        text = trust.explain(e, host.way.host, ca_file, advice=_CA_ADVICE)
        raise Complaint(with_hint(text, OTHER_NAME if trust.other_name(e) else "")) from e
    except (Lost, OSError) as e:
        sock.close()
        why = "it does not answer" if isinstance(e, TimeoutError) else str(e)
        raise Complaint(f"no TLS with {host.name}: {why}") from e
    except BaseException:
        sock.close()
        raise
    return link


class _Plain:
    """A socket without TLS, to this machine."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes, deadline: float) -> None:
        self._sock.settimeout(max(0.01, deadline - time.monotonic()))
        self._sock.sendall(data)

    def receive(self, deadline: float) -> bytes:
        self._sock.settimeout(max(0.01, deadline - time.monotonic()))
        return self._sock.recv(16 * 1024)

    def close(self) -> None:
        self._sock.close()


class _Reader(io.RawIOBase):
    """What arrives until a deadline, as a file; also what `http.client` wants of a socket."""

    def __init__(self, wire: _Wire, deadline: float) -> None:
        self._wire = wire
        self._deadline = deadline
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        if not self._rest:
            self._rest = self._wire.receive(self._deadline)
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


def _read(host: Host, wire: _Wire, deadline: float) -> Reply:
    response = http.client.HTTPResponse(
        cast("socket.socket", _Reader(wire, deadline)), method="POST"
    )
    response.begin()
    body = response.read(ANSWER_BYTES + 1)
    fields = {name.lower(): value for name, value in response.getheaders()}
    document: object = None
    if len(body) <= ANSWER_BYTES:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
    reply = Reply(host.name, response.status, fields, {})
    if 300 <= response.status < 400:
        raise reply.nonsense(f"a redirect to {clean(fields.get('location', 'nowhere'), 120)}")
    if not isinstance(document, dict):
        kind = clean(fields.get("content-type", "nothing"), 60)
        if response.status >= 500:
            raise Complaint(
                f"{host.name} answered {response.status} without saying why; try again in a moment"
            )
        raise reply.nonsense(f"it sent {kind}")
    return Reply(host.name, response.status, fields, document)
