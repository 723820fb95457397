"""Enforcement, explanation and a reference evaluator agree on generated worlds (J10)."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heim_proxy.access.explain import Explanation, Outcome, explain, explain_connect
from heim_proxy.access.members import (
    DomainMember,
    GroupMember,
    IssuerMember,
    ServiceAccountMember,
    UserMember,
)
from heim_proxy.access.policy import (
    Allow,
    BindingSpec,
    Deny,
    LocationSpec,
    PermissionSpec,
    Policy,
    RoleSpec,
)
from heim_proxy.access.subject import Subject, SubjectKind
from tests.fakes.thorough import examples
from tests.unit.access.reference import Verdict, World, judge, judge_stream

# Without the explain phase: it traces every line of a failing example, which takes minutes here.
PHASES = (Phase.explicit, Phase.generate, Phase.shrink)

# Few values of each kind, so that generated rules and requests meet often.
BACKENDS = ("app", "db")
TCP = ("db", "ssh")  # of which one serves http too
WORDS = ("any", "get", "head", "post", "delete", "trace", "connect")
METHODS = (b"GET", b"HEAD", b"POST", b"DELETE", b"TRACE", b"CONNECT", b"FOO")
NAMES = st.sampled_from(["a", "b", "c"])
PROVIDERS = st.sampled_from(["google", "okta"])
ISSUERS = st.sampled_from(["https://idp", "heim"])


def joined(segments: list[str], slash: bool) -> bytes:
    return ("/" + "/".join(segments) + ("/" if slash and segments else "")).encode()


PATHS = st.builds(joined, st.lists(st.sampled_from(["x", "y", "xy"]), max_size=3), st.booleans())
ODD_PATHS = st.sampled_from([b"", b"*", b"x", b"//", b"/x//y"])
PLAIN_PATTERNS = st.builds(
    joined, st.lists(st.sampled_from(["x", "y", "*"]), max_size=3), st.booleans()
)
PATTERNS = PLAIN_PATTERNS | PLAIN_PATTERNS.map(lambda path: b"=" + path)
LOCATIONS = st.builds(LocationSpec, st.sampled_from(WORDS), PATTERNS)
MEMBERS = st.one_of(
    st.builds(UserMember, NAMES),
    st.builds(GroupMember, PROVIDERS, NAMES),
    st.builds(DomainMember, NAMES),
    st.builds(ServiceAccountMember, NAMES),
    st.builds(IssuerMember, ISSUERS, NAMES),
)
SUBJECTS = st.builds(
    Subject,
    st.sampled_from([SubjectKind.USER, SubjectKind.USER, SubjectKind.SERVICE_ACCOUNT]),
    ISSUERS,
    NAMES,
    PROVIDERS,
    st.none() | st.just("") | NAMES,
    st.none() | st.just("") | NAMES,
    st.frozensets(NAMES, max_size=2),
)
PERMISSIONS = tuple(itertools.product(BACKENDS, ("p", "q")))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    permissions = [
        PermissionSpec(backend, name, tuple(draw(st.lists(LOCATIONS, max_size=4))))
        for backend, name in PERMISSIONS
    ]
    given_things = [BindingSpec(*key) for key in PERMISSIONS] + [BindingSpec(name) for name in TCP]
    bindings = st.lists(st.sampled_from(given_things), max_size=3)
    roles = [
        RoleSpec(
            name,
            tuple(draw(st.lists(MEMBERS, max_size=3))),
            tuple(draw(bindings)),
            draw(st.sampled_from([False, False, False, True])),
        )
        for name in draw(st.lists(NAMES, unique=True))
    ]
    return World(BACKENDS, permissions, roles, TCP)


def compiled(world: World) -> Policy:
    return Policy.compile(
        backends=world.backends,
        tcp=world.tcp,
        permissions=world.permissions,
        roles=world.roles,
    )


def agree(
    world: World, policy: Policy, subject: Subject, request: tuple[str, bytes, bytes]
) -> None:
    backend, method, path = request
    decision = policy.grants(subject).decide(backend, method, path)
    expected = judge(world, subject, backend, method=method, path=path)
    all_say(decision, expected, explain(policy, subject, backend, method=method, path=path))


def agree_on_stream(world: World, policy: Policy, subject: Subject, backend: str) -> None:
    decision = policy.grants(subject).connect(backend)
    expected = judge_stream(world, subject, backend)
    all_say(decision, expected, explain_connect(policy, subject, backend))


def all_say(decision: Allow | Deny, expected: Verdict, explanation: Explanation) -> None:
    assert explanation.decision == decision
    assert explanation.rule == expected.rule
    deciding = [o.rule.text for o in explanation.considered if o.outcome is Outcome.DECIDES]
    if isinstance(decision, Deny):
        assert decision.reason is expected.reason
        assert deciding == []
    else:
        assert expected.reason is None
        assert decision == Allow(
            explanation.backend, decision.rule, expected.roles, expected.break_glass
        )
        assert [decision.rule] == deciding == [expected.rule]


def test_enforcement_equals_the_reference_and_explanation_equals_enforcement() -> None:
    requests = 0

    @settings(max_examples=examples(150), deadline=None, database=None, phases=PHASES)
    @given(
        worlds(), st.lists(SUBJECTS, min_size=3, max_size=3), st.lists(PATHS, min_size=4), ODD_PATHS
    )
    def over_generated(world: World, who: list[Subject], paths: list[bytes], odd: bytes) -> None:
        nonlocal requests
        policy = compiled(world)
        asked = itertools.product((*BACKENDS, "nope"), METHODS, (*paths[:4], odd))
        for subject, request in itertools.product(who, list(asked)):
            agree(world, policy, subject, request)
            requests += 1
        for subject, backend in itertools.product(who, (*TCP, "app", "nope")):
            agree_on_stream(world, policy, subject, backend)

    over_generated()
    assert requests >= 10_000


def without(world: World, *, tcp: bool) -> World:
    """The same world, where no role has bindings of the one kind."""
    roles = [
        replace(
            role,
            bindings=tuple(one for one in role.bindings if (one.permission is None) is not tcp),
        )
        for role in world.roles
    ]
    return replace(world, roles=roles)


@settings(max_examples=examples(150), deadline=None, database=None, phases=PHASES)
@given(worlds(), st.lists(SUBJECTS, min_size=3, max_size=3), st.lists(PATHS, min_size=3))
def test_bindings_of_one_kind_say_nothing_about_the_other(
    world: World, who: list[Subject], paths: list[bytes]
) -> None:
    whole = compiled(world)
    only_http = compiled(without(world, tcp=True))
    only_tcp = compiled(without(world, tcp=False))
    for subject in who:
        for request in itertools.product((*BACKENDS, "ssh"), METHODS, paths[:3]):
            assert whole.decide(subject, *request) == only_http.decide(subject, *request)
        for backend in (*TCP, "app"):
            assert whole.connect(subject, backend) == only_tcp.connect(subject, backend)
