from __future__ import annotations

import base64
import json
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from heim_proxy.demo.certificates import issue
from heim_proxy.demo.loopback import listen
from heim_proxy.demo.proof import REFETCH_AFTER_S, AssertionVerifier, UnprovenError, fetch_keys
from heim_proxy.identity.assertion import IdentityHeaders
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.sessions import ALICE, ManualClock, Stage

ISSUER = "https://auth.localhost:8443"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def key_set(kid: str = "k1") -> str:
    public = json.loads(ECAlgorithm.to_jwk(KEY.public_key()))
    return json.dumps({"keys": [{**public, "kid": kid, "alg": "ES256", "use": "sig"}]})


class Publisher:
    """Stands for Heim's key endpoint; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.kid = "k1"

    async def fetch(self) -> jwt.PyJWKSet:
        self.asked += 1
        return jwt.PyJWKSet.from_json(key_set(self.kid))


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def verifier(publisher: Publisher, clock: ManualClock) -> AssertionVerifier:
    return AssertionVerifier(publisher.fetch, issuer=ISSUER, audience="app.localhost", clock=clock)


def assertion(
    key: ec.EllipticCurvePrivateKey = KEY,
    *,
    kid: str = "k1",
    typ: str = "heim-assertion+jwt",
    **changes: object,
) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "app.localhost",
        "sub": "alice",
        "iat": now,
        "exp": now + 300,
        **changes,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(given, key, algorithm="ES256", headers={"kid": kid, "typ": typ})


async def test_assertion_of_heim_is_believed(verifier: AssertionVerifier) -> None:
    assert (await verifier.verify(assertion()))["sub"] == "alice"


async def test_assertion_that_the_proxy_makes_is_believed(clock: ManualClock) -> None:
    stage = await Stage.up(clock=ManualClock(time.time()))
    session = await stage.sign_in()
    keys = SigningKeys.parse(SigningKeys.generate_pem())
    lines = IdentityHeaders(keys, ISSUER, groups={"sre"}).block(
        session,
        "app",
        "app.localhost",
        dialects=("heimdallr",),
        roles=("admin",),
        now=stage.now,
    )
    token = lines.decode().partition("X-Auth-Token: ")[2].partition("\r\n")[0]

    async def published() -> jwt.PyJWKSet:
        return jwt.PyJWKSet.from_dict(keys.jwks())

    verifier = AssertionVerifier(published, issuer=ISSUER, audience="app.localhost", clock=clock)
    claims = await verifier.verify(token)
    assert (claims["email"], claims["roles"], claims["groups"]) == (ALICE.email, ["admin"], ["sre"])


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("a.b.c", id="garbage"),
        pytest.param("x" * 20_000, id="huge"),
        pytest.param(f"{base64.b64encode(b'[' * 9000).decode()}.e30.AA", id="deeply nested"),
        pytest.param(assertion(OTHER_KEY), id="another key"),
        pytest.param(assertion(kid="unknown"), id="unpublished key id"),
        pytest.param(assertion(typ="JWT"), id="another kind of token"),
        pytest.param(assertion(aud="other.localhost"), id="another application"),
        pytest.param(assertion(iss="https://evil.example"), id="another issuer"),
        pytest.param(assertion(exp=int(time.time()) - 60), id="expired"),
        pytest.param(assertion(exp=None), id="never expires"),
        pytest.param(assertion(aud=None), id="for anybody"),
        pytest.param(assertion(sub=None), id="about nobody"),
        pytest.param(
            jwt.encode(
                {"sub": "alice"}, "k" * 32, headers={"kid": "k1", "typ": "heim-assertion+jwt"}
            ),
            id="symmetric signature",
        ),
    ],
)
async def test_assertion_is_not_believed_when(verifier: AssertionVerifier, token: str) -> None:
    with pytest.raises(UnprovenError):
        await verifier.verify(token)


async def test_keys_are_fetched_once(verifier: AssertionVerifier, publisher: Publisher) -> None:
    for _ in range(3):
        await verifier.verify(assertion())
    assert publisher.asked == 1


async def test_new_key_is_learned(
    verifier: AssertionVerifier, publisher: Publisher, clock: ManualClock
) -> None:
    await verifier.verify(assertion())
    publisher.kid = "k2"
    clock.time += REFETCH_AFTER_S
    assert (await verifier.verify(assertion(kid="k2")))["sub"] == "alice"


async def test_made_up_key_ids_do_not_make_us_fetch_each_time(
    verifier: AssertionVerifier, publisher: Publisher
) -> None:
    for number in range(5):
        with pytest.raises(UnprovenError, match="does not publish"):
            await verifier.verify(assertion(kid=str(number)))
    assert publisher.asked == 1


class KeyHost:
    """A TLS server on loopback that answers one path with whatever a test wants."""

    def __init__(self, directory: Path) -> None:
        self.answer = web.Response(text=key_set())
        self.certificates = issue(("auth.localhost",), now=datetime.now(UTC))
        (directory / "crt").write_bytes(self.certificates.server_pem)
        (directory / "key").write_bytes(self.certificates.server_key_pem)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(directory / "crt", directory / "key")
        self.sock = listen()
        self.url = f"https://auth.localhost:{self.sock.getsockname()[1]}/jwks.json"

    async def respond(self, _request: web.BaseRequest) -> web.StreamResponse:
        return self.answer

    async def fetch(self, ca_pem: bytes | None = None) -> jwt.PyJWKSet:
        runner = web.ServerRunner(web.Server(self.respond), shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, self.sock, ssl_context=self.context).start()
        try:
            return await fetch_keys(self.url, (ca_pem or self.certificates.ca_pem).decode())()
        finally:
            await runner.cleanup()


@pytest.fixture
def key_host(tmp_path: Path) -> KeyHost:
    return KeyHost(tmp_path)


async def test_keys_come_from_a_localhost_name_over_tls(key_host: KeyHost) -> None:
    assert [key.key_id for key in (await key_host.fetch()).keys] == ["k1"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(web.Response(status=500), "answered 500", id="error"),
        pytest.param(
            web.Response(status=302, headers={"Location": "/elsewhere"}), "302", id="redirect"
        ),
        pytest.param(web.Response(text="<html>"), "not a key set", id="not JSON"),
        pytest.param(web.Response(text="{}"), "not a key set", id="no keys"),
        pytest.param(web.Response(body=b"\xff"), "not a key set", id="not text"),
    ],
)
async def test_key_host_that_answers_nonsense_proves_nothing(
    key_host: KeyHost, answer: web.Response, why: str
) -> None:
    key_host.answer = answer
    with pytest.raises(UnprovenError, match=why):
        await key_host.fetch()


async def test_key_host_with_an_unknown_certificate_proves_nothing(key_host: KeyHost) -> None:
    other = issue(("auth.localhost",), now=datetime.now(UTC)).ca_pem
    with pytest.raises(UnprovenError, match="cannot be fetched"):
        await key_host.fetch(other)


async def test_key_host_that_is_down_proves_nothing(key_host: KeyHost) -> None:
    key_host.sock.close()
    with pytest.raises(UnprovenError, match="cannot be fetched"):
        await fetch_keys(key_host.url, key_host.certificates.ca_pem.decode())()
