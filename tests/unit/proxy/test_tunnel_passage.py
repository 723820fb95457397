from __future__ import annotations

import math
from typing import Any

import pytest

from heim_proxy.access.policy import Allow
from heim_proxy.edge.judge import Judge
from heim_proxy.live import EndReason
from heim_proxy.snapshot import Snapshot
from heim_proxy.tunnel.passage import ENDINGS, TOKEN_GRACE_S, Passage
from heim_wire.errors import FAILURES, Code
from tests.fakes.sessions import Stage
from tests.fakes.snapshots import configured, role, snapshot, tcp
from tests.fakes.tunnel import KEY

HOST = "web1.example.test"


@pytest.fixture
async def stage() -> Stage:
    return await Stage.up(lifetime=10_000.0, idle=10_000.0)


def built(*backends: dict[str, Any], roles: Any = None, generation: int = 1) -> Snapshot:
    found = roles if roles is not None else [role("ops", "web1")]
    return snapshot(configured(list(backends) or [tcp("web1")], found), generation=generation)


async def passage_of(stage: Stage, under: Snapshot, *, host: str = HOST) -> Passage:
    return Passage(
        await stage.sign_in(),
        under.tcp["web1"],
        Allow("web1", "role ops: web1 tcp"),
        host=host,
        key=KEY,
        token_end=stage.now + 900,
        request_id="r1",
        client="203.0.113.9",
    )


class TestUntilWhen:
    async def test_it_ends_with_its_token_and_a_grace(self, stage: Stage) -> None:
        under = built()
        passage = await passage_of(stage, under)
        assert passage.valid_until(under) == stage.now + 900 + TOKEN_GRACE_S

    async def test_it_ends_with_the_login_without_any_grace(self, stage: Stage) -> None:
        under = built()
        passage = await passage_of(stage, under)
        passage.token_end = math.inf
        assert passage.valid_until(under) == passage.login_end(under) == stage.now + 10_000

    async def test_it_ends_when_the_login_is_too_old_for_the_backend(self, stage: Stage) -> None:
        passage = await passage_of(stage, built())
        passage.token_end = math.inf
        strict = built(tcp("web1", max_session_age="1h"))
        assert passage.valid_until(strict) == stage.now + 3600


class TestReview:
    @pytest.mark.parametrize(
        ("backends", "roles", "reason"),
        [
            pytest.param([tcp("web1"), tcp("x")], None, None, id="something else changed"),
            pytest.param([tcp("web1")], [], EndReason.POLICY_CHANGED, id="not allowed any more"),
            pytest.param([tcp("x")], [], EndReason.BACKEND_REMOVED, id="removed"),
            pytest.param(
                [{"name": "web1", "http": [{"path": "/", "upstream": "http://127.0.0.1:1"}]}],
                [], EndReason.BACKEND_REMOVED, id="http only",
            ),
            pytest.param(
                [tcp("web1", host="other.example.test")], None, EndReason.BACKEND_REMOVED,
                id="another host",
            ),
            pytest.param(
                [tcp("web1", host="other.example.test"), tcp("x", host=HOST)],
                None, EndReason.BACKEND_REMOVED, id="its host is another's",
            ),
            pytest.param(
                [tcp("web1", "10.0.0.6:22")], None, EndReason.BACKEND_MOVED, id="moved"
            ),
        ],
    )  # fmt: skip
    async def test_it_goes_on_while_all_of_it_holds(
        self, stage: Stage, backends: list[Any], roles: Any, reason: EndReason | None
    ) -> None:
        passage = await passage_of(stage, built())
        after = built(*backends, roles=roles, generation=2)
        assert passage.review(Judge(after, stage.sessions)) is reason

    async def test_one_that_was_named_on_the_login_host_does_not_depend_on_its_host(
        self, stage: Stage
    ) -> None:
        passage = await passage_of(stage, built(), host="auth.example.test")
        after = built(tcp("web1", host="other.example.test"), generation=2)
        assert passage.review(Judge(after, stage.sessions)) is None

    @pytest.mark.parametrize(
        ("after", "reason"),
        [
            ({"agent": "desktop", "target": "ssh"}, None),
            ({"agent": "desktop", "target": "web"}, EndReason.BACKEND_MOVED),
            ({"agent": "office", "target": "ssh"}, EndReason.BACKEND_MOVED),
            ({"upstream": "10.0.0.5:22"}, EndReason.BACKEND_MOVED),
        ],
        ids=["same", "another target", "another agent", "no agent"],
    )
    async def test_one_through_an_agent_ends_when_it_would_go_elsewhere(
        self, stage: Stage, after: dict[str, str], reason: EndReason | None
    ) -> None:
        agents = [{"name": name, "targets": ["ssh", "web"]} for name in ("desktop", "office")]

        def through(way: dict[str, str], generation: int) -> Snapshot:
            config = configured(
                [{"name": "web1", "tcp": way}], [role("ops", "web1")], agents=agents
            )
            return snapshot(config, generation=generation)

        passage = await passage_of(stage, through({"agent": "desktop", "target": "ssh"}, 1))
        assert passage.review(Judge(through(after, 2), stage.sessions)) is reason

    async def test_it_takes_over_the_new_limits(self, stage: Stage) -> None:
        passage = await passage_of(stage, built())
        limited = {"upstream": "10.0.0.5:22", "idle": "1m"}
        after = built({"name": "web1", "tcp": limited}, generation=2)
        assert passage.review(Judge(after, stage.sessions)) is None
        assert passage.target.idle == 60.0


class TestEnding:
    @pytest.mark.parametrize("reason", list(EndReason))
    async def test_every_end_has_a_code_and_words(self, stage: Stage, reason: EndReason) -> None:
        under = built()
        passage = await passage_of(stage, under)
        ending = passage.ending(reason, under, stage.now + 20_000)
        assert ending.code in FAILURES
        assert ending.words
        assert "{" not in ending.words
        assert ending.end in {one.value for one in EndReason}
        assert reason in ENDINGS

    async def test_expired_says_what_it_was_that_expired(self, stage: Stage) -> None:
        strict = built(tcp("web1", max_session_age="1h"))
        passage = await passage_of(stage, strict)
        store = passage.ending(EndReason.EXPIRED, strict, stage.now + 100)
        assert (store.code, store.end) == (Code.BUSY, "expired")
        assert "cannot be checked" in store.words
        token = passage.ending(EndReason.EXPIRED, strict, stage.now + 1000)
        age = passage.ending(EndReason.EXPIRED, strict, stage.now + 3600)
        login = passage.ending(EndReason.EXPIRED, strict, stage.now + 10_000)
        assert "token was not renewed" in token.words
        assert "recent login" in age.words
        assert "login has ended" in login.words
        assert [one.code for one in (token, age, login)] == [Code.EXPIRED] * 3
        assert [one.end for one in (token, age, login)] == [
            "expired", "session_too_old", "expired",
        ]  # fmt: skip


async def test_it_shows_no_key(stage: Stage) -> None:
    assert KEY not in repr(await passage_of(stage, built()))
