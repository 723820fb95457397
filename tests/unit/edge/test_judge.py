from __future__ import annotations

import asyncio
import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import pytest

from heim_proxy.edge.head import BadRequest, RequestHead
from heim_proxy.edge.judge import (
    Client,
    Forward,
    Judge,
    LoadSession,
    Portal,
    Redirect,
    Verdict,
    is_navigation,
    valid_until,
)
from heim_proxy.edge.origin import Preflight
from heim_proxy.edge.responses import Refusal
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Session
from heim_proxy.live import EndReason
from heim_proxy.routing import Backend
from heim_proxy.target import canonicalise
from tests.fakes.sessions import ALICE, BOB, Stage, ring
from tests.fakes.snapshots import app, configured, role, snapshot
from tests.unit.edge.heads import HOST, parsed

OWN = f"Origin: https://{HOST}"
UPSTREAM = "http://127.0.0.1:3000"
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
PAGE = ("Accept: text/html,*/*",)
HTTPS = Client("203.0.113.9", secure=True, sni=HOST)
HTTP = Client("203.0.113.9", secure=False)


def cookie_line(session: Session | None, stage: Stage, host: str = HOST) -> tuple[str, ...]:
    if session is None:
        return ()
    return (f"Cookie: a=1; __Host-heim={stage.cookie(session, host).decode()}; b=2",)


@dataclass
class Court:
    """A judge over hand-made backends, with alice signed in; only she has the role."""

    stage: Stage
    judge: Judge
    alice: Session
    bob: Session
    ring: KeyRing

    @classmethod
    async def open(
        cls, *backends: dict[str, Any], roles: list[dict[str, Any]] | None = None, **keys: Any
    ) -> Court:
        made = list(backends) or [app()]
        if roles is None:
            bindings = [f"{one['name']}/all" for one in made if one.get("permissions")]
            roles = [role("everything", *bindings)] if bindings else []
        keys_ring = ring("k1")
        stage = await Stage.up(lifetime=86400.0, idle=36000.0, sealer=Sealer(keys_ring))
        built = snapshot(configured(made, roles, **keys))
        judge = Judge(built, stage.sessions)
        alice, bob = await stage.sign_in(ALICE), await stage.sign_in(BOB)
        return cls(stage, judge, alice, bob, keys_ring)

    def head(
        self, target: str = "/", *, who: Session | None = None, host: str = HOST, **keys: Any
    ) -> RequestHead:
        name = host.partition(":")[0].rstrip(".").lower()
        headers = (*keys.pop("headers", ()), *cookie_line(who, self.stage, name))
        return parsed(target, host=host, headers=headers, **keys)

    def ask(self, target: str = "/", *, client: Client = HTTPS, **keys: Any) -> Verdict:
        return self.judge.judge(self.head(target, **keys), client, self.stage.now)

    def allowed(self, target: str = "/", **keys: Any) -> Forward:
        verdict = self.ask(target, **{"who": self.alice, **keys})
        assert isinstance(verdict, Forward), verdict
        return verdict

    def refused(self, target: str = "/", **keys: Any) -> tuple[int, str]:
        verdict = self.ask(target, **keys)
        assert isinstance(verdict, Refusal), verdict
        return verdict.status, verdict.code


class TestHosts:
    @pytest.mark.parametrize(
        "host", [HOST, HOST.upper(), f"{HOST}.", f"{HOST}:443", f"{HOST}:8443", f"{HOST}.:443"]
    )
    async def test_every_spelling_of_a_host_is_one_route_and_one_policy(self, host: str) -> None:
        court = await Court.open()
        assert court.allowed(host=host).host == HOST
        assert court.refused(host=host, who=court.bob) == (403, "no_role")
        # Remembered spellings are judged like new ones.
        assert court.refused(host=host, who=court.bob) == (403, "no_role")

    @pytest.mark.parametrize(
        "host",
        ["app.example.test@evil", "app.example.test/", "app .example.test", "[::1", "a" * 300],
    )
    async def test_a_host_that_is_none_is_a_bad_request(self, host: str) -> None:
        court = await Court.open()
        with pytest.raises(BadRequest) as caught:
            court.ask(host=host)
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        ("client", "answer"),
        [
            pytest.param(
                Client("203.0.113.9", secure=True, sni="unknown.example.test"),
                (404, "not_found"), id="SNI is the same",
            ),
            pytest.param(Client("203.0.113.9", secure=True, sni=""), (404, "not_found"), id="D5"),
            pytest.param(HTTPS, (421, "misdirected"), id="SNI of another host"),
            pytest.param(HTTP, (404, "not_found"), id="plain http"),
        ],
    )  # fmt: skip
    async def test_an_unknown_host_is_told_nothing(
        self, client: Client, answer: tuple[int, str]
    ) -> None:
        court = await Court.open()
        assert court.refused(host="unknown.example.test", client=client) == answer
        assert court.refused(host="a.b.example.test", client=client)[0] in (404, 421)

    async def test_a_known_host_is_served_whatever_the_handshake_asked_for(self) -> None:
        court = await Court.open(app(), app("other"))
        for sni in (HOST, "other.example.test", "", None):
            court.allowed(client=Client("203.0.113.9", secure=True, sni=sni))

    async def test_a_wildcard_covers_one_label_and_exact_beats_it(self) -> None:
        court = await Court.open(app(host="*.example.test"), app("one", host="one.example.test"))
        assert court.allowed(host="one.example.test").route.backend.name == "one"
        assert court.allowed(host="two.example.test").route.backend.name == "app"
        sni = Client("203.0.113.9", secure=True, sni="")
        assert court.refused(host="example.test", client=sni) == (404, "not_found")
        assert court.refused(host="a.b.example.test", client=sni) == (404, "not_found")

    async def test_a_path_without_a_route_is_not_found_before_anybody_is_asked_who(self) -> None:
        court = await Court.open(app(http=[{"path": "/api", "upstream": UPSTREAM}]))
        assert court.refused("/") == (404, "not_found")
        assert court.refused("/apis", who=court.alice) == (404, "not_found")
        assert court.allowed("/api/x").path == b"/api/x"

    async def test_hosts_that_clients_spell_oddly_do_not_fill_memory(self) -> None:
        court = await Court.open()
        for mask in range(5_000):
            spelled = "".join(
                letter.upper() if mask >> index & 1 else letter for index, letter in enumerate(HOST)
            )
            court.ask(host=spelled)
            court.ask(host=f"h{mask}.example.test", client=HTTP)
        assert len(court.judge._hosts) <= 4096


