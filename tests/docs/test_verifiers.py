"""The verifiers that the documentation gives away accept real assertions, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest

from heim_proxy.identity.assertion import IdentityHeaders
from heim_proxy.identity.resident import Session
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.store.base import SessionRow
from tests.docs.pages import page
from tests.fakes.real import require

HOST = "grafana.x.example.com"
DOCUMENTED_LOGIN = "https://auth.x.example.com"

_PAGE = page("docs/howto/identity-headers.md")


class LoginHost:
    """Publishes keys where the login host does, and makes assertions as the proxy does."""

    def __init__(self) -> None:
        self.keys = SigningKeys.parse(SigningKeys.generate_pem())
        published = json.dumps(self.keys.jwks()).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                good = self.path == "/.heim/jwks.json"
                self.send_response(200 if good else 404)
                self.send_header("Content-Length", str(len(published)))
                self.end_headers()
                self.wfile.write(published)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def assertion(self, *, host: str = HOST, keys: SigningKeys | None = None, now: float) -> str:
        """The X-Auth-Token of a request."""
        row = SessionRow(
            sid="s" * 24, issuer="https://idp", subject="alice-1", email="alice@example.com",
            domain="example.com", groups=("sre", "secret"), provider="google", auth_time=now,
            created=now, expires=now + 3600, last_seen=now,
        )  # fmt: skip
        maker = IdentityHeaders(keys or self.keys, self.url, groups={"sre"})
        lines = maker.block(
            Session(row, lifetime=3600), "grafana", host,
            dialects=("heimdallr",), roles=("users",), now=now,
        )  # fmt: skip
        found = re.search(rb"X-Auth-Token: (\S+)", lines)
        assert found is not None
        return found[1].decode()

    def signed(self, **claims: object) -> str:
        """A token of our key that is no assertion: another type, or other claims."""
        now = int(time.time())
        whole: dict[str, Any] = {
            "iss": self.url, "aud": HOST, "sub": "alice-1", "iat": now, "exp": now + 300,
        }  # fmt: skip
        typ = claims.pop("typ", "heim-assertion+jwt")
        header = {"typ": typ, "kid": self.keys.first.kid}
        key = self.keys.first.private
        return jwt.encode(whole | claims, key, algorithm="ES256", headers=header)


@pytest.fixture(scope="module")
def login_host() -> Iterator[LoginHost]:
    host = LoginHost()
    yield host
    host.close()


# Runs a verifier on tokens: the claims where it accepted, None where it refused.
Verify = Callable[[list[str]], list[Mapping[str, Any] | None]]


def _snippet(language: str, login_url: str) -> str:
    (fence,) = [one for one in _PAGE.of(language) if "heim-assertion+jwt" in one.text]
    assert DOCUMENTED_LOGIN in fence.text
    return fence.text.replace(DOCUMENTED_LOGIN, login_url)


def _python(login_url: str, directory: Path) -> Verify:
    scope: dict[str, Any] = {}
    exec(compile(_snippet("python", login_url), "identity-headers.md", "exec"), scope)

    def verify(tokens: list[str]) -> list[Mapping[str, Any] | None]:
        answers: list[Mapping[str, Any] | None] = []
        for token in tokens:
            try:
                answers.append(scope["who"](token, HOST))
            except jwt.PyJWTError:
                answers.append(None)
        return answers

    return verify


def _external(command: list[str], directory: Path, tokens: list[str]) -> list[Any]:
    done = subprocess.run(
        [*command, *tokens], cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _node(login_url: str, directory: Path) -> Verify:
    node = require("node")
    (directory / "verify.js").write_text(
        _snippet("js", login_url)
        + f"""
(async () => {{
  for (const token of process.argv.slice(2)) {{
    try {{ console.log(JSON.stringify(await who(token, "{HOST}"))); }}
    catch (error) {{ console.log("null"); }}
  }}
}})();
"""
    )
    return lambda tokens: _external([node, "verify.js"], directory, tokens)


def _go(login_url: str, directory: Path) -> Verify:
    go = require("go")
    snippet = _snippet("go", login_url).replace("package assertion", "package main")
    (directory / "assertion.go").write_text(snippet)
    (directory / "main.go").write_text(
        f"""package main

import ("encoding/json"; "fmt"; "os"; "strings")

func main() {{
	keys, err := Keys()
	if err != nil {{ panic(err) }}
	for _, token := range os.Args[1:] {{
		claims, err := Who(token, "{HOST}", keys)
		if err != nil {{ fmt.Println("null"); continue }}
		raw, _ := json.Marshal(claims)
		lower := map[string]any{{}}
		json.Unmarshal(raw, &lower)
		out := map[string]any{{}}
		for name, value := range lower {{ out[strings.ToLower(name)] = value }}
		raw, _ = json.Marshal(out)
		fmt.Println(string(raw))
	}}
}}
"""
    )
    (directory / "go.mod").write_text("module assertion\n\ngo 1.18\n")
    return lambda tokens: _external([go, "run", "."], directory, tokens)


_LANGUAGES = [
    pytest.param(_python, id="python"),
    pytest.param(_node, id="node", marks=pytest.mark.real),
    # Compiling the standard library's http takes its time the first time.
    pytest.param(_go, id="go", marks=[pytest.mark.real, pytest.mark.timeout(120)]),
]


@pytest.mark.parametrize("language", _LANGUAGES)
def test_verifier_accepts_assertions_and_nothing_else(
    language: Callable[[str, Path], Verify], login_host: LoginHost, tmp_path: Path
) -> None:
    now = time.time()
    good = login_host.assertion(now=now)
    head, body, signature = good.split(".")
    hostile = {
        "of another host": login_host.assertion(host="wiki.x.example.com", now=now),
        "expired": login_host.assertion(now=now - 3600),
        "from the future": login_host.assertion(now=now + 3600),
        "of an unknown key": login_host.assertion(
            keys=SigningKeys.parse(SigningKeys.generate_pem()), now=now
        ),
        "with another body": f"{head}.{body[:-4]}AAAA.{signature}",
        "with another signature": f"{head}.{body}.{'A' * len(signature)}",
        "of another type": login_host.signed(typ="heim-cli+jwt"),
        "of another issuer": login_host.signed(iss="https://evil.example"),
        "unsigned": jwt.encode({"sub": "x"}, "", algorithm="none"),
        "that is no token": "a.b.c",
    }
    accepted, *refused = language(login_host.url, tmp_path)([good, *hostile.values()])
    assert accepted is not None
    assert accepted["sub"] == "alice-1"
    assert accepted["email"] == "alice@example.com"
    assert accepted["groups"] == ["sre"]
    assert accepted["roles"] == ["users"]
    wrongly = [name for name, claims in zip(hostile, refused, strict=True) if claims is not None]
    assert wrongly == []
