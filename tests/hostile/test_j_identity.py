"""J: who somebody is, and what that lets them do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from heim_config.load import load_file
from heim_proxy.access.policy import Grants
from heim_proxy.access.subject import Subject
from heim_proxy.cli.explain import explain_request
from heim_proxy.identity.admission import Refusal, RefusalReason, admit
from heim_proxy.identity.providers import Provider, ProviderType
from tests.fakes.browser import Browser, Page
from tests.fakes.heim import LOGIN_HOST, user
from tests.fakes.idp import OMIT, Lies
from tests.hostile.signin import (
    APP1,
    APP2,
    AUTH,
    OPEN,
    STRICT,
    TEAMS,
    Stand,
    host_of,
    provider,
    signin_stand,
)

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


def shown(value: object) -> str:
    return "missing" if value is OMIT else ascii(value)


async def attempt(stand: Stand, url: str = f"{APP2}/", **claims: Any) -> tuple[Browser, Page]:
    """Sign in as somebody with these claims and end up where that leads."""
    # The userinfo endpoint knows no more than the token: it is asked for what a token lacks.
    missing = {name: OMIT for name, value in claims.items() if value is OMIT}
    stand.idp.lies = Lies(claims=claims, userinfo={"sub": claims.get("sub", "alice"), **missing})
    browser = stand.browser()
    return browser, await browser.open(url)


def turned_away(stand: Stand, browser: Browser, page: Page, reason: str) -> None:
    """Signed in there, not let in here: a page that says which rule, and no session."""
    assert page.status == 403, (page.status, page.text[-300:])
    assert page.host == LOGIN_HOST
    assert str(page.get("x-request-id")) in page.text
    assert browser.cookie(LOGIN_HOST) is None
    (event,) = stand.audit.of("login.refused")
    assert event["reason"] == reason
    assert not stand.sent


# -- J1-J3: addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verified",
    [False, "false", "true", 0, 1, None, OMIT, "", [], [True], {}, "True", 1.0],
    ids=shown,
)
async def test_j1_an_address_that_is_not_verified_is_nobodys(stand: Stand, verified: Any) -> None:
    browser, page = await attempt(stand, email_verified=verified)
    turned_away(stand, browser, page, "email_unverified")


async def test_j1_the_opt_out_is_the_operators_and_named_insecure(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        one = provider(stand.idp, "one", tmp_path / "one.secret", insecure_skip_email_verified=True)
        await stand.change(identity={"providers": [one]})
        browser, page = await attempt(stand, email_verified=False)
        assert page.status == 200
        assert await stand.sees(browser, f"{APP2}/")


async def test_j1_userinfo_cannot_verify_another_address(stand: Stand) -> None:
    """An address from one place and its verification from another are never mixed."""
    stand.idp.lies = Lies(
        claims={"email": "alice@example.com", "email_verified": OMIT, "sub": "mallory"},
        userinfo={"sub": "mallory", "email": "mallory@evil.test", "email_verified": True},
    )
    browser = stand.browser()
    page = await browser.open(f"{APP1}/")
    assert page.status == 403
    assert not await stand.sees(browser)


GOOGLE = Provider(
    "google",
    ProviderType.GOOGLE,
    "https://accounts.google.com",
    "heim",
    hosted_domains=frozenset({"example.com"}),
)
BARE_GOOGLE = Provider("google", ProviderType.GOOGLE, "https://accounts.google.com", "heim")


@pytest.mark.parametrize(
    "hd",
    [
        *(OMIT, None, "", True, ["example.com"], {"example.com": 1}, "example.org"),
        *("example.com.evil.test", "sub.example.com", "example.com.", "example.com\n"),
        *("exam\u212aple.com", " example.com", "ｅxample.com"),
    ],
    ids=shown,
)
async def test_j2_hd_counts_in_the_token_and_to_the_letter(hd: Any) -> None:
    """Google's issuer is fixed and https, so this one drives the real rule itself."""
    claims = {"email": "alice@example.com", "email_verified": True, "hd": hd}
    claims = {name: value for name, value in claims.items() if value is not OMIT}
    refused = admit(GOOGLE, GOOGLE.issuer, "1", claims)
    assert isinstance(refused, Refusal)
    assert refused.reason is RefusalReason.HOSTED_DOMAIN
    # Where no rule asks for hd, `domain:` members must still not be reached by the address alone.
    somebody = admit(BARE_GOOGLE, GOOGLE.issuer, "1", claims)
    assert isinstance(somebody, Subject)
    assert somebody.domain != "example.com"