class TestPlainHttp:
    @pytest.mark.parametrize(
        ("host", "target", "location"),
        [
            (HOST, "/a?b=c", f"https://{HOST}:8443/a?b=c"),
            (HOST.upper() + ":80", "/", f"https://{HOST}:8443/"),
            (HOST, "/x/../y", f"https://{HOST}:8443/y"),
            ("auth.example.test", "/.heim/login", "https://auth.example.test:8443/.heim/login"),
            ("open.example.test", "/", "https://open.example.test:8443/"),
            ("free.example.test", "/.heim/login", "https://free.example.test:8443/.heim/login"),
            (HOST, "//evil.test", f"https://{HOST}:8443/evil.test"),
            (HOST, "/@evil.test", f"https://{HOST}:8443/@evil.test"),
        ],
    )
    async def test_everything_moves_to_https(self, host: str, target: str, location: str) -> None:
        court = await Court.open(
            app(), app("open", public=True), app("free", public=True, allow_http=True),
            public_port=8443,
        )  # fmt: skip
        verdict = court.ask(target, host=host, client=HTTP)
        assert verdict == Redirect(308, location, decision="https")

    async def test_a_session_is_worth_nothing_on_http(self) -> None:
        court = await Court.open()
        verdict = court.ask(who=court.alice, client=HTTP)
        assert isinstance(verdict, Redirect)
        assert verdict.status == 308

    async def test_a_public_backend_that_allows_it_is_served(self) -> None:
        court = await Court.open(app(public=True, allow_http=True))
        verdict = court.ask("/x", client=HTTP)
        assert isinstance(verdict, Forward)
        assert (verdict.path, verdict.identity, verdict.session) == (b"/x", b"", None)

    async def test_what_such_a_host_has_not_is_not_looked_for_on_https(self) -> None:
        court = await Court.open(
            app(public=True, allow_http=True, http=[{"path": "/a", "upstream": "http://u.test"}]),
            app("mixed", public=True, http=[{"path": "/a", "upstream": "http://u.test"}]),
        )
        verdict = court.ask("/b", client=HTTP)
        assert isinstance(verdict, Refusal)
        assert verdict.status == 404
        verdict = court.ask("/b", host="mixed.example.test", client=HTTP)
        assert isinstance(verdict, Redirect)

    @pytest.mark.parametrize("protocol", ["h2c", "websocket", "x"])
    async def test_upgrades_are_checked_there_too(self, protocol: str) -> None:
        court = await Court.open(app(public=True, allow_http=True))
        head = court.head(headers=("Connection: Upgrade", f"Upgrade: {protocol}"))
        verdict = court.judge.judge(head, HTTP, court.stage.now)
        if protocol == "websocket":
            assert isinstance(verdict, Refusal)
        else:
            assert isinstance(verdict, Forward)
            assert head.upgrade is None

    async def test_preflights_are_answered_there_too(self) -> None:
        court = await Court.open(
            app(public=True, allow_http=True, cors={"allow_origins": ["https://a.test"]})
        )
        headers = ("Origin: https://a.test", "Access-Control-Request-Method: GET")
        assert isinstance(court.ask(method="OPTIONS", headers=headers, client=HTTP), Preflight)


