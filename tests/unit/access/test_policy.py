from __future__ import annotations

from typing import cast

import pytest

from heim_proxy.access.members import (
    DomainMember,
    GroupMember,
    IssuerMember,
    ServiceAccountMember,
    UserMember,
)
from heim_proxy.access.policy import (
    Allow,
    Approver,
    BindingSpec,
    Deny,
    DenyReason,
    LocationSpec,
    PermissionSpec,
    Policy,
    RoleSpec,
    shown,
)
from heim_proxy.access.subject import Subject, SubjectKind


def person(name: str, *groups: str, provider: str = "google") -> Subject:
    return Subject(
        SubjectKind.USER,
        "https://idp",
        f"id-of-{name}",
        provider,
        email=f"{name}@example.com",
        domain="example.com",
        groups=frozenset(groups),
    )


ALICE = person("alice")
BOB = person("bob", "dev")
CAROL = person("carol")
MALLORY = Subject(SubjectKind.USER, "https://idp", "666", "google", "m@evil.test", "evil.test")
CI = Subject(SubjectKind.SERVICE_ACCOUNT, "heim", "ci", "heim")

POLICY = Policy.compile(
    backends=("grafana", "wiki", "vault", "empty"),
    permissions=(
        PermissionSpec("grafana", "all", (LocationSpec("any", b"/"),)),
        PermissionSpec(
            "grafana",
            "read",
            (LocationSpec("get", b"/"), LocationSpec("post", b"=/api/query")),
        ),
        PermissionSpec("grafana", "trace", (LocationSpec("trace", b"/debug"),)),
        PermissionSpec("wiki", "pages", (LocationSpec("get", b"/pages/*/view"),)),
        PermissionSpec("empty", "nothing", ()),
    ),
    roles=(
        RoleSpec(
            "dev",
            (GroupMember("google", "dev"), IssuerMember("https://idp", "id-of-carol")),
            (BindingSpec("grafana", "read"), BindingSpec("empty", "nothing")),
        ),
        RoleSpec(
            "admin",
            (UserMember("Alice@Example.com"),),
            (BindingSpec("grafana", "all"), BindingSpec("grafana", "trace")),
        ),
        RoleSpec("staff", (DomainMember("example.com"),), (BindingSpec("wiki", "pages"),)),
        RoleSpec("robots", (ServiceAccountMember("ci"),), (BindingSpec("wiki", "pages"),)),
    ),
)

ALLOWED = [
    ("admin anywhere", ALICE, "grafana", b"DELETE", b"/x", "role admin: grafana/all any /"),
    (
        "unknown method by any (C25)",
        ALICE,
        "grafana",
        b"FOO",
        b"/",
        "role admin: grafana/all any /",
    ),
    (
        "trace by name",
        ALICE,
        "grafana",
        b"TRACE",
        b"/debug",
        "role admin: grafana/trace trace /debug",
    ),
    ("group member reads", BOB, "grafana", b"GET", b"/d/1", "role dev: grafana/read get /"),
    (
        "HEAD is governed by get (C26)",
        BOB,
        "grafana",
        b"HEAD",
        b"/",
        "role dev: grafana/read get /",
    ),
    (
        "exact location",
        BOB,
        "grafana",
        b"POST",
        b"/api/query",
        "role dev: grafana/read post =/api/query",
    ),
    ("issuer and subject", CAROL, "grafana", b"GET", b"/", "role dev: grafana/read get /"),
    ("domain", BOB, "wiki", b"GET", b"/pages/7/view", "role staff: wiki/pages get /pages/*/view"),
    (
        "service account",
        CI,
        "wiki",
        b"GET",
        b"/pages/7/view",
        "role robots: wiki/pages get /pages/*/view",
    ),
]

