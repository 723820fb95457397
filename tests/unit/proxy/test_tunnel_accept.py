from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from heim_proxy.access.policy import Allow
from heim_proxy.edge.head import RequestHead
from heim_proxy.edge.judge import Judge
from heim_proxy.edge.responses import Refusal
from heim_proxy.identity.session import Session
from heim_proxy.routing import TcpTarget
from heim_proxy.tunnel.accept import Wish, authorise, read
from tests.fakes.sessions import ALICE, BOB, Stage
from tests.fakes.snapshots import app, configured, role, snapshot, tcp
from tests.fakes.tunnel import KEY, tunnel_head

LOGIN = "https://auth.example.test"
LOGIN_HOST = "auth.example.test"
WEB1 = "web1.example.test"


def head_of(data: bytes) -> RequestHead:
    head = RequestHead()
    head.parse(data)
    return head


def asked(token: str | None = "t0ken", **keys: Any) -> Wish | Refusal:
    return read(head_of(tunnel_head(token, host=WEB1, **keys)), LOGIN)


def refused(found: object) -> Refusal:
    assert isinstance(found, Refusal)
    return found


class TestRead:
    def test_a_correct_request_is_a_wish(self) -> None:
        wish = asked("a.b-c_d~e+f/g==", backend="web1")
        assert wish == Wish("a.b-c_d~e+f/g==", KEY, b"web1")

    def test_the_token_is_not_shown(self) -> None:
        assert "t0ken" not in repr(asked())

    @pytest.mark.parametrize(
        ("keys", "status", "code"),
        [
            pytest.param({"drop": ("Upgrade",)}, 426, "protocol", id="no upgrade"),
            pytest.param({"drop": ("Connection",)}, 426, "protocol", id="no Connection"),
            pytest.param(
                {"drop": ("Upgrade",), "extra": ("Upgrade: h2c",)}, 426, "protocol", id="h2c"
            ),
            pytest.param(
                {"drop": ("Upgrade",), "extra": ("Upgrade: websocket, h2c",)},
                426, "protocol", id="two protocols",
            ),
            pytest.param({"method": "POST"}, 400, "protocol", id="POST"),
            pytest.param({"extra": ("Content-Length: 3",)}, 400, "protocol", id="body"),
            pytest.param(
                {"extra": ("Transfer-Encoding: chunked",)}, 400, "protocol", id="chunked body"
            ),
            pytest.param({"path": "/.heim/tunnel/connect?a=b"}, 400, "protocol", id="query"),
            pytest.param({"path": "/.heim/tunnel/connect?"}, 400, "protocol", id="empty query"),
            pytest.param(
                {"drop": ("Sec-WebSocket-Version",), "extra": ("Sec-WebSocket-Version: 8",)},
                426, "protocol", id="WebSocket version",
            ),
            pytest.param({"drop": ("Sec-WebSocket-Key",)}, 400, "protocol", id="no key"),
            pytest.param(
                {"drop": ("Sec-WebSocket-Key",), "extra": ("Sec-WebSocket-Key: short",)},
                400, "protocol", id="bad key",
            ),
            pytest.param({"drop": ("Sec-WebSocket-Protocol",)}, 400, "protocol", id="no protocol"),
            pytest.param(
                {"drop": ("Sec-WebSocket-Protocol",),
                 "extra": ("Sec-WebSocket-Protocol: heim.tunnel.v2",)},
                400, "protocol", id="other protocol",
            ),
            pytest.param(
                {"backend": "web1", "extra": ("Heim-Backend: web1",)},
                400, "protocol", id="two backends",
            ),
            pytest.param({"token": None}, 401, "unauthenticated", id="no token"),
            pytest.param(
                {"extra": ("Authorization: Bearer other",)}, 401, "unauthenticated", id="two tokens"
            ),
            pytest.param(
                {"token": None, "extra": ("Authorization: Basic YTpi",)},
                401, "unauthenticated", id="Basic",
            ),
            pytest.param({"token": "a b"}, 401, "unauthenticated", id="space in token"),
            pytest.param({"token": "a, Basic b"}, 401, "unauthenticated", id="list"),
            pytest.param({"token": ""}, 401, "unauthenticated", id="empty token"),
            pytest.param({"token": "x" * 4097}, 401, "unauthenticated", id="long token"),
            pytest.param(
                {"drop": ("Connection",), "extra": ("Connection: upgrade, authorization",)},
                401, "unauthenticated", id="Authorization for one hop",
            ),
        ],
    )  # fmt: skip
    def test_what_is_not_is_refused(self, keys: dict[str, Any], status: int, code: str) -> None:
        found = refused(asked(**keys))
        assert (found.status, found.code) == (status, code)
        assert found.hint

    def test_a_scheme_may_be_written_in_any_case(self) -> None:
        found = asked(None, extra=("Authorization: bEARER   t0ken",))
        assert isinstance(found, Wish)
        assert found.token == "t0ken"

    def test_our_protocol_may_be_one_of_several(self) -> None:
        keys = {"drop": ("Sec-WebSocket-Protocol",)}
        lines = ("Sec-WebSocket-Protocol: a, heim.tunnel.v1", "Sec-WebSocket-Protocol: b")
        assert isinstance(asked(extra=lines, **keys), Wish)

    def test_other_protocols_are_told_what_both_sides_speak(self) -> None:
        line = "Sec-WebSocket-Protocol: heim.tunnel.v9"
        found = refused(asked(drop=("Sec-WebSocket-Protocol",), extra=(line,)))
        assert "heim.tunnel.v1" in found.detail
        assert "heim.tunnel.v9" in found.detail

    def test_an_upgrade_is_asked_for_by_name(self) -> None:
        found = refused(asked(drop=("Upgrade",)))
        assert "Upgrade: websocket" in found.headers
        assert "Sec-WebSocket-Version: 13" in found.headers

    @pytest.mark.parametrize(
        ("token", "error"), [(None, ""), ("a b", ', error="invalid_token"')], ids=["none", "bad"]
    )
    def test_a_401_names_the_scheme_and_where_to_log_in(
        self, token: str | None, error: str
    ) -> None:
        found = refused(asked(token))
        assert found.login_url == LOGIN
        assert list(found.headers) == [f'WWW-Authenticate: Bearer realm="heim"{error}']

    @pytest.mark.parametrize("bad", ["a b", "secret\x01", "secret,"])
    def test_nothing_of_a_bad_credential_is_said_back(self, bad: str) -> None:
        try:
            found = asked(f"s3cr3t{bad}")
        except Exception:
            return
        assert "s3cr3t" not in repr(found)


