from __future__ import annotations

from typing import cast

import pytest

from heim_proxy.access.explain import Explanation, Outcome, explain, explain_connect
from heim_proxy.access.members import DomainMember, GroupMember, IssuerMember, UserMember
from heim_proxy.access.policy import (
    Allow,
    BindingSpec,
    Deny,
    DenyReason,
    LocationSpec,
    PermissionSpec,
    Policy,
    RoleSpec,
)
from heim_proxy.access.subject import Subject, SubjectKind


def person(name: str, *groups: str) -> Subject:
    email = f"{name}@example.com"
    return Subject(SubjectKind.USER, "https://idp", name, "okta", email, None, frozenset(groups))


POLICY = Policy.compile(
    backends=("grafana", "vault"),
    permissions=(
        PermissionSpec("grafana", "read", (LocationSpec("get", b"/"),)),
        PermissionSpec("grafana", "api", (LocationSpec("post", b"=/api/query"),)),
        PermissionSpec("grafana", "all", (LocationSpec("any", b"/"),)),
    ),
    roles=(
        RoleSpec(
            "dev",
            (GroupMember("okta", "dev"),),
            (BindingSpec("grafana", "read"), BindingSpec("grafana", "api")),
        ),
        RoleSpec(
            "admin",
            (
                UserMember("alice@example.com"),
                IssuerMember("https://idp", "ada"),
                GroupMember("okta", "sre"),
                DomainMember("ops.example.com"),
            ),
            (BindingSpec("grafana", "all"),),
        ),
        RoleSpec("emergency", (UserMember("root@example.com"),), break_glass=True),
        RoleSpec("unused", (), (BindingSpec("grafana", "all"),)),
    ),
)


def explained(
    subject: Subject, method: bytes, path: bytes, backend: str = "grafana"
) -> Explanation:
    return explain(POLICY, subject, backend, method=method, path=path)


def test_allowed_request_is_explained_rule_by_rule() -> None:
    assert list(explained(person("alice", "dev"), b"GET", b"/d/1").lines()) == [
        "ALLOWED: alice@example.com: GET /d/1 on grafana",
        "  by role dev: grafana/read get /",
        "rules of this backend:",
        "  role dev: grafana/read get /: decides: alice@example.com is in dev as group dev of okta",
        "  role dev: grafana/api post =/api/query: other method: "
        "GET is not among the methods of post",
        "  role admin: grafana/all any /: would allow too: alice@example.com is in admin as user "
        "alice@example.com",
        "  role unused: grafana/all any /: not a member: alice@example.com is not in unused",
        "  role emergency: break-glass: not a member: alice@example.com is not in emergency",
        "what would change it:",
        "  alice@example.com leaving role dev, or that role losing the rule",
        "  and then these would still allow it: role admin: grafana/all any /",
    ]


def test_refused_request_is_explained_with_what_is_missing() -> None:
    assert list(explained(person("bob", "dev"), b"POST", b"/x").lines()) == [
        "REFUSED (no_permission): bob@example.com: POST /x on grafana",
        "  Your role dev on grafana does not include POST /x.",
        "rules of this backend:",
        "  role dev: grafana/read get /: other method: POST is not among the methods of get",
        "  role dev: grafana/api post =/api/query: other path: /x is not exactly /api/query",
        "  role admin: grafana/all any /: not a member: bob@example.com is not in admin",
        "  role unused: grafana/all any /: not a member: bob@example.com is not in unused",
        "  role emergency: break-glass: not a member: bob@example.com is not in emergency",
        "what would change it:",
        "  bob@example.com becoming a member of role admin (group sre of okta, "
        "domain ops.example.com, 2 named people)",
        "  bob@example.com becoming a member of role emergency (1 named person)",
        "  bob@example.com becoming a member of role unused (it has no members yet)",
        "  a location for POST /x in permission grafana/read, which they hold",
        "  a location for POST /x in permission grafana/api, which they hold",
    ]