REFUSED = [
    ("nobody", MALLORY, "grafana", b"GET", b"/", DenyReason.NO_ROLE),
    ("role on another backend only", CI, "grafana", b"GET", b"/", DenyReason.NO_ROLE),
    ("backend without permissions", ALICE, "vault", b"GET", b"/", DenyReason.NO_ROLE),
    ("permission without locations (J5)", BOB, "empty", b"GET", b"/", DenyReason.NO_PERMISSION),
    ("method not given (C23)", BOB, "grafana", b"DELETE", b"/d/1", DenyReason.NO_PERMISSION),
    ("exact location, below", BOB, "grafana", b"POST", b"/api/query/x", DenyReason.NO_PERMISSION),
    ("unknown method by get (C25)", BOB, "grafana", b"FOO", b"/", DenyReason.NO_PERMISSION),
    ("lower-case method by get (C24)", BOB, "grafana", b"get", b"/", DenyReason.NO_PERMISSION),
    ("any does not mean CONNECT", ALICE, "grafana", b"CONNECT", b"/", DenyReason.NO_PERMISSION),
    ("any does not mean TRACE", ALICE, "grafana", b"TRACE", b"/", DenyReason.NO_PERMISSION),
    ("asterisk form", ALICE, "grafana", b"OPTIONS", b"*", DenyReason.NO_PERMISSION),
    ("empty path", ALICE, "grafana", b"GET", b"", DenyReason.NO_PERMISSION),
    ("unknown backend", ALICE, "nope", b"GET", b"/", DenyReason.UNKNOWN_BACKEND),
    (
        "group elsewhere",
        person("eve", "dev", provider="okta"),
        "grafana",
        b"GET",
        b"/",
        DenyReason.NO_ROLE,
    ),
]


@pytest.mark.parametrize(
    ("subject", "backend", "method", "path", "rule"),
    [pytest.param(*c[1:], id=c[0]) for c in ALLOWED],
)
def test_request_is_allowed_by_the_rule(
    subject: Subject, backend: str, method: bytes, path: bytes, rule: str
) -> None:
    decision = POLICY.decide(subject, backend, method, path)
    assert isinstance(decision, Allow)
    assert (decision.backend, decision.rule) == (backend, rule)
    assert not decision.break_glass
    assert not decision.public


@pytest.mark.parametrize(
    ("subject", "backend", "method", "path", "reason"),
    [pytest.param(*c[1:], id=c[0]) for c in REFUSED],
)
def test_request_is_refused_with_the_reason(
    subject: Subject, backend: str, method: bytes, path: bytes, reason: DenyReason
) -> None:
    decision = POLICY.decide(subject, backend, method, path)
    assert isinstance(decision, Deny)
    assert (decision.backend, decision.reason) == (backend, reason)


def refusal(subject: Subject, backend: str, method: bytes, path: bytes) -> str:
    decision = POLICY.decide(subject, backend, method, path)
    assert isinstance(decision, Deny)
    return decision.detail


def test_refusal_says_what_is_missing() -> None:
    assert refusal(MALLORY, "grafana", b"GET", b"/") == (
        "You have no role that gives access to grafana."
    )
    assert refusal(BOB, "grafana", b"DELETE", b"/d/1") == (
        "Your role dev on grafana does not include DELETE /d/1."
    )
    assert refusal(ALICE, "nope", b"GET", b"/") == "There is nothing by this name here."


def test_refusal_names_all_roles_held_on_the_backend() -> None:
    carol = person("carol", "dev")
    policy = policy_of(
        role("b-role", UserMember("carol@example.com")),
        role("a-role", GroupMember("google", "dev")),
    )
    decision = policy.decide(carol, "app", b"POST", b"/")
    assert isinstance(decision, Deny)
    assert decision.detail == "Your roles a-role, b-role on app do not include POST /."


def test_refusal_names_neither_other_people_nor_roles_not_held() -> None:
    said = [refusal(s, b, m, p) for _, s, b, m, p, _ in REFUSED if s is not ALICE]
    for name in ("alice", "admin", "carol", "staff", "robots"):
        assert not any(name in text for text in said)


def test_refusal_shows_a_long_path_cut_off() -> None:
    text = refusal(BOB, "grafana", b"POST", b"/" + b"x" * 8000)
    assert text.endswith("x....")
    assert len(text) < 250


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        pytest.param(b"/plain", "/plain", id="plain"),
        pytest.param(b"/\x1b[2J\r\n\xff", "/\\x1b[2J\\x0d\\x0a\\xff", id="terminal codes (R2)"),
        pytest.param(b"x" * 120, "x" * 120, id="just fits"),
        pytest.param(b"x" * 121, "x" * 120 + "...", id="too long"),
    ],
)
def test_request_bytes_are_shown_as_printable_ascii(given: bytes, seen: str) -> None:
    assert shown(given) == seen


def role(name: str, *members: UserMember | GroupMember, break_glass: bool = False) -> RoleSpec:
    bindings = () if break_glass else (BindingSpec("app", "read"),)
    return RoleSpec(name, members, bindings, break_glass)


def policy_of(*roles: RoleSpec) -> Policy:
    return Policy.compile(
        backends=("app", "db"),
        permissions=(PermissionSpec("app", "read", (LocationSpec("get", b"/"),)),),
        roles=roles,
    )