class TestReservedPrefix:
    @pytest.mark.parametrize("target", ["/.heim", "/.heim/", "/.heim/login", "/%2eheim/me",
                                        "/x/../.heim/me", "//.heim/me"])  # fmt: skip
    async def test_it_is_heims_on_every_host(self, target: str) -> None:
        court = await Court.open(app(), app("open", public=True))
        for host, backend in ((HOST, "app"), ("open.example.test", "open")):
            verdict = court.ask(target, host=host, client=Client("::1", secure=True, sni=host))
            assert verdict == Portal(host, backend)

    @pytest.mark.parametrize("target", ["/.heimdall", "/.heim.txt", "/a/.heim/me", "/.HEIM/me"])
    async def test_names_that_look_like_it_are_the_backends(self, target: str) -> None:
        court = await Court.open()
        court.allowed(target)

    @pytest.mark.parametrize("target", ["/.heim/../admin", "/.heim/%2e%2e/admin"])
    async def test_climbing_out_of_it_is_judged_where_it_ends(self, target: str) -> None:
        court = await Court.open()
        assert court.refused(target) == (401, "sign_in_required")
        assert court.allowed(target).path == b"/admin"

    @pytest.mark.parametrize(
        "target", ["/.heim%2flogin", "/.heim/login;x", "/.heim/a%26b", "/.heim;x/me", "/;/.heim/me"]
    )
    async def test_paths_with_two_readings_are_refused_there(self, target: str) -> None:
        court = await Court.open()
        assert court.refused(target, who=court.alice) == (400, "ambiguous_path")

    async def test_the_whole_login_host_is_heims(self) -> None:
        court = await Court.open()
        sni = Client("::1", secure=True, sni="auth.example.test")
        for target in ("/", "/anything", "/.heim/login"):
            assert court.ask(target, host="auth.example.test", client=sni) == Portal(
                "auth.example.test", None
            )

    async def test_whoever_asks_the_portal_finds_out_by_itself_who_is_asking(self) -> None:
        court = await Court.open()
        assert court.ask("/.heim/me", who=court.alice) == Portal(HOST, "app")

    async def test_a_host_with_only_exact_paths_still_has_a_backend(self) -> None:
        http = [{"path": "/x", "match": "exact", "upstream": UPSTREAM}]
        court = await Court.open(app(http=http))
        assert court.ask("/.heim/me") == Portal(HOST, "app")


class TestAnonymous:
    async def test_people_are_sent_to_sign_in(self) -> None:
        court = await Court.open(public_port=8443)
        verdict = court.ask("/x?y=1", headers=PAGE)
        assert isinstance(verdict, Redirect)
        assert (verdict.status, verdict.decision, verdict.backend) == (303, "anonymous", "app")
        start = f"https://auth.example.test:8443/.heim/login?host={HOST}&rd=/x%3Fy%3D1&h="
        assert verdict.location.startswith(start)
        (cookie,) = verdict.set_cookies
        assert cookie.startswith("__Host-heim-flow-")

    async def test_programs_are_told_to(self) -> None:
        court = await Court.open()
        verdict = court.ask("/x")
        assert isinstance(verdict, Refusal)
        assert (verdict.status, verdict.code) == (401, "sign_in_required")
        assert list(verdict.headers) == ['WWW-Authenticate: Heim realm="app"']
        assert verdict.detail == "nothing was sent to app: it needs a signed-in user"

    async def test_a_form_of_somebody_whose_session_ended_is_told_where_to_sign_in(self) -> None:
        court = await Court.open(
            app(http=[{"path": "/a%20b", "upstream": "http://127.0.0.1:3000"}])
        )
        posted = ("Accept: text/html", "Sec-Fetch-Mode: navigate", "Cookie: __Host-heim=old")
        verdict = court.ask("/a%20b/delete?id=1", method="POST", headers=posted)
        assert isinstance(verdict, Refusal)
        ended = "nothing was sent to app: your session has ended, or is too old"
        assert (verdict.status, verdict.detail) == (401, ended)
        # Where the route begins, by GET: what was posted to need not be a page.
        assert verdict.login_url == f"https://{HOST}/.heim/login?rd=/a%2520b"

    @pytest.mark.parametrize("headers", [PAGE, ()], ids=["page", "program"])
    async def test_a_worthless_cookie_is_cleared(self, headers: tuple[str, ...]) -> None:
        court = await Court.open()
        for value in ("", "garbage", "A" * 700, "x=y"):
            verdict = court.ask(headers=(*headers, f"Cookie: __Host-heim={value}"))
            lines = verdict.set_cookies if isinstance(verdict, Redirect) else verdict.headers  # type: ignore[union-attr]
            assert any("__Host-heim=; Max-Age=0" in line for line in lines)

    async def test_two_session_cookies_are_none(self) -> None:
        court = await Court.open()
        value = court.stage.cookie(court.alice, HOST).decode()
        headers = (f"Cookie: __Host-heim={value}; __Host-heim={value}",)
        assert court.refused(headers=headers) == (401, "sign_in_required")

    async def test_a_cookie_of_another_host_is_worthless(self) -> None:
        court = await Court.open()
        stolen = cookie_line(court.alice, court.stage, "other.example.test")
        assert court.refused(headers=stolen) == (401, "sign_in_required")

    async def test_old_flow_cookies_are_cleared(self) -> None:
        court = await Court.open()
        flows = "; ".join(f"__Host-heim-flow-{index:020x}=n" for index in range(8))
        verdict = court.ask(headers=(*PAGE, f"Cookie: {flows}"))
        assert isinstance(verdict, Redirect)
        assert sum("Max-Age=0" in line for line in verdict.set_cookies) == 4

    @pytest.mark.parametrize(
        ("method", "headers", "navigates"),
        [
            ("GET", ("Accept: text/html",), True),
            ("HEAD", ("Accept: text/html",), True),
            ("POST", ("Accept: text/html",), False),
            ("GET", (), False),
            ("GET", ("Accept: application/json",), False),
            ("GET", ("Accept: TEXT/HTML",), True),
            ("GET", ("Accept: text/html", "X-Requested-With: XMLHttpRequest"), False),
            ("GET", ("Accept: text/html", "Sec-Fetch-Mode: cors"), False),
            ("GET", ("Sec-Fetch-Mode: navigate",), True),
            ("GET", ("Sec-Fetch-Mode: navigate", "Sec-Purpose: prefetch;prerender"), False),
            ("GET", ("Accept: text/html", "Purpose: prefetch"), False),
            ("GET", ("Accept: text/html", "Connection: upgrade", "Upgrade: websocket"), False),
        ],
    )
    def test_only_navigations_start_a_login(
        self, method: str, headers: tuple[str, ...], navigates: bool
    ) -> None:
        assert is_navigation(parsed(method=method, headers=headers)) is navigates


