from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kube_objects import proxy
from tests.fakes.kube_schema import complaints

GOOD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a guard": {"maxRouteDropPercent": 30},
    "hosts": {"domain": "x.example.com", "loginHost": "login.x.example.com"},
    "certificates": {"certificates": ["wildcard", "shop/wildcard.example.com"]},
    "an issuer": {"certificateIssuer": {"name": "letsencrypt", "hosts": ["*.x.example.com"]}},
    "another issuer": {"certificateIssuer": {"name": "a", "kind": "AWSPCAIssuer", "group": "b.c"}},
    "default roles": {"defaultRoles": ["staff", "team-a/editors"], "defaultAuth": "None"},
    "all namespaces may be public": {"ingress": {"allowPublic": {}}},
    "selectors": {
        "backendSelector": {"namespaceSelector": {"matchLabels": {"heim.dev/served": "true"}}},
        "roleSelector": {
            "matchExpressions": [
                {"key": "team", "operator": "In", "values": ["a", "b"]},
                {"key": "heim.dev/x", "operator": "Exists"},
            ]
        },
    },
    "hosts by namespace": {
        "ingress": {
            "allowCatchAll": True,
            "hostOwnership": "Strict",
            "externalName": "Refused",
            "hostSuffixes": [
                {"suffixes": ["apps.example.com", ".example.org", "*.example.net"]},
                {"namespaceSelector": {"matchLabels": {"a": ""}}, "suffixes": []},
            ],
        }
    },
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "more than everything": ({"maxRouteDropPercent": 101}, "out of range"),
    "a key that is none": ({"domian": "x"}, "domian: is not known"),
    "a domain with a port": ({"domain": "x.example.com:8443"}, "spec.domain"),
    "capitals": ({"loginHost": "Login.example.com"}, "spec.loginHost"),
    "a wildcard to sign in on": ({"loginHost": "*.example.com"}, "spec.loginHost"),
    "a Secret that leads elsewhere": ({"certificates": ["a/b/c"]}, "spec.certificates[0]"),
    "a Secret twice": ({"certificates": ["a", "a"]}, "twice"),
    "an issuer without a name": ({"certificateIssuer": {}}, "certificateIssuer.name: is required"),
    "a mode that is none": ({"defaultAuth": "Optional"}, "spec.defaultAuth"),
    "a role with a dot": ({"defaultRoles": ["a.b"]}, "spec.defaultRoles[0]"),
    "catch-all as text": ({"ingress": {"allowCatchAll": "yes"}}, "is not boolean"),
    "an operator that is none": (
        {"roleSelector": {"matchExpressions": [{"key": "a", "operator": "Equals"}]}}, "operator",
    ),
    "an operator without values": (
        {"roleSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "need values",
    ),
    "an operator with values": (
        {"roleSelector": {"matchExpressions": [
            {"key": "a", "operator": "Exists", "values": ["x"]}]}}, "need values",
    ),
    "suffixes without a list": ({"ingress": {"hostSuffixes": [{}]}}, "suffixes: is required"),
    "too many names": (
        {"certificateIssuer": {"name": "a", "hosts": [f"a{n}.example.com" for n in range(100)]}},
        "too many",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_is_taken(case: str) -> None:
    assert complaints(proxy(**GOOD[case])) == []


@pytest.mark.parametrize("case", BAD)
def test_is_refused(case: str) -> None:
    spec, place = BAD[case]
    assert place in "; ".join(complaints(proxy(**spec)))