def test_first_rule_in_configuration_order_decides() -> None:
    alice = UserMember("alice@example.com")
    policy = policy_of(role("second", alice), role("first", alice))
    decision = policy.decide(ALICE, "app", b"GET", b"/")
    assert decision == Allow("app", "role second: app/read get /", ("first", "second"))


def test_without_roles_everything_is_refused() -> None:
    decision = policy_of().decide(ALICE, "app", b"GET", b"/")
    assert isinstance(decision, Deny)
    assert decision.reason is DenyReason.NO_ROLE


EMERGENCY = role("emergency", UserMember("alice@example.com"), break_glass=True)


def test_break_glass_allows_everything_and_says_so() -> None:
    decision = policy_of(EMERGENCY).decide(ALICE, "db", b"DELETE", b"/x")
    assert decision == Allow("db", "role emergency: break-glass", ("emergency",), break_glass=True)


def test_break_glass_is_not_recorded_when_an_ordinary_rule_allows() -> None:
    policy = policy_of(EMERGENCY, role("reader", UserMember("alice@example.com")))
    assert policy.decide(ALICE, "app", b"GET", b"/") == Allow(
        "app", "role reader: app/read get /", ("reader",)
    )
    assert policy.decide(ALICE, "app", b"POST", b"/") == Allow(
        "app", "role emergency: break-glass", ("emergency", "reader"), break_glass=True
    )


def test_bindings_of_a_break_glass_role_are_ordinary() -> None:
    alice = (UserMember("alice@example.com"),)
    policy = policy_of(RoleSpec("oncall", alice, (BindingSpec("app", "read"),), break_glass=True))
    assert policy.decide(ALICE, "app", b"GET", b"/") == Allow(
        "app", "role oncall: app/read get /", ("oncall",)
    )
    decision = policy.decide(ALICE, "app", b"PUT", b"/")
    assert isinstance(decision, Allow)
    assert decision.break_glass


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
def test_break_glass_does_not_mean_trace_or_connect(method: bytes) -> None:
    decision = policy_of(EMERGENCY).decide(ALICE, "app", method, b"/")
    assert isinstance(decision, Deny)
    assert decision.reason is DenyReason.NO_PERMISSION


def test_break_glass_is_for_its_members_and_existing_backends_only() -> None:
    policy = policy_of(EMERGENCY)
    for subject, backend, reason in (
        (BOB, "db", DenyReason.NO_ROLE),
        (ALICE, "nope", DenyReason.UNKNOWN_BACKEND),
    ):
        decision = policy.decide(subject, backend, b"GET", b"/")
        assert isinstance(decision, Deny)
        assert decision.reason is reason


@pytest.mark.parametrize(
    ("backend", "method", "path"),
    [
        pytest.param("grafana", b"GET", "/text", id="path is text"),
        pytest.param("grafana", b"GET", None, id="path is missing"),
        pytest.param("grafana", [], b"/", id="method is unhashable"),
        pytest.param([], b"GET", b"/", id="backend is unhashable"),
        pytest.param("wiki", b"POST", 7, id="path is a number, no rule asks"),
    ],
)
def test_exception_in_a_decision_is_a_refusal(backend: str, method: bytes, path: bytes) -> None:
    """J8. The detail names the exception for the caller to count, and nothing else."""
    decision = POLICY.decide(ALICE, backend, method, path)
    assert isinstance(decision, Deny)
    assert decision.reason is DenyReason.INTERNAL
    assert decision.detail.split(": ")[-1] in {"TypeError", "AttributeError"}


def test_subject_that_cannot_be_evaluated_is_refused_everywhere() -> None:
    """J8; even where break-glass or another of its roles would have allowed."""
    broken = Subject(
        SubjectKind.USER,
        "i",
        "s",
        "google",
        "alice@example.com",
        groups=cast("frozenset[str]", None),
    )
    grants = policy_of(EMERGENCY).grants(broken)
    for backend in ("app", "db", "nope"):
        decision = grants.decide(backend, b"GET", b"/")
        assert isinstance(decision, Deny)
        assert decision.reason is DenyReason.INTERNAL
        assert decision.detail.endswith(": TypeError")


def test_deciding_twice_gives_the_same_prepared_answer() -> None:
    """Nothing is built on the allow path."""
    grants = POLICY.grants(ALICE)
    first = grants.decide("grafana", b"GET", b"/a")
    assert grants.decide("grafana", b"GET", b"/b") is first