class TestSessions:
    async def test_a_session_that_is_not_in_memory_is_asked_for(self) -> None:
        court = await Court.open()
        after = await court.stage.restarted()
        court.judge = Judge(court.judge.snapshot, after.sessions)
        cookie = court.stage.cookie(court.alice, HOST)
        headers = (f"Cookie: __Host-heim={cookie.decode()}",)
        assert court.ask(headers=headers) == LoadSession(HOST, cookie)
        assert court.ask("/.heim/me", headers=headers) == Portal(HOST, "app")
        loaded = await after.sessions.load(HOST, cookie, court.stage.now)
        assert loaded is not None
        assert court.allowed(who=None, headers=headers).session is loaded

    async def test_a_session_that_ended_is_anonymous(self) -> None:
        court = await Court.open()
        headers = cookie_line(court.alice, court.stage)
        court.allowed(who=None, headers=headers)
        await court.stage.sessions.end(court.alice.sid, EndReason.LOGOUT, court.stage.now)
        assert court.refused(headers=headers) == (401, "sign_in_required")
        # A cookie of it that has not been seen yet takes one look at the store.
        headers = cookie_line(court.alice, court.stage)
        verdict = court.ask(headers=headers)
        assert isinstance(verdict, LoadSession)
        loaded = await court.stage.sessions.load(HOST, verdict.cookie, court.stage.now)
        assert loaded is None
        # What `Front` does with that answer: judge again without the cookie.
        head = parsed(headers=headers)
        head.cookies = head.cookies.without_session()
        verdict = court.judge.judge(head, HTTPS, court.stage.now)
        assert isinstance(verdict, Refusal)
        assert verdict.code == "sign_in_required"
        assert any("Max-Age=0" in line for line in verdict.headers)

    async def test_a_backend_may_want_a_fresh_sign_in(self) -> None:
        court = await Court.open(app(max_session_age="10m"), app("other"))
        other = Client("::1", secure=True, sni="other.example.test")
        court.stage.clock.time += 600.0
        court.allowed()
        court.stage.clock.time += 1.0
        assert court.refused(who=court.alice) == (401, "sign_in_required")
        assert isinstance(court.ask(who=court.alice, headers=PAGE), Redirect)
        court.allowed(host="other.example.test", client=other)

    async def test_a_cookie_of_an_old_key_is_renewed(self) -> None:
        court = await Court.open()
        headers = cookie_line(court.alice, court.stage)
        assert court.allowed(who=None, headers=headers).answer_headers == b""
        old, new = court.ring, ring("k2")
        court.stage.sessions.set_keys(KeyRing([new.first, old.first]))
        lines = court.allowed(who=None, headers=headers).answer_headers
        assert lines.startswith(b"Set-Cookie: __Host-heim=")
        assert lines.count(b"\r\n") == 1
        assert lines.endswith(b"\r\n")
        assert court.allowed().answer_headers == b""

    @pytest.mark.parametrize(("age", "until"), [(None, 86400.0), (600.0, 600.0), (1e9, 86400.0)])
    async def test_a_decision_stands_as_long_as_session_and_backend_let_it(
        self, age: float | None, until: float
    ) -> None:
        court = await Court.open()
        backend = Backend("app", max_session_age=age)
        assert valid_until(court.alice, backend) == court.stage.now + until

    def test_a_public_decision_stands_for_ever(self) -> None:
        assert valid_until(None, Backend("app")) == float("inf")


