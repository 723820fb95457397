from __future__ import annotations

from collections.abc import Iterator

import pytest

from heim_config.backends import Backend
from heim_config.coherence import contradictions
from heim_config.crosscheck import Judged, Names
from heim_config.model import Config
from heim_config.problems import Finding
from tests.unit.config.samples import (
    BACKENDS,
    GOOD,
    HEAD,
    IDENTITY,
    backend,
    both,
    load,
    tcp_only,
    told,
)

PROVIDER = """\
    - name: {name}
      type: oidc
      client_id: x
      client_secret_file: s
      issuer: https://{name}.example.com
"""


def two_providers(one: str = "", two: str = "") -> str:
    """A configuration with the providers one and two, with further keys."""
    rows = PROVIDER.format(name="one") + one + PROVIDER.format(name="two") + two
    return f"{HEAD}identity:\n  providers:\n{rows}{BACKENDS}"


DOMAINS_ONE = "      domains: [one.example]\n"
DOMAINS_TWO = "      domains: [two.example]\n"


def role(member: str = "{user: a@one.example}", binding: str = "") -> str:
    """A role with one member, and perhaps a binding."""
    return f"roles: [{{name: r, members: [{member}], bindings: [{binding}]}}]\n"


BOTH = two_providers(DOMAINS_ONE, DOMAINS_TWO)

