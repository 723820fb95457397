"""A login host for the commands of heim-tunnel, in a thread: authorize, token, device, backends.

It answers as the contract says, remembers what it was asked, and can be told to answer anything
else: `host.script("/.heim/cli/token", Canned(500))` is used up first, in order. It is reached as
`auth.localhost:PORT`, which heim-tunnel takes for loopback (RFC 6761), with a certificate of
`tests.fakes.certificates`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.fakes.certificates import CA_PEM, Pair, make_pair

__all__ = ["Asked", "Canned", "LoginHost", "browser_script", "login_host", "short"]


@dataclass
class Canned:
    """An answer as it shall be given."""

    status: int
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request as it came: `form` is the query of a GET, the body's of a POST."""

    method: str
    path: str
    form: dict[str, str]
    bearer: str | None


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that do not like the certificate leave in the middle."""


class LoginHost:
    """What the login host knows and was asked."""

    def __init__(self, directory: Path, name: str, pair: Pair) -> None:
        self.directory = directory
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_text(CA_PEM)
        self.user = "alice@example.com"
        self.domains = ["localhost"]
        self.backends: list[dict[str, str]] = []
        self.asked: list[Asked] = []
        self.approves = True
        # The person: cleared, they take their time.
        self.decided = threading.Event()
        self.decided.set()
        self.access_s = 900
        self.tokens: dict[str, str] = {}
        self.revoked: list[str] = []
        # Cleared, a revocation is not answered.
        self.revokes = threading.Event()
        self.revokes.set()
        self.polls_until_approved = 0
        self._codes: dict[str, tuple[str, str]] = {}
        self._devices: dict[str, int] = {}
        self._scripts: dict[str, list[Canned]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as temporary:
            pair.write(Path(temporary))
            context.load_cert_chain(f"{temporary}/tls.crt", f"{temporary}/tls.key")
        # The handshake belongs to the connection's thread, or a silent client stops everybody.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        self.name = f"{name}:{self.port}"
        self.url = f"https://{self.name}"
        # Whose answers the browser brings: another's, when it is sent on to that.
        self.issuer = self.url

    def script(self, path: str, *answers: Canned) -> None:
        """Give these answers first."""
        self._scripts[path] += answers

    def of(self, path: str) -> list[Asked]:
        """The requests for a path."""
        return [one for one in self.asked if one.path == path]

    def answer(self, asked: Asked) -> Canned:
        with self._lock:
            self.asked.append(asked)
            if self._scripts[asked.path]:
                return self._scripts[asked.path].pop(0)
        answers = {
            ("GET", "/.heim/cli/authorize"): self._authorize,
            ("POST", "/.heim/cli/token"): self._token,
            ("POST", "/.heim/cli/device"): self._device,
            ("POST", "/.heim/cli/revoke"): self._revoke,
            ("GET", "/.heim/cli/backends"): self._backends,
        }
        answer = answers.get((asked.method, asked.path))
        return Canned(404, b"not here") if answer is None else answer(asked)

    def _authorize(self, asked: Asked) -> Canned:
        """As if the person had pressed the button at once."""
        self.decided.wait(10)
        form = asked.form
        found = {"state": form["state"], "iss": self.issuer}
        if self.approves:
            code = secrets.token_urlsafe(16)
            self._codes[code] = (form["code_challenge"], form["redirect_uri"])
            found["code"] = code
        else:
            found["error"] = "access_denied"
        return Canned(303, headers={"Location": f"{form['redirect_uri']}?{urlencode(found)}"})

    def _token(self, asked: Asked) -> Canned:
        grant = asked.form.get("grant_type")
        if grant == "authorization_code":
            challenge, redirect_uri = self._codes.pop(asked.form.get("code", ""), ("", ""))
            verifier = asked.form.get("code_verifier", "")
            digest = hashlib.sha256(verifier.encode()).digest()
            made = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if made != challenge or asked.form.get("redirect_uri") != redirect_uri:
                return Canned(400, {"error": "invalid_grant"})
            return Canned(200, self.grant())
        if grant == "urn:ietf:params:oauth:grant-type:device_code":
            polls = self._devices.get(asked.form.get("device_code", ""))
            if polls is None:
                return Canned(400, {"error": "invalid_grant"})
            self._devices[asked.form["device_code"]] = polls + 1
            if polls < self.polls_until_approved:
                return Canned(400, {"error": "authorization_pending"})
            return Canned(200, self.grant())
        if grant == "refresh_token" and asked.form.get("refresh_token") in self.tokens:
            return Canned(200, self.grant())
        return Canned(400, {"error": "invalid_grant"})

    def grant(self) -> dict[str, Any]:
        """A token answer."""
        access, refresh = secrets.token_urlsafe(16), f"heim_rt_{secrets.token_urlsafe(16)}"
        self.tokens[refresh] = access
        return {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.access_s,
            "refresh_token": refresh,
            "session_expires": int(time.time()) + 7 * 86400,
            "user": self.user,
            "login_url": self.url,
            "domains": self.domains,
        }

    def _device(self, asked: Asked) -> Canned:
        code = secrets.token_urlsafe(16)
        self._devices[code] = 0
        return Canned(
            200,
            {
                "device_code": code,
                "user_code": "BCDF-GHJK",
                "verification_uri": f"{self.url}/.heim/device",
                "expires_in": 600,
                "interval": 1,
            },
        )

    def _revoke(self, asked: Asked) -> Canned:
        self.revoked.append(asked.form.get("token", ""))
        self.tokens.pop(asked.form.get("token", ""), None)
        self.revokes.wait(10)
        return Canned(200, {})

    def _backends(self, asked: Asked) -> Canned:
        if asked.bearer is None or asked.bearer not in self.tokens.values():
            problem = {"title": "Unauthorized", "status": 401, "code": "unauthenticated"}
            return Canned(
                401,
                {**problem, "detail": "no usable token", "request_id": "r1"},
                {"Content-Type": "application/problem+json"},
            )
        return Canned(200, {"user": self.user, "backends": self.backends})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


# What a person's browser does, for names that no resolver knows.
_BROWSER = """\
#!{python}
import os, socket, ssl, sys, urllib.request
real = socket.getaddrinfo
def find(name, *rest, **more):
    return real("127.0.0.1" if name.endswith(".localhost") else name, *rest, **more)