class TestForwarding:
    async def test_an_allowed_request_says_who_asks_and_why(self) -> None:
        court = await Court.open()
        verdict = court.allowed("/x?y", who=court.alice)
        assert verdict.session is court.alice
        assert verdict.allow.rule == "role everything: app/all any /"
        assert verdict.path == b"/x?y"
        assert verdict.host == HOST
        assert b"X-Auth-Id: alice@example.test\r\n" in verdict.identity
        assert verdict.answer_headers == b""

    async def test_dialects_are_the_backends(self) -> None:
        court = await Court.open(app(identity_headers=["forwarded"]))
        identity = court.allowed().identity
        assert identity.startswith(b"X-Forwarded-User: ")
        assert b"X-Auth" not in identity

    async def test_a_public_backend_gets_everybody_and_no_identity(self) -> None:
        court = await Court.open(app(public=True))
        for who in (None, court.alice, court.bob):
            verdict = court.ask("/x", who=who, method="POST")
            assert isinstance(verdict, Forward)
            assert (verdict.session, verdict.identity) == (None, b"")
            assert verdict.allow.public

    async def test_a_refusal_names_the_reason_and_the_person(self) -> None:
        permissions = [{"name": "read", "locations": [{"get": "/docs"}]}]
        court = await Court.open(app(permissions=permissions), roles=[role("reader", "app/read")])
        verdict = court.ask("/admin", who=court.alice)
        assert isinstance(verdict, Refusal)
        assert (verdict.status, verdict.code, verdict.user) == (
            403, "no_permission", "alice@example.test",
        )  # fmt: skip
        assert "reader" in verdict.detail
        court.allowed("/docs")
        court.allowed("/docs", method="HEAD")
        assert court.refused("/docs", method="POST", headers=(OWN,), who=court.alice)[0] == 403

    async def test_the_wire_method_is_judged(self) -> None:
        permissions = [{"name": "read", "locations": [{"get": "/"}]}]
        court = await Court.open(app(permissions=permissions), roles=[role("reader", "app/read")])
        override = ("X-HTTP-Method-Override: GET", OWN)
        assert court.refused(method="DELETE", headers=override, who=court.alice)[0] == 403

    async def test_a_prefix_is_stripped_from_what_was_judged(self) -> None:
        http = [{"path": "/api", "upstream": UPSTREAM, "strip_prefix": True}]
        court = await Court.open(app(http=http))
        assert court.allowed("/api/x?y").path == b"/x?y"
        assert court.allowed("/api").path == b"/"
        assert court.allowed("/api/../api/%61").path == b"/a"
        for target in ("/api/../admin", "/api/%2e%2e/admin"):
            assert court.refused(target, who=court.alice) == (404, "not_found")


VIEWS = [{"name": "part", "locations": [{"any": "/open"}]}]
PARTLY = [role("part", "app/part")]


class TestViewsOfAPath:
    @pytest.mark.parametrize(
        ("target", "answer"),
        [
            pytest.param("/open/x", 0, id="plain"),
            pytest.param("/admin", 403, id="plain refused"),
            pytest.param("/open/../admin", 403, id="C1"),
            pytest.param("/open/%2e%2e/admin", 403, id="C2"),
            pytest.param("/open%2fx", 400, id="encoded slash"),
            pytest.param("/open/..%2fadmin", 403, id="C4 refused where it leads"),
            pytest.param("/admin/..%2fopen", 400, id="encoded slash that leads in"),
            pytest.param("/open;x=1", 403, id="C9 only the looser reading is covered"),
            pytest.param("/open/a;x=1", 0, id="C9 both readings covered"),
            pytest.param("/;/open", 403, id="C9 only the looser reading"),
            pytest.param("/open/;/../admin", 0, id="C9 climbs out of its own segment"),
            pytest.param("/open%3Bx/y", 403, id="C9 encoded"),
            pytest.param("/open/a%26b", 0, id="encoded sub-delimiter"),
        ],
    )
    async def test_every_reading_must_be_allowed(self, target: str, answer: int) -> None:
        court = await Court.open(app(permissions=VIEWS), roles=PARTLY)
        verdict = court.ask(target, who=court.alice)
        assert (verdict.status if isinstance(verdict, Refusal) else 0) == answer

    @pytest.mark.parametrize(
        ("target", "path"),
        [
            pytest.param("/open/a%2Fb?c=%2f", b"/open/a%2Fb?c=%2f", id="C28 bytes unchanged"),
            pytest.param("/open/%61//b/./c", b"/open/%61//b/./c", id="spelling unchanged"),
            pytest.param("/open/../open/x", b"/open/../open/x", id="both views inside"),
            pytest.param("/admin", None, id="refused"),
            pytest.param("/open/..%2fadmin", None, id="canonical view outside"),
            pytest.param("/admin/../open", None, id="raw view outside"),
            pytest.param("/admin/..%2fopen", None, id="raw view outside, encoded"),
            pytest.param("//open/x", None, id="raw view begins elsewhere"),
            pytest.param("/%6fpen/x", None, id="raw view is spelled otherwise"),
        ],
    )
    async def test_raw_bytes_pass_when_both_views_are_allowed(
        self, target: str, path: bytes | None
    ) -> None:
        court = await Court.open(app(permissions=VIEWS, forward_path="raw"), roles=PARTLY)
        verdict = court.ask(target, who=court.alice)
        assert (verdict.path if isinstance(verdict, Forward) else None) == path

    @pytest.mark.parametrize("target", ["/a;b", "/%2f/a", "/x;/../a", "/b;/a"])
    @pytest.mark.parametrize("public", [True, False])
    async def test_two_readings_must_lead_to_one_route(self, target: str, public: bool) -> None:
        http = [{"path": "/", "upstream": UPSTREAM}, {"path": "/a", "upstream": UPSTREAM}]
        court = await Court.open(app(http=http, public=public))
        verdict = court.ask(target, who=None if public else court.alice)
        if target == "/x;/../a":
            assert isinstance(verdict, Forward)
            assert verdict.path == b"/a"
        elif target == "/b;/a":
            assert isinstance(verdict, Forward)
        else:
            assert isinstance(verdict, Refusal)
            assert verdict.code == "ambiguous_path"

    async def test_raw_and_strip_prefix_agree_on_what_is_stripped(self) -> None:
        http = [{"path": "/api", "upstream": UPSTREAM, "strip_prefix": True}]
        court = await Court.open(app(http=http, forward_path="raw", public=True))
        verdict = court.ask("/api/a%2Fb")
        assert isinstance(verdict, Forward)
        assert verdict.path == b"/a%2Fb"
        for target in ("/%61pi/x", "//api/x", "/x/../api/y"):
            assert court.refused(target) == (400, "ambiguous_path")