def test_break_glass_is_pointed_out() -> None:
    found = explained(person("root"), b"DELETE", b"/", backend="vault")
    assert isinstance(found.decision, Allow)
    assert next(found.lines()).endswith("(break-glass, audited)")
    assert [one.outcome for one in found.considered] == [Outcome.DECIDES]


def test_ordinary_rule_explains_before_break_glass() -> None:
    found = explained(person("root", "dev"), b"GET", b"/")
    outcomes = {one.rule.text: one.outcome for one in found.considered}
    assert outcomes["role dev: grafana/read get /"] is Outcome.DECIDES
    assert outcomes["role emergency: break-glass"] is Outcome.LATER


def test_backend_that_does_not_exist_has_no_rules_to_show() -> None:
    assert list(explained(person("alice"), b"GET", b"/", backend="nope").lines()) == [
        "REFUSED (unknown_backend): alice@example.com: GET / on nope",
        "  There is nothing by this name here.",
        "what would change it:",
        "  nothing: no backend is called nope",
    ]


def test_backend_that_nobody_may_reach_needs_a_role() -> None:
    policy = Policy.compile(backends=("vault",), permissions=(), roles=())
    found = explain(policy, person("bob"), "vault", method=b"GET", path=b"/")
    assert found.changes == (
        "a role with bob@example.com and a permission of vault that covers GET /",
    )
    assert found.rule is None


def test_method_that_no_rule_means_is_not_promised_by_membership() -> None:
    """TRACE: neither any nor break-glass covers it, so joining those roles would not help."""
    found = explained(person("bob"), b"TRACE", b"/")
    assert found.changes == (
        "a role with bob@example.com and a permission of grafana that covers TRACE /",
    )


def test_permission_that_cannot_be_extended_is_not_offered() -> None:
    """Break-glass is no permission that a location could be added to."""
    found = explained(person("root"), b"TRACE", b"/", backend="vault")
    assert isinstance(found.decision, Deny)
    assert found.changes == (
        "a role with root@example.com and a permission of vault that covers TRACE /",
    )


def test_explanation_names_no_other_people() -> None:
    text = "\n".join(explained(person("bob"), b"GET", b"/").lines())
    assert not any(name in text for name in ("alice", "ada", "root"))


def test_long_lists_of_rules_are_cut_off() -> None:
    many = tuple(LocationSpec("get", b"/%d" % number) for number in range(25))
    policy = Policy.compile(
        backends=("app",),
        permissions=(PermissionSpec("app", "p", many),),
        roles=(RoleSpec("r", (UserMember("bob@example.com"),), (BindingSpec("app", "p"),)),),
    )
    found = explain(policy, person("bob"), "app", method=b"GET", path=b"/24")
    lines = list(found.lines())
    assert "  and 5 more" in lines
    assert sum(": other path: " in line for line in lines) == 20
    assert len(found.considered) == 25


def test_decision_that_failed_is_explained_without_rules() -> None:
    broken = cast("frozenset[str]", None)
    subject = Subject(SubjectKind.USER, "i", "s", "okta", groups=broken)
    found = explained(subject, b"GET", b"/")
    assert isinstance(found.decision, Deny)
    assert found.decision.reason is DenyReason.INTERNAL
    assert not found.considered
    assert not found.changes
    assert len(list(found.lines())) == 2


@pytest.mark.parametrize("name", ["alice", "bob", "root"])
def test_explanation_carries_the_decision_itself(name: str) -> None:
    subject = person(name)
    found = explained(subject, b"GET", b"/")
    assert found.decision == POLICY.decide(subject, "grafana", b"GET", b"/")
    assert (found.subject, found.backend) == (subject.name, "grafana")
    assert found.request == "GET /"


