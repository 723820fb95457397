"""Rules of one object."""

from __future__ import annotations

import time

from heim_controller.translation.objects import Ref
from heim_controller.translation.sites import Rule, Site, Target


def site(kind: str = "Ingress") -> Site:
    return Site(Ref(kind, "shop", "web"), ("", "shop/web", kind), "x")


def rule(name: str, path: str = "/foo") -> Rule:
    return Rule("a.test", path, "prefix", path, Target([name]), (0, 0))


def test_of_two_spellings_in_one_object_the_longer_wins() -> None:
    first = site()
    first.add(rule("short"))
    first.add(rule("long"), longer=True)
    second = site()
    second.add(rule("long"), longer=True)
    second.add(rule("short"))
    for one in (first, second):
        one.settle()
        assert [found.target.upstreams for found in one.rules] == [["long"]]


def test_other_paths_stay() -> None:
    one = site()
    one.add(rule("a", "/a"))
    one.add(rule("b", "/b"), longer=True)
    one.settle()
    assert len(one.rules) == 2


def test_thousands_of_longer_rules_take_no_time() -> None:
    one = site()
    began = time.process_time()
    for number in range(10_000):
        one.add(rule("short", f"/{number}"))
        one.add(rule("long", f"/{number}"), longer=True)
    one.settle()
    assert len(one.rules) == 10_000
    assert {found.target.upstreams[0] for found in one.rules} == {"long"}
    assert time.process_time() - began < 2


def test_a_rule_knows_its_place() -> None:
    one = Rule("a.test", "/", "prefix", "/", Target(), (1, 2))
    assert site().field_of(one) == "spec.rules[1].http.paths[2]"
    assert site("Backend").field_of(one) == "spec.http[2]"


def test_https_is_seen_in_upstreams_and_agents() -> None:
    assert Target(["https://10.0.0.1:443"]).is_https
    assert not Target(["http://10.0.0.1:80"]).is_https
    assert Target(agent=("a", "b", "https")).is_https
    assert not Target(unavailable="x").is_https