class TestOrigins:
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
    async def test_unsafe_methods_of_other_pages_are_refused(self, method: str) -> None:
        court = await Court.open()
        evil = ("Origin: https://evil.test",)
        assert court.refused(method=method, headers=evil, who=court.alice) == (
            403, "foreign_origin",
        )  # fmt: skip
        court.allowed(method=method, headers=(OWN,))

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    async def test_safe_methods_are_not(self, method: str) -> None:
        court = await Court.open()
        court.allowed(method=method, headers=("Origin: https://evil.test",))

    async def test_the_own_origin_has_the_public_port(self) -> None:
        court = await Court.open(public_port=8443)
        court.allowed(method="POST", headers=(f"Origin: https://{HOST}:8443",))
        assert court.refused(method="POST", headers=(OWN,), who=court.alice)[0] == 403

    async def test_who_it_is_comes_before_where_from(self) -> None:
        court = await Court.open()
        evil = ("Origin: https://evil.test",)
        assert court.refused(method="POST", headers=evil) == (401, "sign_in_required")

    async def test_a_preflight_needs_no_session_and_any_other_options_does(self) -> None:
        cors = {"allow_origins": ["https://friend.test"], "allow_methods": ["PUT"]}
        court = await Court.open(app(cors=cors))
        asks = ("Origin: https://friend.test", "Access-Control-Request-Method: PUT")
        assert isinstance(court.ask(method="OPTIONS", headers=asks), Preflight)
        assert court.refused(method="OPTIONS", headers=asks[:1]) == (401, "sign_in_required")
        evil = ("Origin: https://evil.test", asks[1])
        assert court.refused(method="OPTIONS", headers=evil) == (403, "cors_refused")

    async def test_refusals_and_answers_can_be_read_by_listed_origins(self) -> None:
        court = await Court.open(app(cors={"allow_origins": ["https://friend.test"]}))
        friend = ("Origin: https://friend.test",)
        verdict = court.ask(headers=friend)
        assert isinstance(verdict, Refusal)
        assert "Access-Control-Allow-Origin: https://friend.test" in verdict.headers
        denied = court.ask(headers=friend, who=court.bob)
        assert isinstance(denied, Refusal)
        assert "Access-Control-Allow-Origin: https://friend.test" in denied.headers
        answer = court.allowed(headers=friend).answer_headers
        assert b"Access-Control-Allow-Origin: https://friend.test\r\n" in answer