MISTAKES = {
    "unknown backend": (
        GOOD.replace("backend: grafana,", "backend: grafna,"),
        'roles[0].bindings[0].backend: there is no backend "grafna"; did you mean grafana?',
    ),
    "unknown backend, nothing near": (
        GOOD.replace("backend: grafana,", "backend: zzz,"),
        'there is no backend "zzz"; there are grafana, status',
    ),
    "unknown permission": (
        GOOD.replace("permission: all", "permission: write"),
        'backend grafana has no permission "write"; there are all, read',
    ),
    "no permission named": (
        GOOD.replace(", permission: all", ""),
        "roles[0].bindings[0].permission: is missing: which permission of grafana; "
        "it has all, read",
    ),
    "no permission to name": (
        backend("max_session_age: 1h") + role("{user: a@b.example}", "{backend: app}"),
        "which permission of app; it has none yet",
    ),
    "permission of a backend with tcp alone": (
        tcp_only() + role("{user: a@b.example}", "{backend: ssh, permission: all}"),
        "16: roles[0].bindings[0].permission: ssh has no http, so it has no permissions; "
        "remove it: a binding without permission gives tcp",
    ),
    "unknown permission of a backend with both": (
        both() + role("{user: a@b.example}", "{backend: app}, {backend: app, permission: all}"),
        '17: roles[0].bindings[1].permission: backend app has no permission "all"',
    ),
    "no permission named, tcp: null": (
        backend("tcp: null") + role("{user: a@b.example}", "{backend: app}"),
        "roles[0].bindings[0].permission: is missing: which permission of app; it has none yet",
    ),
    "binding to a public backend": (
        GOOD.replace("backend: grafana, permission: all", "backend: status"),
        "roles[0].bindings[0].backend: status is public, so a binding decides nothing",
    ),
    "derived host is the login host": (
        BACKENDS.replace("name: status", "name: auth") + HEAD + IDENTITY,
        "backends[1].name: auth.x.example.com is the login host",
    ),
    "host is the login host": (
        backend("host: AUTH.x.example.com."),
        "backends[0].host: auth.x.example.com is the login host",
    ),
    "one of the hosts is the login host": (
        backend("hosts: [a.example, sso.example]") + "login_host: sso.example\n",
        "backends[0].hosts[1]: sso.example is the login host",
    ),
    "host of two backends": (
        GOOD.replace("  - name: grafana\n", "  - name: grafana\n    host: status.x.example.com\n"),
        "backends[1].name: status.x.example.com is a host of backend grafana already",
    ),
    "two spellings of one host": (
        backend("hosts: [bücher.example, XN--bcher-kva.example]"),
        "backends[0].hosts[1]: xn--bcher-kva.example is a host of backend app already",
    ),
    "one wildcard twice": (
        backend("hosts: ['*.a.example', '*.A.example']"),
        "backends[0].hosts[1]: *.a.example is a host of",
    ),
    "two backends of one name": (
        GOOD.replace("name: status", "name: grafana, host: b.example"),
        'backends[1].name: "grafana" is the name of another one in this list',
    ),
    "two permissions of one name": (
        GOOD.replace("name: read", "name: all"),
        'backends[0].permissions[1].name: "all" is the name of another one',
    ),
    "two providers of one name": (
        BOTH.replace("name: two", "name: one"),
        'identity.providers[1].name: "one" is the name of another one',
    ),
    "two service accounts of one name": (
        GOOD + "service_accounts: [{name: ci}, {name: ci}]\n",
        "service_accounts[1].name",
    ),
    "no certificate": (
        f"domain: x.example.com\n{IDENTITY}{BACKENDS}",
        "tls.certificates: has no certificate",
    ),
    "no provider": (HEAD + BACKENDS, "identity.providers: has no provider"),
    "idle longer than lifetime": (
        GOOD + "session: {lifetime: 1h, idle: 2h}\n",
        "session.idle: is longer than lifetime",
    ),
    "one address twice": (
        GOOD + 'listeners: {http: {address: "0.0.0.0:443"}}\n',
        "listeners.http.address: 0.0.0.0:443 is listeners.https's address already",
    ),
    "provider without domains": (
        two_providers(DOMAINS_ONE),
        "identity.providers[1].domains: is required with several providers",
    ),
    "domain of two providers": (
        two_providers(DOMAINS_ONE, DOMAINS_ONE.replace("one.ex", "ONE.ex")),
        "identity.providers[1].domains[0]: one.example belongs to provider one already",
    ),
    "google elsewhere": (
        GOOD.replace("type: google", "type: google\n      issuer: https://id.example.com"),
        "identity.providers[0].issuer: is always https://accounts.google.com for google",
    ),
    "azure for everybody": (
        GOOD.replace(
            "type: google",
            "type: azure\n      issuer: https://login.microsoftonline.com/Common/v2.0",
        ),
        "issuer: names no tenant",
    ),
    "azure without domains": (
        GOOD.replace(
            "type: google",
            "type: azure\n      issuer: https://login.microsoftonline.com/1f2e3d/v2.0",
        ).replace("      hosted_domains: [example.com]\n", ""),
        "hosted_domains: is required for azure",
    ),
    "group of nobody's": (
        BOTH + role("{group: sre}"),
        'roles[0].members[0].provider: is missing: whose group "sre" is meant; '
        "providers are one, two",
    ),
    "group of an unknown provider": (
        BOTH + role("{group: sre, provider: tow}"),
        'members[0].provider: there is no provider "tow"; did you mean two?',
    ),
    "service account that is not there": (
        GOOD.replace("{user: alice@example.com}", "{service_account: deploy}"),
        'members[0].service_account: there is no service account "deploy"; none is defined',
    ),
    "issuer that nobody signs in with": (
        BOTH + role("{issuer: 'https://on.example.com', subject: '7'}"),
        "members[0].issuer: there is no provider with the issuer",
    ),
    "user whom no provider vouches for": (
        BOTH + role("{user: a@three.example}"),
        "members[0].user: a@three.example can never sign in",
    ),
}