def test_subjects_with_the_same_roles_share_their_grants() -> None:
    assert POLICY.grants(person("dan")) is POLICY.grants(person("erin"))
    assert POLICY.grants(person("dan")) is not POLICY.grants(ALICE)


def test_grants_name_their_roles() -> None:
    assert POLICY.grants(ALICE).roles == ("admin", "staff")
    assert repr(POLICY.grants(ALICE)) == "<Grants roles=admin,staff>"
    assert repr(POLICY.grants(MALLORY)) == "<Grants roles=->"


def test_memo_of_grants_is_bounded_and_only_a_memo() -> None:
    """2048 combinations of 11 groups: more than are kept."""
    names = [f"g{bit}" for bit in range(11)]
    policy = policy_of(*(role(f"role-{name}", GroupMember("google", name)) for name in names))

    def member_of(number: int) -> Subject:
        return person("x", *(name for bit, name in enumerate(names) if number >> bit & 1))

    first = policy.grants(member_of(1))
    kept = [policy.grants(member_of(number)) for number in range(2048)]
    again = policy.grants(member_of(1))
    assert again is not first
    assert again.roles == first.roles == ("role-g0",)
    assert again.decide("app", b"GET", b"/") == first.decide("app", b"GET", b"/")
    assert all(len(grants.roles) == number.bit_count() for number, grants in enumerate(kept))


def test_permission_of_an_unknown_backend_is_refused_when_compiling() -> None:
    with pytest.raises(ValueError, match="no backend 'x'"):
        Policy.compile(backends=(), permissions=(PermissionSpec("x", "p", ()),), roles=())


STREAMS = Policy.compile(
    backends=("wiki",),
    tcp=("desktop", "wiki", "vault"),
    permissions=(PermissionSpec("wiki", "all", (LocationSpec("any", b"/"),)),),
    roles=(
        RoleSpec("web", (UserMember("bob@example.com"),), (BindingSpec("wiki", "all"),)),
        RoleSpec("late", (DomainMember("example.com"),), (BindingSpec("desktop"),)),
        RoleSpec("dev", (GroupMember("google", "dev"),), (BindingSpec("desktop"),)),
        RoleSpec("admin", (UserMember("alice@example.com"),), (BindingSpec("wiki"),)),
        RoleSpec("robots", (ServiceAccountMember("ci"),), (BindingSpec("vault"),)),
    ),
)

CONNECTED = [
    ("domain", ALICE, "desktop", Allow("desktop", "role late: desktop tcp", ("late",))),
    (
        "first role in configuration order, all roles named in theirs",
        BOB,
        "desktop",
        Allow("desktop", "role late: desktop tcp", ("dev", "late")),
    ),
    ("backend with both", ALICE, "wiki", Allow("wiki", "role admin: wiki tcp", ("admin",))),
    ("service account", CI, "vault", Allow("vault", "role robots: vault tcp", ("robots",))),
]


@pytest.mark.parametrize(
    ("subject", "backend", "allow"), [pytest.param(*c[1:], id=c[0]) for c in CONNECTED]
)
def test_stream_is_allowed_by_the_rule(subject: Subject, backend: str, allow: Allow) -> None:
    assert STREAMS.connect(subject, backend) == allow


NOT_CONNECTED = [
    (
        "nobody",
        MALLORY,
        "desktop",
        DenyReason.NO_ROLE,
        "You have no role that gives access to desktop.",
    ),
    (
        "http alone, of a backend with both",
        BOB,
        "wiki",
        DenyReason.NO_ROLE,
        "You have no role that gives access to wiki over tcp.",
    ),
    (
        "role on another backend only",
        CI,
        "desktop",
        DenyReason.NO_ROLE,
        "You have no role that gives access to desktop.",
    ),
    (
        "unknown backend",
        ALICE,
        "nope",
        DenyReason.UNKNOWN_BACKEND,
        "There is nothing by this name here.",
    ),
]


@pytest.mark.parametrize(
    ("subject", "backend", "reason", "detail"),
    [pytest.param(*c[1:], id=c[0]) for c in NOT_CONNECTED],
)
def test_stream_is_refused_with_the_reason(
    subject: Subject, backend: str, reason: DenyReason, detail: str
) -> None:
    assert STREAMS.connect(subject, backend) == Deny(backend, reason, detail)


