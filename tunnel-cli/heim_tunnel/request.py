"""One HTTPS request to the login host, for logging in and refreshing tokens.

Not on the path of an established `proxy`: only what talks to the login host imports it.
"""

from __future__ import annotations

import json
import time

from heim_runtime.complaints import Complaint
from heim_runtime.link import Link, Lost
from heim_tunnel.complaints import clean
from heim_tunnel.dial import Endpoint, dial
from heim_wire.errors import FAILURES, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_tunnel.dial import Way

__all__ = ["Reply", "form_of", "get", "post"]

ANSWER_S: Final = 15.0
"""From the request to the end of its answer."""

ANSWER_BYTES: Final = 1024 * 1024
"""The longest answer is a list of backends; more is not ours."""

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Reply:
    """An answer: `status`, `fields` (names in lower case), `body`."""

    __slots__ = ("body", "fields", "host", "status")

    def __init__(self, host: str, status: int, fields: dict[str, str], body: bytes) -> None:
        self.host = host
        self.status = status
        self.fields = fields
        self.body = body

    def __repr__(self) -> str:
        return f"<Reply {self.status} from {self.host}>"

    def json(self) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            Complaint: It is something else, as a captive portal's page is.
        """
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            kind = clean(self.fields.get("content-type", "nothing"), 60)
            raise Complaint(
                f"{self.host} is not a Heim login host, or something in between answers for it "
                f"(status {self.status}, {kind})",
                FAILURES[Code.PROTOCOL].exit_status,
            )
        return found


def get(url: str, way: Way, *, bearer: str | None = None) -> Reply:
    """GET an https URL; redirects are not followed.

    Raises:
        Complaint: The host could not be reached or did not answer HTTP within 15 s.
    """
    return _exchange("GET", url, way, bearer, None)


def post(url: str, form: dict[str, str], way: Way, *, bearer: str | None = None) -> Reply:
    """POST a form (x-www-form-urlencoded) to an https URL; redirects are not followed.

    Raises:
        Complaint: The host could not be reached or did not answer HTTP within 15 s.
    """
    return _exchange("POST", url, way, bearer, form_of(form))


def form_of(form: dict[str, str]) -> bytes:
    """A form as its body. Everything but RFC 3986's unreserved characters is percent-encoded."""
    pairs = (f"{_quote(name)}={_quote(value)}" for name, value in form.items())
    return "&".join(pairs).encode()


def _quote(text: str) -> str:
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in text.encode())


def _exchange(method: str, url: str, way: Way, bearer: str | None, body: bytes | None) -> Reply:
    authority, slash, path = url.removeprefix("https://").partition("/")
    endpoint = Endpoint.parse(authority, what=clean(url, 80))
    lines = [
        f"{method} {slash or '/'}{path} HTTP/1.1",
        f"Host: {endpoint}",
        "Accept: application/json",
        "User-Agent: heim-tunnel",
        "Connection: close",
    ]
    if bearer is not None:
        lines.append(f"Authorization: Bearer {bearer}")
    if body is not None:
        lines.append("Content-Type: application/x-www-form-urlencoded")
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines) + "\r\n\r\n"
    link = dial(endpoint, way)
    deadline = time.monotonic() + ANSWER_S
    try:
        link.send(head.encode("latin-1") + (body or b""), deadline)
        return _read(link, endpoint.host, deadline)
    except TimeoutError as e:
        raise Complaint(f"{endpoint.host} does not answer") from e
    except Lost as e:
        raise Complaint(f"the connection to {endpoint.host} was lost: {e}") from e
    except ValueError as e:
        raise Complaint(f"{endpoint.host} does not speak HTTP") from e
    finally:
        link.close()


def _read(link: Link, host: str, deadline: float) -> Reply:
    """The whole answer. Raises ValueError when it is not HTTP or longer than ANSWER_BYTES."""
    data = b""
    head, found, body = data, b"", b""
    while not found:
        chunk = link.receive(deadline)
        data += chunk
        if not chunk or len(data) > ANSWER_BYTES:
            raise ValueError("no end of the head")
        head, found, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise ValueError("not HTTP")
    pairs = (line.partition(":") for line in lines)
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = fields.get("content-length", "")
    # Without a length it ends with the connection; one byte too many is how too long shows.
    want = int(length) if length.isdecimal() else ANSWER_BYTES + 1
    while len(body) < want:
        chunk = link.receive(deadline)
        if not chunk:
            break
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise ValueError("too long")
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = _dechunk(body)
    elif length.isdecimal():
        if len(body) < want:
            raise ValueError("cut short")
        body = body[:want]
    return Reply(host, int(rest[:3]), fields, body)


def _dechunk(data: bytes) -> bytes:
    body = b""
    while True:
        size, found, data = data.partition(b"\r\n")
        digits = size.partition(b";")[0].strip()
        # int() also takes a sign: a chunk of minus two bytes would add the rest again and again.
        if not digits or not _HEX.issuperset(digits):
            raise ValueError("no size of a chunk")
        length = int(digits, 16)
        if not found or len(data) < length:
            raise ValueError("cut short")
        if not length:
            return body
        body += data[:length]
        data = data[length + 2 :]