class TestUpgrades:
    async def test_a_websocket_of_its_own_page_passes(self) -> None:
        court = await Court.open()
        head = court.head(headers=(*WEBSOCKET, OWN), who=court.alice)
        assert isinstance(court.judge.judge(head, HTTPS, court.stage.now), Forward)
        assert head.upgrade == b"websocket"

    @pytest.mark.parametrize(
        ("changed", "answer"),
        [
            pytest.param({"Sec-WebSocket-Key": None}, (400, "bad_request"), id="no key"),
            pytest.param({"Sec-WebSocket-Key": "short"}, (400, "bad_request"), id="short key"),
            pytest.param(
                {"Sec-WebSocket-Key": "A" * 24}, (400, "bad_request"), id="key of another length"
            ),
            pytest.param(
                {"Sec-WebSocket-Version": "8"}, (426, "websocket_version"), id="old version"
            ),
            pytest.param(
                {"Sec-WebSocket-Version": None}, (426, "websocket_version"), id="no version"
            ),
            pytest.param({"Origin": None}, (403, "foreign_origin"), id="no origin"),
            pytest.param({"Origin": "https://evil.test"}, (403, "foreign_origin"), id="N1"),
            pytest.param({"Content-Length": "5"}, (400, "bad_request"), id="body"),
            pytest.param({"Upgrade": "websocket, h2c"}, (0, ""), id="two protocols: none"),
            pytest.param({"Upgrade": "h2c"}, (0, ""), id="F17 h2c: none"),
            pytest.param({"Connection": "keep-alive"}, (0, ""), id="not asked for"),
        ],
    )
    async def test_a_handshake_is_checked_before_it_is_forwarded(
        self, changed: dict[str, str | None], answer: tuple[int, str]
    ) -> None:
        court = await Court.open()
        lines: dict[str, str | None] = {}
        for line in (*WEBSOCKET, OWN):
            name, _, value = line.partition(": ")
            lines[name] = value
        lines.update(changed)
        headers = tuple(f"{name}: {value}" for name, value in lines.items() if value is not None)
        head = court.head(headers=headers, who=court.alice)
        verdict = court.judge.judge(head, HTTPS, court.stage.now)
        if answer[0]:
            assert isinstance(verdict, Refusal)
            assert (verdict.status, verdict.code) == answer
        else:
            assert isinstance(verdict, Forward)
            assert head.upgrade is None

    async def test_a_websocket_of_http_1_0_or_post_is_none(self) -> None:
        court = await Court.open()
        old = court.head(headers=(*WEBSOCKET, OWN), who=court.alice, version="HTTP/1.0")
        assert isinstance(court.judge.judge(old, HTTPS, court.stage.now), Forward)
        assert old.upgrade is None
        assert court.refused(method="POST", headers=(*WEBSOCKET, OWN), who=court.alice)[0] == 400

    async def test_a_backend_without_upgrades_sees_an_ordinary_request(self) -> None:
        court = await Court.open(app(upgrades=[]))
        head = court.head(headers=WEBSOCKET, who=court.alice)
        assert isinstance(court.judge.judge(head, HTTPS, court.stage.now), Forward)
        assert head.upgrade is None

    async def test_another_protocol_passes_as_configured(self) -> None:
        court = await Court.open(app(upgrades=["X-Proto"]))
        headers = ("Connection: Upgrade", "Upgrade: x-proto", OWN)
        head = court.head(headers=headers, who=court.alice)
        assert isinstance(court.judge.judge(head, HTTPS, court.stage.now), Forward)
        assert head.upgrade == b"x-proto"


class TestOrderAndFailure:
    async def test_nobody_learns_from_a_403_what_a_404_hides(self) -> None:
        court = await Court.open(app(http=[{"path": "/api", "upstream": UPSTREAM}]))
        order = [
            court.refused("/api", host="unknown.example.test")[0],
            court.refused("/none", who=court.bob)[0],
            court.refused("/api")[0],
            court.refused("/api", who=court.bob)[0],
        ]
        assert order == [421, 404, 401, 403]

    async def test_a_policy_that_fails_is_no_permission(self) -> None:
        court = await Court.open()

        class Broken:
            def grants(self, subject: object) -> object:
                raise RuntimeError("policy fell over")

        broken = dataclasses.replace(court.judge.snapshot, policy=Broken())  # type: ignore[arg-type]
        court.judge = Judge(broken, court.stage.sessions)
        court.alice.grants = None
        with pytest.raises(RuntimeError):
            court.ask(who=court.alice)

    async def test_grants_are_computed_once_per_session_and_snapshot(self) -> None:
        court = await Court.open()
        first = court.judge.grants(court.alice)
        assert court.judge.grants(court.alice) is first
        tighter = snapshot(configured([app()], []), generation=2)
        court.judge = Judge(tighter, court.stage.sessions)
        assert court.refused(who=court.alice) == (403, "no_role")
        assert court.judge.grants(court.alice) is not first


class TestReview:
    async def review(
        self,
        *backends: dict[str, Any],
        roles: Any = None,
        target: bytes = b"/a/x",
        method: bytes = b"GET",
    ) -> EndReason | None:
        """What a new configuration says to alice's exchange on /a/x of the old one."""
        court = await Court.open()
        verdict = court.allowed("/a/x")
        made = list(backends)
        if roles is None:
            roles = [role("r", *(f"{one['name']}/all" for one in made if one.get("permissions")))]
        new = snapshot(configured(made, roles), generation=2)
        judge = Judge(new, court.stage.sessions)
        return judge.review(verdict, method, HOST, canonicalise(target))

    async def test_what_is_still_allowed_goes_on(self) -> None:
        assert await self.review(app()) is None
        assert await self.review(app(public=True), roles=[]) is None

    async def test_what_is_not_ends(self) -> None:
        assert await self.review(app(), roles=[]) is EndReason.POLICY_CHANGED
        read = app(permissions=[{"name": "all", "locations": [{"get": "/b"}]}])
        assert await self.review(read) is EndReason.POLICY_CHANGED

    async def test_a_backend_that_is_gone_or_another_ends(self) -> None:
        assert await self.review(app("other")) is EndReason.BACKEND_REMOVED
        assert await self.review(app("other", host=HOST)) is EndReason.BACKEND_REMOVED
        elsewhere = app(http=[{"path": "/b", "upstream": UPSTREAM}])
        assert await self.review(elsewhere) is EndReason.BACKEND_REMOVED

    async def test_every_reading_is_reviewed(self) -> None:
        narrow = app(permissions=[{"name": "all", "locations": [{"any": "/a;b"}, {"any": "/x"}]}])
        assert await self.review(narrow, target=b"/a;b") is EndReason.POLICY_CHANGED
        assert await self.review(narrow, target=b"/x") is None

    async def test_an_exchange_of_a_public_backend_ends_when_it_is_public_no_more(self) -> None:
        court = await Court.open(app(public=True))
        verdict = court.ask("/x")
        assert isinstance(verdict, Forward)
        judge = Judge(snapshot(configured([app()]), generation=2), court.stage.sessions)
        reason = judge.review(verdict, b"GET", HOST, canonicalise(b"/x"))
        assert reason is EndReason.POLICY_CHANGED