socket.getaddrinfo = find
with open({directory!r} + "/opened", "a") as opened:
    opened.write(sys.argv[1] + "\\n")
print("browsers talk a lot")
context = ssl.create_default_context(cafile={ca_file!r})
page = urllib.request.urlopen(sys.argv[1], context=context, timeout=10).read()
fresh = {directory!r} + "/page.new"
with open(fresh, "wb") as shown:
    shown.write(page)
os.replace(fresh, {directory!r} + "/page")
"""


def browser_script(directory: Path, ca_file: Path) -> Path:
    """A program for $BROWSER: notes the address in `opened`, follows it, keeps the last `page`."""
    script = directory / "browser"
    script.write_text(
        _BROWSER.format(python=sys.executable, directory=str(directory), ca_file=str(ca_file))
    )
    script.chmod(0o755)
    return script


def _handler(host: LoginHost) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length).decode() if length else parts.query
            form = {name: values[0] for name, values in parse_qs(text).items()}
            kind, _, bearer = (self.headers.get("Authorization") or "").partition(" ")
            asked = Asked(
                self.command, parts.path, form, bearer if kind.lower() == "bearer" else None
            )
            answer = host.answer(asked)
            body = answer.body
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
                answer.headers.setdefault("Content-Type", "application/json")
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *words: object) -> None:
            """Nothing: pytest's output is for failures."""

    return Handler


@contextmanager
def login_host(
    directory: Path, name: str = "auth.localhost", pair: Pair | None = None
) -> Iterator[LoginHost]:
    """A login host that answers until the block ends."""
    host = LoginHost(directory, name, pair or make_pair(name))
    thread = threading.Thread(target=host._server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield host
    finally:
        host.close()
        thread.join()


def short(value: object) -> str:
    """A test's id for a canned answer."""
    if isinstance(value, Canned):
        return f"{value.status} {str(value.body)[:40]}"
    return str(value)[:40]