def test_tcp_gives_no_request_and_a_permission_no_stream() -> None:
    for method in (b"GET", b"CONNECT"):
        for backend, reason in (
            ("wiki", DenyReason.NO_ROLE),
            ("desktop", DenyReason.UNKNOWN_BACKEND),
        ):
            decision = STREAMS.decide(ALICE, backend, method, b"/")
            assert isinstance(decision, Deny)
            assert decision.reason is reason
    assert isinstance(STREAMS.decide(BOB, "wiki", b"GET", b"/"), Allow)
    assert isinstance(STREAMS.connect(BOB, "wiki"), Deny)


def test_backend_without_tcp_is_none_to_connect_to_even_with_break_glass() -> None:
    policy = policy_of(EMERGENCY)
    for backend in ("app", "db"):
        decision = policy.connect(ALICE, backend)
        assert isinstance(decision, Deny)
        assert decision.reason is DenyReason.UNKNOWN_BACKEND


def broken_glass(*bindings: BindingSpec) -> Policy:
    alice = (UserMember("alice@example.com"),)
    return Policy.compile(
        backends=("wiki",),
        tcp=("desktop", "wiki"),
        permissions=(),
        roles=(
            RoleSpec("emergency", alice, break_glass=True),
            RoleSpec("admin", alice, bindings),
        ),
    )


def test_break_glass_covers_tcp_and_says_so() -> None:
    for backend in ("desktop", "wiki"):
        assert broken_glass().connect(ALICE, backend) == Allow(
            backend, "role emergency: break-glass", ("emergency",), break_glass=True
        )
    assert isinstance(broken_glass().connect(BOB, "desktop"), Deny)


def test_break_glass_is_not_recorded_when_an_ordinary_binding_gives_the_stream() -> None:
    policy = broken_glass(BindingSpec("desktop"))
    assert policy.connect(ALICE, "desktop") == Allow(
        "desktop", "role admin: desktop tcp", ("admin",)
    )
    wiki = policy.connect(ALICE, "wiki")
    assert isinstance(wiki, Allow)
    assert wiki.break_glass


def test_subject_that_cannot_be_evaluated_connects_to_nothing() -> None:
    """J8; even where break-glass would have allowed, and whether or not the backend exists."""
    broken = Subject(
        SubjectKind.USER,
        "i",
        "s",
        "google",
        "alice@example.com",
        groups=cast("frozenset[str]", None),
    )
    for backend in ("desktop", "wiki", "nope"):
        decision = broken_glass().connect(broken, backend)
        assert isinstance(decision, Deny)
        assert decision.reason is DenyReason.INTERNAL
        assert decision.detail.endswith(": TypeError")


def test_exception_in_a_decision_about_a_stream_is_a_refusal() -> None:
    decision = STREAMS.connect(ALICE, cast("str", []))
    assert isinstance(decision, Deny)
    assert decision.reason is DenyReason.INTERNAL
    assert decision.detail.endswith(": TypeError")


def test_connecting_twice_gives_the_same_prepared_answer() -> None:
    grants = STREAMS.grants(ALICE)
    assert grants.connect("desktop") is grants.connect("desktop")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        pytest.param(ALICE, Approver("keeper", break_glass=False), id="approve_agents"),
        pytest.param(BOB, Approver("root", break_glass=True), id="break-glass"),
        pytest.param(CAROL, None, id="any other role"),
        pytest.param(MALLORY, None, id="no role"),
    ],
)
def test_agents_are_let_in_by_those_whose_role_says_so(
    subject: Subject, expected: Approver | None
) -> None:
    """J11: breaking the glass is named only where nothing else gives it."""
    policy = Policy.compile(
        backends=("wiki",),
        permissions=(PermissionSpec("wiki", "all", (LocationSpec("any", b"/"),)),),
        roles=(
            RoleSpec(
                "root",
                (UserMember("alice@example.com"), UserMember("bob@example.com")),
                break_glass=True,
            ),
            RoleSpec("keeper", (UserMember("alice@example.com"),), approve_agents=True),
            RoleSpec("reader", (UserMember("carol@example.com"),), (BindingSpec("wiki", "all"),)),
        ),
    )
    assert policy.grants(subject).approver == expected


def test_whoever_cannot_be_evaluated_lets_no_agent_in() -> None:
    policy = Policy.compile(
        backends=(),
        permissions=(),
        roles=(RoleSpec("keeper", (DomainMember("example.com"),), approve_agents=True),),
    )
    broken = cast("Subject", object())
    assert policy.grants(ALICE).approver is not None
    assert policy.grants(broken).approver is None