STREAMS = Policy.compile(
    backends=("wiki",),
    tcp=("desktop", "wiki", "lonely"),
    permissions=(PermissionSpec("wiki", "all", (LocationSpec("any", b"/"),)),),
    roles=(
        RoleSpec("web", (UserMember("bob@example.com"),), (BindingSpec("wiki", "all"),)),
        RoleSpec("dev", (GroupMember("okta", "dev"),), (BindingSpec("desktop"),)),
        RoleSpec(
            "admin",
            (UserMember("alice@example.com"), GroupMember("okta", "sre")),
            (BindingSpec("desktop"), BindingSpec("wiki")),
        ),
        RoleSpec("emergency", (UserMember("root@example.com"),), break_glass=True),
    ),
)


def test_allowed_stream_is_explained_rule_by_rule() -> None:
    assert list(explain_connect(STREAMS, person("alice", "dev"), "desktop").lines()) == [
        "ALLOWED: alice@example.com: tcp on desktop",
        "  by role dev: desktop tcp",
        "rules of this backend:",
        "  role dev: desktop tcp: decides: alice@example.com is in dev as group dev of okta",
        "  role admin: desktop tcp: would allow too: alice@example.com is in admin as user "
        "alice@example.com",
        "  role emergency: break-glass: not a member: alice@example.com is not in emergency",
        "what would change it:",
        "  alice@example.com leaving role dev, or that role losing the rule",
        "  and then these would still allow it: role admin: desktop tcp",
    ]


def test_refused_stream_is_explained_with_what_is_missing() -> None:
    assert list(explain_connect(STREAMS, person("bob"), "desktop").lines()) == [
        "REFUSED (no_role): bob@example.com: tcp on desktop",
        "  You have no role that gives access to desktop.",
        "rules of this backend:",
        "  role dev: desktop tcp: not a member: bob@example.com is not in dev",
        "  role admin: desktop tcp: not a member: bob@example.com is not in admin",
        "  role emergency: break-glass: not a member: bob@example.com is not in emergency",
        "what would change it:",
        "  bob@example.com becoming a member of role dev (group dev of okta)",
        "  bob@example.com becoming a member of role admin (group sre of okta, 1 named person)",
        "  bob@example.com becoming a member of role emergency (1 named person)",
    ]


def test_rules_about_requests_are_no_reasons_about_streams() -> None:
    found = explain_connect(STREAMS, person("bob"), "wiki")
    assert [one.rule.text for one in found.considered] == [
        "role admin: wiki tcp",
        "role emergency: break-glass",
    ]
    asked = explain(STREAMS, person("alice"), "wiki", method=b"GET", path=b"/")
    assert [one.rule.text for one in asked.considered] == [
        "role web: wiki/all any /",
        "role emergency: break-glass",
    ]


def test_break_glass_of_a_stream_is_pointed_out() -> None:
    found = explain_connect(STREAMS, person("root"), "desktop")
    assert next(found.lines()).endswith("tcp on desktop (break-glass, audited)")


def test_stream_that_no_role_gives_needs_a_binding() -> None:
    roles = STREAMS.roles[:3]
    policy = Policy(roles, STREAMS.backends, STREAMS.tcp)
    found = explain_connect(policy, person("bob"), "lonely")
    assert found.changes == ("a role with bob@example.com and the binding {backend: lonely}",)
    assert found.considered == ()


def test_stream_to_what_has_no_tcp_has_nothing_to_change() -> None:
    assert list(explain_connect(STREAMS, person("root"), "nope").lines()) == [
        "REFUSED (unknown_backend): root@example.com: tcp on nope",
        "  There is nothing by this name here.",
        "what would change it:",
        "  nothing: no backend with tcp is called nope",
    ]


def test_stream_whose_decision_failed_is_explained_without_rules() -> None:
    broken = cast("frozenset[str]", None)
    subject = Subject(SubjectKind.USER, "i", "s", "okta", groups=broken)
    found = explain_connect(STREAMS, subject, "desktop")
    assert isinstance(found.decision, Deny)
    assert found.decision.reason is DenyReason.INTERNAL
    assert (found.considered, found.changes, found.rule) == ((), (), None)