@pytest.mark.parametrize(("text", "part"), MISTAKES.values(), ids=MISTAKES.keys())
def test_parts_that_do_not_fit_together_are_told(text: str, part: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert part in found[0]


FITTING = {
    "two providers": BOTH,
    "group with provider": BOTH + role("{group: sre, provider: two}"),
    "user of the second provider": BOTH + role("{user: a@two.example}"),
    "pair of a provider": BOTH + role("{issuer: 'https://one.example.com', subject: '7'}"),
    "group with one provider": GOOD,
    "tcp by a binding without permission": tcp_only()
    + role("{user: a@b.example}", "{backend: ssh}"),
    "http and tcp of one backend, each by its own binding": both(
        "permissions: [{name: p, locations: [{any: /}]}]"
    )
    + role("{user: a@b.example}", "{backend: app}, {backend: app, permission: p}"),
    "service account": GOOD.replace("{user: alice@example.com}", "{service_account: ci}")
    + "service_accounts: [{name: ci}]\n",
    "break-glass role without bindings": GOOD.replace(
        "    bindings: [{backend: grafana, permission: all}]", "    break_glass: true"
    ),
    "public over http": backend("allow_http: true\n    public: true"),
    "one path, exact and prefix": GOOD.replace(
        '[{path: /, upstream: "http://127.0.0.1:3000"}]',
        '[{path: /a, upstream: "http://h"}, {path: /a, match: exact, upstream: "http://i"}]',
    ),
    "any free port twice": GOOD
    + 'listeners: {https: {address: "127.0.0.1:0"}, http: {address: "127.0.0.1:0"}}\n',
    "wildcard beside its own exact host": backend("hosts: ['*.a.example', b.a.example]"),
    "wildcard over the login host": backend("host: '*.x.example.com'"),
    "azure": GOOD.replace(
        "type: google",
        "type: azure\n      issuer: https://login.microsoftonline.com/1f2e3d/v2.0",
    ),
}


@pytest.mark.parametrize("text", FITTING.values(), ids=FITTING.keys())
def test_parts_that_fit_together_load(text: str) -> None:
    assert told(text) == []


def test_a_damaged_part_is_not_judged_by_what_was_taken_out_of_it() -> None:
    """`public: perhaps` is one mistake; that allow_http needs public is not a second one."""
    found = told(backend("allow_http: true\n    public: perhaps"))
    assert len(found) == 1
    assert "public: must be true or false" in found[0]


def test_a_misspelt_kind_is_not_told_again_at_the_bindings() -> None:
    """With `tpc` nobody can say whether a binding without permission is right."""
    text = tcp_only().replace("tcp:", "tpc:") + role("{user: a@b.example}", "{backend: ssh}")
    (found,) = told(text)
    assert "backends[0].tpc: unknown key; did you mean tcp?" in found


def test_mistakes_of_members_do_not_silence_those_of_bindings() -> None:
    text = GOOD.replace("{user: alice@example.com}", "{user: alice}").replace(
        "permission: all", "permission: al"
    )
    assert [row.split(": ")[1] for row in told(text)] == [
        "roles[0].members[0].user",
        "roles[0].bindings[0].permission",
    ]


def test_places_are_those_of_the_text_when_parts_before_them_are_broken() -> None:
    """The first member is taken out to check the rest; the second must not become the first."""
    text = BOTH + role("{user: x}, {group: a}, {nobody: x}, {group: b}")
    assert [row.split(": ")[1] for row in told(text)] == [
        "roles[0].members[0].user",
        "roles[0].members[1].provider",
        "roles[0].members[2].nobody",
        "roles[0].members[3].provider",
    ]


class TestJudged:
    """What was said of the very same backends is said again, as long as it is true."""

    def test_a_contradiction_is_said_each_time_and_found_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good, looked = load(GOOD), list[str]()

        def counting(one: Backend, config: Config) -> Iterator[Finding]:
            looked.append(one.name)
            return contradictions(one, config)

        monkeypatch.setattr("heim_config.crosscheck.contradictions", counting)
        bad = good.backends[0].model_copy(update={"allow_http": True, "public": False})
        config = good.model_copy(update={"backends": (bad, *good.backends[1:])})
        judged, names = Judged(), Names({})
        first = list(judged.check(config, names))
        assert [finding.loc for finding in first] == [("backends", 0, "allow_http")]
        assert list(judged.check(config, names)) == first
        assert looked == [one.name for one in config.backends]

    def test_another_domain_or_listener_is_another_question(self) -> None:
        config = load(GOOD)
        public = config.backends[0].model_copy(
            update={"public": True, "allow_http": True, "permissions": ()}
        )
        config = config.model_copy(update={"backends": (public,)})
        judged, names = Judged(), Names({})
        assert not list(judged.check(config, names))
        listeners = config.listeners.model_copy(update={"http": None})
        [found] = judged.check(config.model_copy(update={"listeners": listeners}), names)
        assert "needs the plain listener" in found.message
        assert not list(judged.check(config, names))

    def test_agents_are_looked_up_each_time(self) -> None:
        config = load(GOOD)
        route = config.backends[0].http[0].model_copy(update={"agent": "desk", "target": "web"})
        through = config.backends[0].model_copy(update={"http": (route,)})
        config = config.model_copy(update={"backends": (through,)})
        judged = Judged()
        agents = [{"name": "desk", "targets": ["web"]}]
        assert not list(judged.check(config, Names({"agents": agents})))
        [found] = judged.check(config, Names({"agents": []}))
        assert 'no agent "desk"' in found.message