@pytest.fixture
async def stage() -> Stage:
    return await Stage.up()


def judge_of(stage: Stage) -> Judge:
    config = configured(
        [
            app(),
            tcp("web1"),
            tcp("web2", "10.0.0.6:22"),
            tcp("secret-db", "10.0.0.7:5432"),
            tcp("old", max_session_age="1h"),
            tcp("lab", host="*.lab.example.test"),
        ],
        [
            role("ops", "web1", "old", "lab"),
            role("dba", "secret-db", members=[{"user": "carol@example.test"}]),
            role("web", "app/all", "web2", members=[{"issuer": BOB.issuer, "subject": "1002"}]),
        ],
    )
    return Judge(snapshot(config), stage.sessions)


async def decided(
    stage: Stage,
    *,
    host: str = WEB1,
    named: bytes | None = None,
    session: Session | None = None,
    later: float = 0.0,
) -> tuple[TcpTarget, Allow] | Refusal:
    who = session or await stage.sign_in()
    wish = Wish("t", KEY, named)
    return authorise(judge_of(stage), who, wish, host=host, now=stage.now + later)


class TestAuthorise:
    @pytest.mark.parametrize(
        ("host", "named"),
        [
            pytest.param(WEB1, None, id="by host"),
            pytest.param(WEB1, b"web1", id="host and name agree"),
            pytest.param(WEB1, b"web1.example.test", id="host and host agree"),
            pytest.param(LOGIN_HOST, b"web1", id="login host, by name"),
            pytest.param(LOGIN_HOST, b"WEB1.Example.test:443", id="login host, by host"),
        ],
    )
    async def test_a_backend_is_named_by_host_or_header(
        self, stage: Stage, host: str, named: bytes | None
    ) -> None:
        found = await decided(stage, host=host, named=named)
        assert not isinstance(found, Refusal)
        target, allow = found
        assert target.backend.name == "web1"
        assert allow.rule == "role ops: web1 tcp"

    async def test_a_host_of_a_wildcard_is_one(self, stage: Stage) -> None:
        for host, named in (("a.lab.example.test", b"lab"), (LOGIN_HOST, b"b.lab.example.test")):
            found = await decided(stage, host=host, named=named)
            assert not isinstance(found, Refusal)
            assert found[0].backend.name == "lab"

    @pytest.mark.parametrize(
        ("host", "named", "status", "code"),
        [
            pytest.param(LOGIN_HOST, None, 404, "no_such_target", id="login host without a name"),
            pytest.param(WEB1, b"web2", 400, "protocol", id="they disagree"),
            pytest.param(WEB1, b"nobody", 400, "protocol", id="agrees with nothing"),
            pytest.param(WEB1, b"\xff\x00 evil", 400, "protocol", id="no name at all"),
            pytest.param("app.example.test", b"web1", 400, "protocol", id="http host names tcp"),
            pytest.param("app.example.test", None, 404, "no_such_target", id="http only"),
            pytest.param(LOGIN_HOST, b"app", 404, "no_such_target", id="http only, by name"),
            pytest.param(LOGIN_HOST, b"nothing", 404, "no_such_target", id="unknown"),
            pytest.param(LOGIN_HOST, b"", 404, "no_such_target", id="empty"),
            pytest.param(LOGIN_HOST, b"\x1b[31m", 404, "no_such_target", id="escape sequence"),
            pytest.param("secret-db.example.test", None, 403, "forbidden", id="forbidden"),
        ],
    )
    async def test_what_is_not_to_be_reached_is_refused(
        self, stage: Stage, host: str, named: bytes | None, status: int, code: str
    ) -> None:
        found = refused(await decided(stage, host=host, named=named))
        assert (found.status, found.code) == (status, code)
        assert found.detail.isprintable()

    @pytest.mark.parametrize(
        ("named", "near"),
        [
            (b"wbe1", "web1"),
            (b"web11", "web1"),
            (b"web1.exmaple.test", "web1"),
            (b"web1.other.org", "web1"),
            (b"zzz", None),
        ],
    )
    async def test_a_near_name_is_suggested(
        self, stage: Stage, named: bytes, near: str | None
    ) -> None:
        found = refused(await decided(stage, host=LOGIN_HOST, named=named))
        assert found.detail.endswith(f"did you mean {near}?" if near else "takes connections")

    @pytest.mark.parametrize("named", [b"secret-bd", b"secret-db2", b"web2x"])
    async def test_only_names_that_this_person_may_reach_are_suggested(
        self, stage: Stage, named: bytes
    ) -> None:
        found = refused(await decided(stage, host=LOGIN_HOST, named=named))
        assert "secret-db?" not in found.detail
        assert "web2?" not in found.detail

    @pytest.mark.parametrize(
        ("host", "named"),
        [
            pytest.param("app.example.test", None, id="by host"),
            pytest.param(LOGIN_HOST, b"app", id="by name"),
        ],
    )
    async def test_who_may_open_it_in_a_browser_is_sent_there_and_others_are_not(
        self, stage: Stage, host: str, named: bytes | None
    ) -> None:
        bob = await stage.sign_in(BOB)
        found = refused(await decided(stage, host=host, named=named, session=bob))
        assert (found.code, found.hint) == ("no_such_target", "open https://app.example.test/")
        stranger = refused(await decided(stage, host=host, named=named))
        assert "https://app" not in stranger.hint

    async def test_a_refusal_says_who_and_what_and_no_other_roles(self, stage: Stage) -> None:
        found = refused(await decided(stage, host="secret-db.example.test"))
        assert found.user == "alice@example.test"
        assert found.backend == "secret-db"
        assert "alice@example.test may not connect to secret-db" in found.detail
        assert "dba" not in f"{found.detail} {found.hint}"
        assert "carol" not in found.detail + found.hint

    async def test_a_login_that_is_too_old_for_the_backend_must_be_renewed(
        self, stage: Stage
    ) -> None:
        session = await stage.sign_in()
        host = "old.example.test"
        assert not isinstance(
            await decided(stage, host=host, session=session, later=3599.0), Refusal
        )
        found = refused(await decided(stage, host=host, session=session, later=3601.0))
        assert (found.status, found.code) == (401, "unauthenticated")
        assert "1h" in found.detail
        assert found.login_url == LOGIN

    async def test_who_holds_nothing_is_refused(self, stage: Stage) -> None:
        nobody = dataclasses.replace(ALICE, email=None, subject="unknown", domain=None)
        session = await stage.sign_in(nobody)
        assert refused(await decided(stage, session=session)).code == "forbidden"
