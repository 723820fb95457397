"""V: becoming an agent (52, O5, L5, P2, S7): who gets in, who lets in, and what either may see."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_proxy.agents.join_tokens import issue
from heim_proxy.store.base import SessionKind, SessionRow
from heim_wire.agents import ENROL_PATH, ENROLLED_PATH, JOIN_PATH
from tests.fakes.agent import certificate_request
from tests.fakes.browser import Browser, Page
from tests.fakes.idp import rsa_key
from tests.hostile.signin import APP1, APP2, AUTH, Stand, roles, signin_stand

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")

JOIN, ENROL, ENROLLED = f"{AUTH}{JOIN_PATH}", f"{AUTH}{ENROL_PATH}", f"{AUTH}{ENROLLED_PATH}"
AGENTS, DEVICE = f"{AUTH}/.heim/agents", f"{AUTH}/.heim/device"
CLI_TOKEN, CLI_DEVICE = f"{AUTH}/.heim/cli/token", f"{AUTH}/.heim/cli/device"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
BOBS, CAROLS = f"{APP1}/public", f"{APP2}/"

CONFIGURED: list[dict[str, Any]] = [
    {"name": "desktop", "targets": ["ssh", "web"]},
    {"name": "nas", "targets": ["rsync"]},
    {"name": "pool", "targets": ["web"], "group": True},
]


def keepers(*users: str) -> list[dict[str, Any]]:
    """The roles of every test of sign-ins, and one whose members let agents in."""
    members = [{"user": f"{name}@example.com"} for name in users]
    keeper = {"name": "keepers", "members": members, "bindings": [], "approve_agents": True}
    return [*roles(), keeper]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    directory = tmp_path_factory.mktemp("enrolment")
    async with signin_stand(directory, agents=CONFIGURED, roles=keepers("alice", "carol")) as stand:
        carol = {"sub": "carol", "email": "carol@example.com", "email_verified": True}
        stand.idp.users["carol"] = carol
        yield stand


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def a_new_day(stand: Stand) -> None:
    """Of the test before: names are taken while an enrolment lives, and typed codes are counted."""
    stand.later(600)
    for row in await enrolments(stand):
        await stand.store.end_session(row.sid, reason="revoked", now=stand.clock.now())


@dataclass
class Machine:
    """A machine that wants to be an agent: a key and an address, and no cookies."""

    stand: Stand
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    browser: Browser = field(init=False)

    def __post_init__(self) -> None:
        self.browser = self.stand.browser()

    @property
    def csr(self) -> str:
        return encoded(certificate_request(self.key, "anything"))

    async def post(self, url: str, document: object, **headers: str) -> Page:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        sent = {"Content-Type": "application/json", "Accept": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.browser.send("POST", url, headers=tuple(sent.items()), body=body)
        assert answer.get("set-cookie") is None
        assert answer.get("access-control-allow-origin") is None
        return answer

    async def join(self, token: str, **change: object) -> Page:
        asked = {"token": token, "csr": self.csr, "device": "box", "version": "0.4.0", **change}
        return await self.post(JOIN, asked)

    async def enrol(self, name: str = "desktop", **change: object) -> Page:
        asked = {"name": name, "csr": self.csr, "device": "box", "version": "0.4.0", **change}
        return await self.post(ENROL, asked)

    async def waits(self, name: str = "desktop", **change: object) -> dict[str, Any]:
        answer = await self.enrol(name, **change)
        assert answer.status == 200, answer.text
        return said(answer)

    async def enrolled(self, asked: dict[str, Any]) -> Page:
        self.stand.later(asked["interval"] + 1)
        return await self.post(ENROLLED, {"device_code": asked["device_code"]})


def encoded(der: bytes) -> str:
    return base64.b64encode(der).decode()


def said(answer: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    return found


def code_of(answer: Page) -> tuple[int, str]:
    """The status of a refusal, and the code in its problem document."""
    assert (answer.get("content-type") or "").startswith("application/problem+json"), answer.text
    return answer.status, said(answer)["code"]


async def enrolments(stand: Stand) -> list[SessionRow]:
    return list(await stand.store.list_sessions(kind=SessionKind.AGENT))


async def token_for(stand: Stand, name: str = "desktop", **options: Any) -> str:
    row, token = issue(name, now=stand.clock.now(), **options)
    await stand.store.add_join_token(row)
    return token.reveal()


async def type_code(browser: Browser, code: str, **fields: str) -> Page:
    form = {**(await browser.get(AGENTS)).fields_of_form, "code": code, **fields}
    return await browser.post(AGENTS, form, origin=AUTH)


async def approve(browser: Browser, asked: dict[str, Any]) -> Page:
    page = await type_code(browser, asked["user_code"])
    assert page.status == 200, page.text
    return await browser.post(AGENTS, {**page.fields_of_form, "decision": "approve"}, origin=AUTH)


async def pending(machine: Machine, asked: dict[str, Any]) -> bool:
    return (await machine.enrolled(asked)).status == 202


# -- tokens -------------------------------------------------------------------------------------


async def test_v1_52_a_join_token_is_good_once(stand: Stand) -> None:
    token = await token_for(stand, "pool")
    first, thief = Machine(stand), Machine(stand)
    assert (await first.join(token)).status == 200
    assert code_of(await thief.join(token)) == (403, "token_used")
    assert code_of(await first.join(token)) == (403, "token_used"), "not even for the same key"
    assert len(await enrolments(stand)) == 1


async def test_v1_52_of_twenty_at_once_one_joins(stand: Stand) -> None:
    token = await token_for(stand, "pool")
    answers = await asyncio.gather(*(Machine(stand).join(token) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [403] * 19
    assert len(await enrolments(stand)) == 1


@pytest.mark.parametrize("field_", ["name", "agent", "subject"])
async def test_v2_o5_a_token_is_for_the_name_it_was_made_for(stand: Stand, field_: str) -> None:
    """Neither the request nor what is in the CSR chooses."""
    machine = Machine(stand)
    csr = encoded(certificate_request(machine.key, "nas"))
    answer = await machine.join(await token_for(stand), csr=csr, **{field_: "nas"})
    assert said(answer)["agent"] == "desktop"
    assert [row.subject for row in await enrolments(stand)] == ["desktop"]


async def test_v3_a_token_ends_after_its_quarter_of_an_hour(stand: Stand) -> None:
    token = await token_for(stand)
    stand.later(15 * 60 + 1)
    assert code_of(await Machine(stand).join(token)) == (403, "token_expired")
    stand.later(-3600)
    try:
        assert (await Machine(stand).join(token)).status == 200, "a clock that was set back"
    finally:
        # The monotonic side went back with it, which it never does: limits of others would notice.
        stand.later(3600)


async def test_v4_guesses_learn_nothing(stand: Stand) -> None:
    """Whether a token of that id exists, which name it is for, how far the secret was right."""
    token = await token_for(stand)
    used = await token_for(stand, "pool")
    await Machine(stand).join(used)
    letters = [
        token[:-n] + "".join("B" if c == "A" else "A" for c in token[-n:]) for n in (1, 5, 40)
    ]
    guesses = [*letters, used[:-1] + ("B" if used[-1] == "A" else "A"), "heim_jt_" + "A" * 60, "x"]
    answers = [said(await Machine(stand).join(guess)) for guess in guesses]
    for answer in answers:
        del answer["request_id"]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["code"] == "token_unknown"
    assert (await Machine(stand).join(token)).status == 200, "guessing burned it"


async def test_v4_s7_guessing_is_limited_by_client_and_by_network(stand: Stand) -> None:
    one = Machine(stand)
    found = [(await one.join("heim_jt_x")).status for _ in range(62)]
    assert (found[:60], found[-1]) == ([403] * 60, 429)
    site = [Machine(stand) for _ in range(5)]
    for number, machine in enumerate(site):
        machine.browser.address = f"2001:db8:77:{number:x}::1"
    found = [(await machine.join("heim_jt_x")).status for machine in site for _ in range(50)]
    assert 429 in found
    stranger = Machine(stand)
    stranger.browser.address = "2001:db8:78::1"
    assert (await stranger.join("heim_jt_x")).status == 403


async def test_v4_nobody_gets_around_a_rate_by_claiming_an_address(stand: Stand) -> None:
    """X-Heim-Client is the edge's word, and X-Forwarded-For only a trusted proxy's."""
    machine = Machine(stand)
    found = []
    for number in range(62):
        answer = await machine.post(
            JOIN, {"token": "x", "csr": machine.csr}, X_Heim_Client=f"192.0.2.{number}",
            Forwarded=f"for=192.0.2.{number}", X_Real_IP=f"192.0.2.{number}",
        )  # fmt: skip
        found.append(answer.status)
    assert found[-1] == 429


async def test_v4_other_secrets_are_no_join_tokens(stand: Stand) -> None:
    asked = await Machine(stand).waits()
    browser = await stand.signed_in()
    for secret in (
        asked["device_code"],
        asked["user_code"],
        browser.cookie(AUTH[8:]),
        "heim_st_" + "A" * 68,
    ):
        assert code_of(await Machine(stand).join(secret)) == (403, "token_unknown")


# -- keys and requests for certificates -----------------------------------------------------------


def _signed(key: Any, algorithm: Any, *extensions: x509.ExtensionType) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nas")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def _spoilt() -> bytes:
    der = bytearray(_signed(ec.generate_private_key(ec.SECP256R1()), SHA256()))
    der[-1] ^= 1
    return bytes(der)


def _somebody_elses_key() -> bytes:
    """A request whose key was exchanged after it was signed."""
    one, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    der = _signed(one, SHA256())
    points = [
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        for key in (one, other)
    ]
    assert points[0] in der
    return der.replace(*points)


@pytest.mark.parametrize(
    "der",
    [
        pytest.param(_signed(rsa_key("idp-1"), SHA256()), id="RSA"),
        pytest.param(_signed(ec.generate_private_key(ec.SECP384R1()), SHA256()), id="P-384"),
        pytest.param(_signed(ec.generate_private_key(ec.SECP256K1()), SHA256()), id="secp256k1"),
        pytest.param(_signed(ed25519.Ed25519PrivateKey.generate(), None), id="Ed25519"),
        pytest.param(_spoilt(), id="signature"),
        pytest.param(_somebody_elses_key(), id="somebody else's key"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="a length of 4 GiB"),
        pytest.param(b"\x30\x80" * 1000, id="nested"),
        pytest.param(bytes(2900), id="zeros"),
    ],
)
async def test_v9_a_request_that_proves_no_p256_key_gets_nothing(stand: Stand, der: bytes) -> None:
    token = await token_for(stand)
    expected = (400, "bad_csr") if der else (400, "bad_request")
    assert code_of(await Machine(stand).join(token, csr=encoded(der))) == expected
    assert code_of(await Machine(stand).enrol(csr=encoded(der))) == expected
    assert await enrolments(stand) == []
    assert (await Machine(stand).join(token)).status == 200, "the token was burned for nothing"


async def test_v9_decision_30_the_certificate_holds_our_words_only(stand: Stand) -> None:
    machine = Machine(stand)
    names = x509.SubjectAlternativeName([
        x509.UniformResourceIdentifier("spiffe://auth.example.test/agent/nas"),
        x509.DNSName("*"),
        x509.DNSName(AUTH[8:]),
    ])  # fmt: skip
    csr = _signed(machine.key, SHA256(), names, x509.BasicConstraints(ca=True, path_length=None))
    answer = said(await machine.join(await token_for(stand), csr=encoded(csr)))
    made = x509.load_der_x509_certificate(base64.b64decode(answer["certificate"]))
    (san,) = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.value == f"spiffe://{AUTH[8:]}/agent/desktop"
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert b"nas" not in made.public_bytes(Encoding.DER)
    lifetime = made.not_valid_after_utc.timestamp() - stand.clock.now()
    assert lifetime <= 24 * 3600


# -- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{" + b" " * 5000 + b"}", {}, 413, id="long"),
        pytest.param(b"{}", {"Content-Type": "text/plain"}, 415, id="a page's simple request"),
        pytest.param(
            b"token=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415, id="a form"
        ),
        pytest.param(b'{"token":"a","token":"b"}', {}, 400, id="a key twice"),
        pytest.param(b"[" * 3000, {}, 400, id="nested"),
        pytest.param(b'{"token":{"$gt":""},"csr":"x"}', {}, 400, id="an object"),
        pytest.param(b'{"token":' + b"9" * 3000 + b"}", {}, 400, id="a large number"),
        pytest.param(
            gzip.compress(b'{"token":"' + b"A" * 10**6 + b'"}'),
            {"Content-Encoding": "gzip"}, 400, id="a bomb",
        ),
        pytest.param(b'{"token":"\xff"}', {}, 400, id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", {}, 400, id="a byte order mark"),
        pytest.param(b"", {}, 400, id="nothing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("url", [JOIN, ENROL, ENROLLED], ids=["join", "enrol", "enrolled"])
async def test_v10_a_body_that_is_none_is_refused_unread(
    stand: Stand, url: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await Machine(stand).post(url, body, **headers)
    assert code_of(answer) == (status, "bad_request")


@pytest.mark.parametrize("url", [JOIN, ENROL, ENROLLED], ids=["join", "enrol", "enrolled"])
async def test_v10_only_post_and_only_on_the_login_host(stand: Stand, url: str) -> None:
    browser = await stand.signed_in()
    for method in ("GET", "HEAD", "PUT", "OPTIONS"):
        answer = await browser.send(
            method, f"{url}?token=x", headers=(("Origin", "https://evil.test"),)
        )
        assert answer.status == 405
        assert answer.get("access-control-allow-origin") is None
    before = len(stand.sent)
    answer = await Machine(stand).post(url.replace(AUTH, APP1), {"token": "x"})
    assert answer.status == 404
    assert len(stand.sent) == before, "an application was asked"


async def test_v10_strangers_do_not_learn_which_agents_there_are(stand: Stand) -> None:
    assert (await Machine(stand).join(await token_for(stand))).status == 200
    answers = [await Machine(stand).enrol(name) for name in ("desktop", "nas", "nosuch")]
    assert {(answer.status, *said(answer)) for answer in answers} == {
        (200, *said(answers[0])),
    }  # fmt: skip


# -- who may let agents in ----------------------------------------------------------------------


async def test_v11_p2_others_get_a_page_that_says_why_and_nothing_else(stand: Stand) -> None:
    machine = Machine(stand)
    asked = await machine.waits()
    bob, alice = await stand.signed_in("bob", BOBS), await stand.signed_in()
    csrf = (await alice.get(AGENTS)).fields_of_form["csrf"]
    for answer in (
        await bob.get(AGENTS),
        await bob.post(AGENTS, {"code": asked["user_code"], "csrf": csrf}, origin=AUTH),
        await bob.post(
            AGENTS, {"code": asked["user_code"], "csrf": csrf, "decision": "approve"}, origin=AUTH
        ),
    ):
        assert answer.status == 403
        assert "You may not let agents in." in answer.text
        assert "bob@example.com" in answer.text
        for hidden in ("desktop", "nas", asked["fingerprint"], asked["user_code"]):
            assert hidden not in answer.text
    assert AGENTS[len(AUTH) :] not in (await bob.get(f"{AUTH}/")).links
    assert AGENTS[len(AUTH) :] in (await alice.get(f"{AUTH}/")).links
    assert await pending(machine, asked)


async def test_v11_strangers_are_sent_to_sign_in(stand: Stand) -> None:
    asked = await Machine(stand).waits()
    browser = stand.browser()
    for answer in (
        await browser.get(AGENTS),
        await browser.post(
            AGENTS, {"code": asked["user_code"], "decision": "approve"}, origin=AUTH
        ),
    ):
        assert answer.status == 303
        assert answer.location == f"{AUTH}/.heim/login?rd=%2F.heim%2Fagents"


@pytest.mark.parametrize("how", ["role", "session"])
async def test_v11_a_right_that_ended_between_page_and_button_is_none(
    stand: Stand, how: str
) -> None:
    machine = Machine(stand)
    asked = await machine.waits()
    browser = await stand.signed_in("carol", CAROLS)
    page = await type_code(browser, asked["user_code"])
    assert page.status == 200
    if how == "role":
        await stand.change(roles=keepers("alice"))
    else:
        await stand.store.end_sessions_of(
            now=stand.clock.now(), reason="revoked", email="carol@example.com"
        )
        async with asyncio.timeout(3):
            while (await browser.get(AGENTS)).status == 200:
                await asyncio.sleep(0.05)
    form = {**page.fields_of_form, "decision": "approve"}
    try:
        answer = await browser.post(AGENTS, form, origin=AUTH)
        assert answer.status == (403 if how == "role" else 303)
        assert await pending(machine, asked)
    finally:
        if how == "role":
            await stand.change(roles=keepers("alice", "carol"))


async def test_v23_a_right_that_ended_before_the_machine_came_lets_nobody_in(
    stand: Stand,
) -> None:
    """A code is approved, and kept for the ten minutes that it lives: somebody is dismissed."""
    machine = Machine(stand)
    asked = await machine.waits()
    browser = await stand.signed_in("carol", CAROLS)
    assert (await approve(browser, asked)).status == 200
    await stand.change(roles=keepers("alice"))
    try:
        assert code_of(await machine.enrolled(asked)) == (403, "denied")
        assert not await enrolments(stand)
    finally:
        await stand.change(roles=keepers("alice", "carol"))


# -- making somebody's browser let one in ---------------------------------------------------------


@pytest.mark.parametrize(
    ("origins", "csrf"),
    [
        pytest.param((), "{ours}", id="no origin"),
        pytest.param(("null",), "{ours}", id="null"),
        pytest.param((APP1,), "{ours}", id="an application"),
        pytest.param(("https://evil.test",), "{ours}", id="another site"),
        pytest.param((AUTH.replace("https", "http"),), "{ours}", id="http"),
        pytest.param((f"{AUTH}:443",), "{ours}", id="port"),
        pytest.param((f"{AUTH}.evil.test",), "{ours}", id="prefix"),
        pytest.param((AUTH, "https://evil.test"), "{ours}", id="two"),
        pytest.param((AUTH,), "", id="no token"),
        pytest.param((AUTH,), "A" * 43, id="a wrong token"),
        pytest.param((AUTH,), "{other}", id="another person's token"),
        pytest.param((AUTH,), "{device}", id="another page's token"),
    ],
)
async def test_v6_p2_a_forged_form_lets_nobody_in(
    stand: Stand, origins: tuple[str, ...], csrf: str
) -> None:
    machine = Machine(stand)
    asked = await machine.waits()
    browser, other = await stand.signed_in(), await stand.signed_in("carol", CAROLS)
    tokens = {
        "{ours}": (await browser.get(AGENTS)).fields_of_form["csrf"],
        "{other}": (await other.get(AGENTS)).fields_of_form["csrf"],
        "{device}": (await browser.get(DEVICE)).fields_of_form["csrf"],
    }
    form = {"code": asked["user_code"], "decision": "approve", "csrf": tokens.get(csrf, csrf)}
    headers = tuple(("Origin", origin) for origin in origins)
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    answer = await browser.send(
        "POST", AGENTS, headers=(*headers, kind), body=urlencode(form).encode()
    )
    assert answer.status == 403
    assert asked["fingerprint"] not in answer.text
    assert await pending(machine, asked)


async def test_v7_no_link_image_or_prefetch_does_anything(stand: Stand) -> None:
    machine = Machine(stand)
    asked = await machine.waits()
    browser = await stand.signed_in()
    csrf = (await browser.get(AGENTS)).fields_of_form["csrf"]
    query = urlencode({
        "code": asked["user_code"], "user_code": asked["user_code"], "csrf": csrf,
        "decision": "approve", "_method": "POST",
    })  # fmt: skip
    for headers in (
        (("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html"), ("Origin", AUTH)),
        (("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image"), ("Accept", "image/*")),
        (("Sec-Purpose", "prefetch"), ("Accept", "text/html")),
        (("X-HTTP-Method-Override", "POST"), ("Accept", "text/html")),
    ):
        for method in ("GET", "HEAD"):
            answer = await browser.send(method, f"{AGENTS}?{query}", headers=headers)
            assert answer.status in (200, 401)
            assert asked["user_code"] not in answer.text, "decision 31: typed, never prefilled"
            assert asked["fingerprint"] not in answer.text
    assert await pending(machine, asked)


async def test_v7_a_login_brings_no_code_along(stand: Stand) -> None:
    asked = await Machine(stand).waits()
    rd = quote(f"/.heim/agents?code={asked['user_code']}", safe="")
    page = await stand.browser().open(f"{AUTH}/.heim/login?rd={rd}")
    assert asked["user_code"] not in page.text


async def test_v8_p7_the_pages_cannot_be_framed_or_scripted(stand: Stand) -> None:
    asked = await Machine(stand).waits()
    browser = await stand.signed_in()
    bob = await stand.signed_in("bob", BOBS)
    pages = [
        await browser.get(AGENTS),
        await type_code(browser, asked["user_code"]),
        await type_code(browser, "BCDF-GHJK"),
        await approve(browser, asked),
        await bob.get(AGENTS),
    ]
    assert [page.status for page in pages] == [200, 200, 400, 200, 403]
    for page in pages:
        policy = page.get("content-security-policy") or ""
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "form-action 'self'" in policy
        assert page.get("x-frame-options") == "DENY"
        assert page.get("x-content-type-options") == "nosniff"
        assert page.get("cross-origin-opener-policy") == "same-origin"
        assert page.get("cache-control") == "no-store"
        assert "<script" not in page.text


@pytest.mark.parametrize(
    "text",
    [
        "</dd><script>alert(1)</script>",
        '" onmouseover="alert(1)',
        "{{ 7 * 7 }}{% raw %}",
        "\u202edrowssap\u202c",
        "\x1b[2J\x1b]0;owned\x07",
        "a\r\nSet-Cookie: x=1",
        "A" * 900,
        "\ud800",
        "\u200b\u00ad\u2066desktop",
    ],
    ids=[
        "script",
        "attribute",
        "template",
        "bidi",
        "ansi",
        "header",
        "long",
        "surrogate",
        "hidden",
    ],
)
async def test_v12_p1_a_machine_cannot_write_on_the_pages_or_in_the_log(
    stand: Stand, text: str
) -> None:
    machine = Machine(stand)
    asked = await machine.waits(device=text, version=text)
    browser = await stand.signed_in()
    page = await type_code(browser, asked["user_code"])
    assert page.status == 200
    await approve(browser, asked)
    assert (await machine.enrolled(asked)).status == 200
    listed = await browser.get(AGENTS)
    for shown in (page, listed):
        assert "<script" not in shown.text
        assert 'onmouseover="' not in shown.text
        assert "49" not in re.findall(r"<dt>Machine</dt><dd>([^<]*)", shown.text)
        assert not re.search(
            r"[\x00-\x09\x0b-\x1f\u200b\u00ad\u202a-\u202e\u2066-\u2069]", shown.text
        )
        assert all(len(one) < 600 for one in re.findall(r"<dd>([^<]*)", shown.text))
    for event in ("agent.enrolment_asked", "agent.enrolment_approved", "agent.joined"):
        facts = stand.audit.of(event)[-1]
        told = [facts[name] for name in ("agent", "device", "version") if name in facts]
        assert len(told) >= 2
        assert all(value.isprintable() and len(value) <= 64 for value in told)
    for name in (text, f"desktop{text}"):
        answer = await Machine(stand).enrol(name)
        assert answer.status in (400, 403)
        assert "<script" not in answer.text or answer.get("content-type") != "text/html"


# -- codes ---------------------------------------------------------------------------------------


async def test_v5_l5_guessing_codes_ends_for_the_person_and_for_the_address(stand: Stand) -> None:
    machine = Machine(stand)
    asked = await machine.waits()
    browser = await stand.signed_in("carol", CAROLS)
    csrf = (await browser.get(AGENTS)).fields_of_form["csrf"]

    async def guess(who: Browser, token: str, code: str) -> int:
        form = {"csrf": token, "code": code, "decision": "deny"}
        return (await who.post(AGENTS, form, origin=AUTH)).status

    found = [await guess(browser, csrf, "BCDF-GHJK") for _ in range(21)]
    assert found == [400] * 20 + [429]
    assert await guess(browser, csrf, asked["user_code"]) == 429, "a right guess is not told"
    browser.move()
    assert await guess(browser, csrf, asked["user_code"]) == 429, "the same person elsewhere"
    assert await pending(machine, asked)
    stand.later(20 * 40)


async def test_v13_of_many_who_decide_at_once_one_does(stand: Stand) -> None:
    machine = Machine(stand)
    asked = await machine.waits()
    people = [await stand.signed_in(who, CAROLS) for who in ("alice", "carol", "alice", "carol")]
    pages = [await type_code(one, asked["user_code"]) for one in people]
    answers = await asyncio.gather(*(
        one.post(AGENTS, {**page.fields_of_form, "decision": decision}, origin=AUTH)
        for one, page, decision in zip(people, pages, ["approve", "deny"] * 2, strict=True)
    ))  # fmt: skip
    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
    decided = len(stand.audit.of("agent.enrolment_approved"))
    decided += len(stand.audit.of("agent.enrolment_denied"))
    assert decided == 1, "the audit says what happened"


async def test_v13_an_approval_is_one_certificate_however_many_ask(stand: Stand) -> None:
    machine = Machine(stand)
    asked = await machine.waits()
    await approve(await stand.signed_in(), asked)
    stand.later(6)
    code = {"device_code": asked["device_code"]}
    answers = await asyncio.gather(*(Machine(stand).post(ENROLLED, code) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [410] * 9
    assert len(await enrolments(stand)) == 1


async def test_v14_nothing_is_approved_or_taken_after_its_time(stand: Stand) -> None:
    late, slow = Machine(stand), Machine(stand)
    browser = await stand.signed_in()
    asked = await late.waits()
    page = await type_code(browser, asked["user_code"])
    stand.later(601)
    answer = await browser.post(AGENTS, {**page.fields_of_form, "decision": "approve"}, origin=AUTH)
    assert answer.status == 400
    assert code_of(await late.enrolled(asked)) == (410, "expired")
    asked = await slow.waits("nas")
    await approve(browser, asked)
    stand.later(601)
    assert code_of(await slow.enrolled(asked)) == (410, "expired")
    assert await enrolments(stand) == []


async def test_v15_what_is_not_configured_is_not_approved(stand: Stand) -> None:
    machine, browser = Machine(stand), await stand.signed_in()
    asked = await machine.waits("nosuch")
    page = await type_code(browser, asked["user_code"])
    assert page.status == 200
    assert "nosuch" in page.text
    assert 'value="approve"' not in page.text
    forced = await browser.post(AGENTS, {**page.fields_of_form, "decision": "approve"}, origin=AUTH)
    assert forced.status == 409
    assert await pending(machine, asked)


@pytest.mark.parametrize("when", ["before the button", "before the machine asks"])
async def test_v15_what_is_configured_no_more_is_not_let_in(stand: Stand, when: str) -> None:
    machine, browser = Machine(stand), await stand.signed_in()
    asked = await machine.waits("nas")
    page = await type_code(browser, asked["user_code"])
    form = {**page.fields_of_form, "decision": "approve"}
    without = [one for one in CONFIGURED if one["name"] != "nas"]
    try:
        if when == "before the button":
            await stand.change(agents=without)
            assert (await browser.post(AGENTS, form, origin=AUTH)).status == 409
            assert await pending(machine, asked)
        else:
            assert (await browser.post(AGENTS, form, origin=AUTH)).status == 200
            await stand.change(agents=without)
            answer = await machine.enrolled(asked)
            assert code_of(answer) == (403, "agent_not_configured")
        assert await enrolments(stand) == []
    finally:
        await stand.change(agents=CONFIGURED)


async def test_v16_o5_a_name_that_lives_is_not_taken_over(stand: Stand) -> None:
    """By token, by approval of what asked before, and by approval of what asks now."""
    owner, early, late = (Machine(stand) for _ in range(3))
    browser = await stand.signed_in()
    asked = await early.waits()
    await approve(browser, asked)
    assert (await owner.join(await token_for(stand))).status == 200
    assert code_of(await early.enrolled(asked)) == (409, "name_taken")
    assert code_of(await late.join(await token_for(stand))) == (409, "name_taken")
    page = await type_code(browser, (await late.waits())["user_code"])
    assert 'value="approve"' not in page.text
    (row,) = await enrolments(stand)
    replacing = await token_for(stand, replace=True)
    assert (await late.join(replacing)).status == 200
    (now,) = await enrolments(stand)
    assert now.sid != row.sid
    ended = await stand.store.get_session(row.sid)
    assert ended is not None
    assert ended.ended is not None


async def test_v17_approving_one_lets_no_other_in(stand: Stand) -> None:
    """Two machines ask for one name: codes, keys and pages do not mix."""
    mine, thief = Machine(stand), Machine(stand)
    asked, theirs = await mine.waits(), await thief.waits()
    browser = await stand.signed_in()
    page = await type_code(browser, asked["user_code"])
    assert asked["fingerprint"] in page.text
    assert theirs["fingerprint"] not in page.text
    await approve(browser, asked)
    assert await pending(thief, theirs)
    assert (await mine.enrolled(asked)).status == 200


async def test_v18_codes_of_machines_and_of_people_are_not_each_others(stand: Stand) -> None:
    """An agent's code must not sign a command line in, nor a command line's let an agent in."""
    machine, browser = Machine(stand), await stand.signed_in()
    agent = await machine.waits()
    laptop = said(await stand.browser().post(CLI_DEVICE, {"device": "x"}, navigate=False))
    typed = {**(await browser.get(DEVICE)).fields_of_form, "code": agent["user_code"]}
    for form in (typed, {**typed, "decision": "approve"}, {**typed, "decision": "deny"}):
        assert (await browser.post(DEVICE, form, origin=AUTH)).status == 400
    for decision in ({}, {"decision": "approve"}, {"decision": "deny"}):
        assert (await type_code(browser, laptop["user_code"], **decision)).status == 400
    stand.later(6)
    poll = {"grant_type": DEVICE_GRANT, "device_code": agent["device_code"]}
    answer = await stand.browser().post(CLI_TOKEN, poll, navigate=False)
    assert said(answer)["error"] == "expired_token"
    answer = await Machine(stand).post(ENROLLED, {"device_code": laptop["device_code"]})
    assert code_of(answer) == (410, "expired")
    # Approved, too, each is good for its own kind only, and not used up by the other.
    await approve(browser, agent)
    typed["code"] = laptop["user_code"]
    done = await browser.post(DEVICE, {**typed, "decision": "approve"}, origin=AUTH)
    assert done.status == 200
    stand.later(6)
    answer = await stand.browser().post(CLI_TOKEN, poll, navigate=False)
    assert (answer.status, said(answer)["error"]) == (400, "expired_token")
    answer = await Machine(stand).post(ENROLLED, {"device_code": laptop["device_code"]})
    assert code_of(answer) == (410, "expired")
    assert (await machine.enrolled(agent)).status == 200
    poll["device_code"] = laptop["device_code"]
    assert (await stand.browser().post(CLI_TOKEN, poll, navigate=False)).status == 200


async def test_v18_an_enrolment_is_nobodys_session(stand: Stand) -> None:
    answer = said(await Machine(stand).join(await token_for(stand)))
    (row,) = await enrolments(stand)
    for value in (row.sid, row.secret_hash.hex(), answer["certificate"]):
        for headers in (
            (("Cookie", f"__Host-heim={value}"),),
            (("Authorization", f"Bearer {value}"),),
            (("Authorization", f"Bearer heim_st_{value}"),),
        ):
            for url in (f"{APP1}/", AGENTS, f"{AUTH}/.heim/cli/backends"):
                found = await stand.browser().send("GET", url, headers=headers)
                assert found.status in (303, 401)
    assert not stand.sent


async def test_v19_s_strangers_cannot_take_every_place(stand: Stand) -> None:
    """Who asks is a stranger: the rate and the places of one network leave room for others."""
    crowd = [Machine(stand) for _ in range(6)]
    for number, machine in enumerate(crowd):
        machine.browser.address = f"2001:db8:99:{number:x}::1"
    found = [(await machine.enrol()).status for machine in crowd for _ in range(20)]
    assert 429 in found
    assert found.count(200) <= 81
    assert (await Machine(stand).enrol()).status == 200
    stand.later(700)


# -- what is left behind -------------------------------------------------------------------------


async def test_v20_r3_who_let_whom_in_is_written_down(stand: Stand) -> None:
    machine, browser = Machine(stand), await stand.signed_in()
    asked = await machine.waits()
    await approve(browser, asked)
    assert (await machine.enrolled(asked)).status == 200
    refused = await Machine(stand).waits("nas")
    await type_code(browser, refused["user_code"], decision="deny")
    (first, second) = stand.audit.of("agent.enrolment_asked")
    assert (first["agent"], first["client"]) == ("desktop", machine.browser.address)
    assert first["fingerprint"] == asked["fingerprint"]
    assert second["agent"] == "nas"
    (event,) = stand.audit.of("agent.enrolment_approved")
    assert (event["agent"], event["email"], event["role"]) == (
        "desktop", "alice@example.com", "keepers",
    )  # fmt: skip
    assert (event["client"], event["device_client"]) == (browser.address, machine.browser.address)
    (event,) = stand.audit.of("agent.joined")
    assert (event["agent"], event["via"], event["client"]) == (
        "desktop", "code", machine.browser.address,
    )  # fmt: skip
    assert event["fingerprint"] == asked["fingerprint"]
    (event,) = stand.audit.of("agent.enrolment_denied")
    assert (event["agent"], event["email"]) == ("nas", "alice@example.com")
    for name in ("asked", "approved", "denied"):
        assert all(one["request_id"] for one in stand.audit.of(f"agent.enrolment_{name}"))


async def test_v21_r1_no_log_url_or_file_has_a_token_or_a_code(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token, other = await token_for(stand), await token_for(stand, "pool")
    await Machine(stand).join(token)
    await Machine(stand).join(token)
    await Machine(stand).join(other[:-2] + "zz")
    machine, browser = Machine(stand), await stand.signed_in()
    asked = await machine.waits("nas")
    await approve(browser, asked)
    await machine.enrolled(asked)
    await machine.enrolled(asked)
    async with stand.store_down():
        assert code_of(await Machine(stand).join(other)) == (503, "busy")
        assert code_of(await machine.enrolled(asked)) == (503, "busy")
    logged = "".join(repr(vars(record)) for record in caplog.records)
    logged += stand.heim.log.read_text()
    assert JOIN_PATH in logged
    shown = (await browser.get(AGENTS)).text
    stored = b"".join(
        path.read_bytes() for path in stand.store.path.parent.glob(f"{stand.store.path.name}*")
    )
    for secret in (token, other, asked["device_code"], asked["user_code"]):
        half = secret[len(secret) // 2 :]
        assert half not in logged
        assert half not in shown
        assert half.encode() not in stored


async def test_v22_g12_without_a_store_nobody_gets_in_and_nothing_is_used_up(stand: Stand) -> None:
    token, machine = await token_for(stand), Machine(stand)
    asked = await machine.waits("nas")
    browser = await stand.signed_in()
    page = await type_code(browser, asked["user_code"])
    form = {**page.fields_of_form, "decision": "approve"}
    async with stand.store_down():
        for answer in (
            await Machine(stand).join(token),
            await Machine(stand).enrol(),
            await machine.enrolled(asked),
        ):
            assert code_of(answer) == (503, "busy")
            assert answer.get("retry-after")
            assert "state.db" not in answer.text
        assert (await browser.post(AGENTS, form, origin=AUTH)).status == 503
    assert (await Machine(stand).join(token)).status == 200
    assert await pending(machine, asked)
    assert (await browser.post(AGENTS, form, origin=AUTH)).status == 200
    assert (await machine.enrolled(asked)).status == 200