async def test_j2_hd_in_the_request_is_a_hint_and_not_a_check() -> None:
    admitted = admit(
        GOOGLE, GOOGLE.issuer, "1",
        {"email": "a@example.com", "email_verified": True, "hd": "EXAMPLE.com"},
    )  # fmt: skip
    assert isinstance(admitted, Subject)
    assert admitted.domain == "example.com"


async def test_j2_hosted_domains_elsewhere_is_the_domain_of_the_address(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        one = provider(stand.idp, "one", tmp_path / "one.secret", hosted_domains=["example.com"])
        await stand.change(identity={"providers": [one]})
        for claims in (
            {"email": "a@example.org", "hd": "example.com", "sub": "a"},
            {"email": OMIT, "hd": "example.com", "sub": "b"},
            {"email": "c@example.com.evil.test", "sub": "c"},
        ):
            stand.audit.records.clear()
            browser, page = await attempt(stand, **claims)
            assert page.status == 403, claims
            assert browser.cookie(LOGIN_HOST) is None
        _, page = await attempt(stand, email="d@EXAMPLE.com", sub="d")
        assert page.status == 200


ADDRESSES = {
    "two-at": "a@evil.test@example.com",
    "two-at-other-order": "a@example.com@evil.test",
    "quoted": '"a@example.com"@evil.test',
    "quoted-local": '"a"@example.com',
    "comment": "a(x)@example.com",
    "suffix": "a@example.com.evil.test",
    "subdomain": "a@sub.example.com",
    "prefix": "a@xexample.com",
    "trailing-dot": "a@example.com.",
    "nul": "a@example.com\x00.evil.test",
    "nul-before": "a\x00@example.com",
    "full-width-at": "a＠example.com",
    "full-width": "a@ｅxample.com",
    "kelvin": "a@e\u212aample.com",
    "dotless-i": "a@exampłe.com",
    "long-s": "a@example.com\u017f",
    "line-end": "a@example.com\n",
    "space": "a@example.com ",
    "two-lines": "a@evil.test\r\nTo: x@example.com",
    "percent": "a%40example.com@evil.test",
    "source-route": "@evil.test:a@example.com",
    "bang": "evil.test!a@example.com@x",
    "list": ["a@example.com"],
    "number": 1,
    "two-addresses": "a@evil.test, b@example.com",
    "angle": "<a@example.com>",
    "named": "A <a@example.com>",
    "empty-local": "@example.com",
    "no-domain": "a@",
    "ip": "a@[127.0.0.1]",
    "300-chars": "a" * 300 + "@example.com",
    "unicode-local": "älice@example.com",
    "zero-width": "a@exam\u200bple.com",
    "dots": "a..b@example.com",
}


@pytest.mark.parametrize(("name", "email"), ADDRESSES.items(), ids=ADDRESSES)
async def test_j3_an_address_that_only_looks_like_it_is_of_the_domain_opens_nothing(
    stand: Stand, name: str, email: Any
) -> None:
    browser, page = await attempt(stand, email=email, sub=f"j3-{name}")
    assert page.status == 403, page.status
    assert not stand.sent
    for url in (f"{APP1}/", f"{APP2}/", f"{TEAMS}/"):
        assert not await stand.sees(browser, url)


async def test_j3_the_domain_is_compared_without_case_and_nothing_else(stand: Stand) -> None:
    browser, page = await attempt(stand, email="A@EXAMPLE.com", sub="j3-case")
    assert page.status == 200
    assert "a@example.com" in (await browser.get(f"{AUTH}/.heim/me")).text


# -- J4: pinning ----------------------------------------------------------------------------------


async def test_j4_a_reused_mailbox_inherits_nothing(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        first = await stand.signed_in("alice")
        browser, page = await attempt(stand, f"{APP1}/deep", sub="new-employee")
        assert page.status == 403
        assert browser.cookie(LOGIN_HOST) is None
        (event,) = stand.audit.of("login.refused")
        assert event["reason"] == "pinned_to_another_account"
        assert "alice" not in page.text.replace("alice@example.com", ""), "not whose it was"
        assert await stand.sees(first)
        # Spelled differently it is the same mailbox.
        browser, page = await attempt(stand, f"{APP1}/", sub="new", email="ALICE@Example.com")
        assert page.status == 403
        # Only the operator lets the new one in, and the old one is then the stranger.
        assert await stand.store.unpin("alice@example.com")
        browser, page = await attempt(stand, f"{APP1}/", sub="new-employee")
        assert page.status == 200
        browser, page = await attempt(stand, f"{APP1}/", sub="alice")
        assert page.status == 403


async def test_j4_two_accounts_that_claim_a_mailbox_at_once(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        browsers, callbacks = [], []
        for sub in ("x1", "x2", "x3", "x4"):
            stand.idp.users[sub] = {**stand.idp.users["alice"], "sub": sub}
            stand.idp.user = sub
            browsers.append(stand.browser())
            callbacks.append(await browsers[-1].to_callback(f"{APP1}/"))
        pages = await asyncio.gather(
            *(one.get(url) for one, url in zip(browsers, callbacks, strict=True))
        )
        assert sorted(page.status for page in pages) == [303, 403, 403, 403]


async def test_j4_a_failed_store_pins_nobody_and_admits_nobody(stand: Stand) -> None:
    stand.idp.lies = Lies(claims={"sub": "fresh", "email": "fresh@example.com"})
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP2}/")
    async with stand.store_down():
        page = await browser.get(callback)
    assert page.status == 503
    assert browser.cookie(LOGIN_HOST) is None
    pins = {email for email, *_ in await stand.store.list_pins()}
    assert "fresh@example.com" not in pins


async def test_j4_a_provider_cannot_speak_for_the_domain_of_another(tmp_path: Path) -> None:
    """Decision 7: two providers, one of them owned by somebody else."""
    async with signin_stand(tmp_path, two=True) as stand:
        stand.other.users["alice"] = {**stand.other.users["alice"], "sub": "evil-alice"}
        for email in ("alice@example.com", "ALICE@EXAMPLE.COM", "new@example.com"):
            stand.audit.records.clear()
            stand.other.lies = Lies(claims={"email": email})
            browser = stand.browser()
            page = await browser.open(f"{AUTH}/.heim/login/two?rd={quote(APP1 + '/')}")
            turned_away(stand, browser, page, "domain")
        # Without an address it is somebody, but not one of ours.
        stand.other.lies = Lies(
            claims={"email": OMIT, "sub": "alice", "groups": ["developers", "staff"]},
            userinfo={"email": OMIT, "sub": "alice"},
        )
        browser = stand.browser()
        page = await browser.open(f"{AUTH}/.heim/login/two?rd={quote(TEAMS + '/')}")
        assert page.status == 403
        for url in (f"{APP1}/", f"{APP2}/", f"{TEAMS}/"):
            assert not await stand.sees(browser, url)
        # Its own domain is its own, and gives what that is given: nothing here.
        stand.other.lies = Lies(
            claims={"email": "o@example.org", "sub": "o", "groups": ["developers"]}
        )
        browser = stand.browser()
        page = await browser.open(f"{AUTH}/.heim/login/two?rd={quote(TEAMS + '/')}")
        assert page.status == 403
        assert browser.cookie(LOGIN_HOST) is not None
        # The honest one still works beside it, and its people were not pinned to the liar.
        stand.idp.lies = Lies()
        browser = stand.browser()
        page = await browser.open(f"{AUTH}/.heim/login/one?rd={quote(TEAMS + '/')}")
        assert (page.status, page.url) == (200, f"{TEAMS}/")


async def test_j4_a_provider_cannot_sign_as_another(tmp_path: Path) -> None:
    """The liar names the other one's issuer everywhere it can."""
    async with signin_stand(tmp_path, two=True) as stand:
        for lies in (
            Lies(claims={"iss": stand.idp.issuer}),
            Lies(authorize={"iss": stand.idp.issuer}),
            Lies(authorize={"iss": stand.idp.issuer}, claims={"iss": stand.idp.issuer}),
        ):
            stand.other.lies = lies
            browser = stand.browser()
            page = await browser.open(f"{AUTH}/.heim/login/two?rd=/")
            assert page.status == 400
            assert browser.cookie(LOGIN_HOST) is None
        stand.later(2 * 86_400)
        stand.other.lies = Lies(discovery={"issuer": stand.idp.issuer})
        assert (await stand.browser().open(f"{AUTH}/.heim/login/two?rd=/")).status == 503
        # Its token endpoint hands out the honest provider's token for our client: wrong nonce.
        stand.later(6.0)
        stand.other.lies = Lies()
        honest = stand.browser()
        await honest.open(f"{AUTH}/.heim/login/one?rd=/")
        token = stand.idp.id_token(
            {"iss": stand.idp.issuer, "aud": "heim", "sub": "alice", "iat": int(stand.clock.now()),
             "exp": int(stand.clock.now()) + 300, "nonce": "x"}, "access")  # fmt: skip
        stand.other.lies = Lies(id_token=token)
        browser = stand.browser()
        page = await browser.open(f"{AUTH}/.heim/login/two?rd=/")
        assert page.status == 400
        assert browser.cookie(LOGIN_HOST) is None


# -- J5-J11: policy -------------------------------------------------------------------------------


async def test_j5_without_a_rule_everything_is_refused(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        browser = await stand.signed_in()
        await stand.change(roles=[])
        for url in (f"{APP1}/", f"{APP2}/", f"{TEAMS}/", f"{STRICT}/"):
            page = await browser.open(url)
            assert page.status == 403, url
        role = {"name": "empty", "members": [{"user": "alice@example.com"}], "bindings": []}
        before = stand.heim.generation
        stand.heim.document["roles"] = [role]
        stand.heim.write()
        stand.heim.proxy._reloader.look()
        await stand.heim.until(
            lambda: (
                stand.heim.generation > before
                or stand.heim.proxy._reloader.status.last_error is not None
            )
        )
        assert (await browser.get(f"{APP1}/")).status == 403


@pytest.mark.parametrize(
    "groups",
    [OMIT, None, "", [], [""], [None], {"developers": True}, 0, True, [["developers"]]],
    ids=shown,
)
async def test_j5_a_missing_claim_equals_nothing(stand: Stand, groups: Any) -> None:
    stand.idp.lies = Lies(
        claims={"groups": groups, "sub": "alice"}, userinfo={"groups": OMIT, "sub": "alice"}
    )
    browser = stand.browser()
    page = await browser.open(f"{TEAMS}/")
    assert page.status == 403
    assert not stand.sent


@pytest.mark.parametrize(
    "groups",
    [
        ["alice@example.com"],
        ["example.com"],
        ["staff", "everybody"],
        ["Developers"],
        ["DEVELOPERS"],
        ["developers "],
        ["developers,admins"],
        "admins,developers",
        "developers admins",
        ["developers\n"],
        ["developers\x00"],
        ["one/developers"],
        ["devel\u043epers"],
        ["*"],
        ["role:developers"],
    ],
    ids=shown,
)
async def test_j6_a_group_named_like_something_else_is_only_a_group(
    stand: Stand, groups: Any
) -> None:
    browser, page = await attempt(
        stand, f"{TEAMS}/", sub="j6", email="j6@example.com", groups=groups
    )
    assert page.status == 403
    assert not await stand.sees(browser, f"{APP1}/")
    assert not stand.sent


MISTAKES: dict[str, dict[str, Any]] = {
    "unknown-key": {"roles": [{"name": "r", "member": [], "bindings": []}]},
    "unknown-top-level": {"allow_all": True},
    "empty-permission": {"backends": "empty-locations"},
    "unknown-backend": {
        "roles": [{"name": "r", "members": [{"user": "a@example.com"}],
                   "bindings": [{"backend": "app9", "permission": "all"}]}]},
    "unknown-permission": {
        "roles": [{"name": "r", "members": [{"user": "a@example.com"}],
                   "bindings": [{"backend": "app1", "permission": "al"}]}]},
    "no-permission": {
        "roles": [{"name": "r", "members": [{"user": "a@example.com"}],
                   "bindings": [{"backend": "app1"}]}]},
    "boolean-user": {"roles": [{"name": "r", "members": [{"user": False}], "bindings": []}]},
    "two-kinds-of-member": {
        "roles": [{"name": "r", "members": [{"user": "a@example.com", "group": "x"}],
                   "bindings": []}]},
    "star": {"roles": [{"name": "r", "members": [{"user": "*"}], "bindings": []}]},
    "empty-domains": {"identity": "empty-domains"},
}  # fmt: skip


@pytest.mark.parametrize(("name", "keys"), MISTAKES.items(), ids=MISTAKES)
async def test_j7_a_mistake_keeps_the_old_rules(
    stand: Stand, name: str, keys: dict[str, Any]
) -> None:
    browser = await stand.signed_in()
    nobody = await stand.signed_in("mallory", f"{APP2}/")
    document = dict(stand.heim.document)
    changed = dict(keys)
    if keys.get("backends") == "empty-locations":
        first, *rest = document["backends"]
        changed["backends"] = [{**first, "permissions": [{"name": "all", "locations": []}]}, *rest]
    if keys.get("identity") == "empty-domains":
        (one,) = document["identity"]["providers"]
        changed["identity"] = {"providers": [{**one, "domains": []}]}
    generation = stand.heim.generation
    try:
        stand.heim.document = {**document, **changed}
        stand.heim.write()
        stand.heim.proxy._reloader.look()
        await stand.heim.until(lambda: stand.heim.proxy._reloader.status.last_error is not None)
        assert stand.heim.generation == generation
        assert await stand.sees(browser)
        assert not await stand.sees(nobody)
    finally:
        stand.heim.document = document
        stand.heim.write()
        stand.heim.proxy._reloader.look()
        await stand.heim.until(lambda: stand.heim.proxy._reloader.status.last_error is None)


class Broken:
    """Grants that cannot be asked."""

    def decide(self, *_: object) -> object:
        raise RuntimeError("broken on purpose")


def damaged() -> Grants:
    """Real grants whose rules cannot be read."""
    grants = Grants((), frozenset({"app1"}))
    grants._backends = None  # type: ignore[assignment]
    return grants


@pytest.mark.parametrize(
    ("made", "status"), [(Broken, 500), (damaged, 403)], ids=["around-policy", "inside-policy"]
)
async def test_j8_a_decision_that_cannot_be_made_is_a_refusal_and_is_counted(
    stand: Stand, made: Callable[[], Any], status: int
) -> None:
    browser = await stand.signed_in("bob", f"{APP1}/public")
    session = max(stand.sessions._resident, key=lambda one: one.created)
    assert session.subject.email == "bob@example.com"
    metrics = stand.heim.proxy._metrics
    counters = (metrics.rejected, metrics.denied)
    before = sum(sum(dict(counter.read()).values()) for counter in counters)
    stand.sent.clear()
    good, session.grants = session.grants, made()
    for url in (f"{APP1}/public", f"{APP1}/public/x", f"{APP1}/"):
        page = await browser.get(url)
        assert page.status == status
        assert "broken on purpose" not in page.text
        assert str(page.get("x-request-id")) in page.text
    assert not stand.sent
    after = sum(sum(dict(counter.read()).values()) for counter in counters)
    assert after - before >= 3
    session.grants = good
    assert await stand.sees(browser, f"{APP1}/public")


async def test_j10_explain_says_what_the_proxy_does(stand: Stand) -> None:
    """Random requests over the wire against `heim-proxy explain` on the same file."""
    dice = random.Random(20)
    config = load_file(stand.heim.config_file)
    segments = ["public", "admin", "..", ".", "", "x", "%2e%2e", "publicity", "%70ublic", "a;b"]
    people = {}
    for name in ("alice", "bob", "mallory"):
        groups = tuple(stand.idp.users[name]["groups"])
        who = user(name, groups=groups, issuer=stand.idp.issuer)
        session = await stand.sessions.create(
            Subject(who.kind, who.issuer, who.subject, "one", email=who.email, domain=who.domain,
                    groups=who.groups),
            auth_time=stand.clock.now(), tokens=b"", now=stand.clock.now(),
        )  # fmt: skip
        people[name] = session
    browser = stand.browser()
    allowed = refused = 0
    for _ in range(300):
        name = dice.choice(list(people))
        origin = dice.choice([APP1, APP2, TEAMS, STRICT, OPEN])
        method = dice.choice(["GET", "HEAD", "POST", "DELETE", "PATCH", "OPTIONS", "PURGE"])
        path = "/" + "/".join(dice.choices(segments, k=dice.randint(1, 4)))
        line = stand.sessions.cookie_for(people[name], host_of(origin), stand.clock.now())
        page = await browser.send(
            method, f"{origin}{path}", cookies=line.split(";")[0], headers=(("Origin", origin),)
        )
        told = explain_request(config, people[name].subject, method, f"{origin}{path}")
        assert (page.status == 200) is told.allowed, (name, method, origin, path, told.lines)
        allowed += page.status == 200
        refused += page.status != 200
    assert allowed > 40
    assert refused > 40


async def test_j11_break_glass_is_an_event_of_its_own(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        members = [{"user": "bob@example.com"}]
        role = {"name": "emergency", "break_glass": True, "members": members}
        await stand.change(roles=[*stand.heim.document["roles"], role])
        browser = await stand.signed_in("bob", f"{APP1}/public")
        assert "access.break_glass" not in stand.audit.events, "an ordinary rule was enough"
        assert await stand.sees(browser, f"{APP1}/admin")
        (event,) = stand.audit.of("access.break_glass")
        assert event["user"] == "bob@example.com"
        assert event["backend"] == "app1"


async def test_j11_a_refusal_is_an_event_with_who_and_why(stand: Stand) -> None:
    browser = await stand.signed_in("bob", f"{APP1}/public")
    page = await browser.get(f"{APP1}/admin")
    (event,) = stand.audit.of("request.denied")
    assert event["user"] == "bob@example.com"
    assert event["reason"] == "no_permission"
    assert event["request_id"] == page.get("x-request-id")