def test_every_pair_of_checks_is_met_in_order() -> None:
    """The order of the docstring: host, route, upgrade, preflight, session, origin, policy."""

    async def first_of(wrong: set[str]) -> tuple[int, str]:
        court = await Court.open(app(http=[{"path": "/api", "upstream": UPSTREAM}]))
        headers = [*WEBSOCKET, OWN]
        if "upgrade" in wrong:
            headers[3] = "Sec-WebSocket-Version: 8"
        if "origin" in wrong:
            headers[4] = "Origin: https://evil.test"
        verdict = court.ask(
            "/none" if "route" in wrong else "/api",
            host="unknown.example.test" if "host" in wrong else HOST,
            who=None if "session" in wrong else court.bob if "policy" in wrong else court.alice,
            headers=tuple(headers),
        )
        assert isinstance(verdict, Refusal)
        return verdict.status, verdict.code

    answers = {
        "host": (421, "misdirected"),
        "route": (404, "not_found"),
        "upgrade": (426, "websocket_version"),
        "session": (401, "sign_in_required"),
        "origin": (403, "foreign_origin"),
        "policy": (403, "no_role"),
    }

    async def every_pair() -> None:
        for earlier, later in itertools.combinations(answers, 2):
            assert await first_of({earlier, later}) == answers[earlier]
            assert await first_of({later}) == answers[later]

    asyncio.run(every_pair())


class TestRawPathsWithoutTheirPrefix:
    """`forward_path: raw` with `strip_prefix`: what is cut out must lead where was judged."""

    async def court(self) -> Court:
        http = [{"path": "/api", "upstream": UPSTREAM, "strip_prefix": True}]
        return await Court.open(app(http=http, forward_path="raw"))

    async def test_ordinary_and_encoded_paths_lose_the_prefix_only(self) -> None:
        court = await self.court()
        assert court.allowed("/api/x%2Fy").path == b"/x%2Fy"
        assert court.allowed("/api/x?y=%2F").path == b"/x?y=%2F"

    @pytest.mark.parametrize(
        "target", ["/api/x/../../api/x", "/api//x", "/api/../api/x", "/api/%2e%2e/api/x"]
    )
    async def test_paths_that_climb_over_the_cut_are_refused(self, target: str) -> None:
        court = await self.court()
        assert court.refused(target, who=court.alice)[0] == 400


async def test_two_content_types_do_not_reach_the_portal() -> None:
    court = await Court.open()
    lines = ("Content-Type: a/b", "content-type: c/d")
    assert court.refused("/.heim/me", headers=lines) == (400, "bad_request")


class TestUnavailable:
    CLOSED = {"path": "/x", "unavailable": "ServiceNotFound: there is no Service shop/web"}

    @pytest.mark.parametrize("path", ["/x", "/x/y"])
    async def test_nothing_broader_answers_and_nobody_is_asked_who_they_are(
        self, path: str
    ) -> None:
        made = app(http=[{"path": "/", "upstream": UPSTREAM}, self.CLOSED])
        court = await Court.open(made)
        for who in (None, court.alice, court.bob):
            assert court.refused(path, who=who) == (503, "backend_unavailable")
        assert court.allowed("/y").route.path == b"/"

    async def test_the_reason_is_not_for_visitors(self) -> None:
        court = await Court.open(app(http=[self.CLOSED]))
        verdict = court.ask("/x")
        assert isinstance(verdict, Refusal)
        assert "Service" not in verdict.detail + verdict.hint

    async def test_what_becomes_unavailable_ends_what_is_under_way(self) -> None:
        court = await Court.open(app(http=[{"path": "/x", "upstream": UPSTREAM}]))
        forward = court.allowed("/x")
        later = await Court.open(app(http=[self.CLOSED]))
        target = canonicalise(b"/x")
        assert later.judge.review(forward, b"GET", HOST, target) is EndReason.BACKEND_REMOVED


class TestAnyHost:
    async def test_it_is_served_without_login_and_is_not_the_login_host(self) -> None:
        court = await Court.open(app(), app("rest", public=True, hosts=["*"]))
        verdict = court.ask("/", host="evil.test")
        assert isinstance(verdict, Forward)
        assert verdict.route.backend.name == "rest"
        for path in ("/.heim/login", "/.heim/connect", "/.heim/me", "/.heim"):
            assert court.refused(path, host="evil.test") == (404, "not_found")

    async def test_strangers_do_not_fill_the_memory(self) -> None:
        court = await Court.open(app(), app("rest", public=True, hosts=["*"]))
        for number in range(50):
            court.ask("/", host=f"h{number}.evil.test")
        assert len(court.judge._hosts) == 0
        court.allowed("/")
        assert len(court.judge._hosts) == 1
