from __future__ import annotations

import json

import pytest

from heim_config.agents import Agent, AgentsCa
from heim_config.model import Config
from tests.unit.config.samples import FILE, GOOD, HEAD, IDENTITY, load, told

AGENTS = """\
agents:
  - {name: desktop, targets: [ssh, web]}
  - {name: pool, targets: [web], group: true}
"""


def through(fields: str, more: str = "") -> str:
    """A whole configuration whose only backend has one route, on line 15, to an agent."""
    extra = f"    {more}\n" if more else ""
    return f"{HEAD}{IDENTITY}backends:\n  - name: app\n    http: [{{{fields}}}]\n{extra}{AGENTS}"


def tcp(fields: str) -> str:
    """A whole configuration whose only backend has this `tcp`, on line 15."""
    return f"{HEAD}{IDENTITY}backends:\n  - name: ssh\n    tcp: {{{fields}}}\n{AGENTS}"


def test_there_are_no_agents_unless_somebody_says_so() -> None:
    config = load(GOOD)
    assert (config.agents, config.agents_ca) == ((), None)
    assert not any(role.approve_agents for role in config.roles)


def test_an_agent_has_targets_and_is_one_machine() -> None:
    assert load(GOOD + AGENTS).agents == (
        Agent(name="desktop", targets=("ssh", "web")),
        Agent(name="pool", targets=("web",), group=True),
    )


def test_tcp_goes_through_an_agent() -> None:
    (backend,) = load(tcp("agent: desktop, target: ssh, idle: 1h")).backends
    assert backend.tcp is not None
    assert (backend.tcp.agent, backend.tcp.target) == ("desktop", "ssh")
    assert (backend.tcp.upstream, backend.tcp.idle) == (None, 3600.0)


@pytest.mark.parametrize(
    ("fields", "more", "scheme"),
    [
        ("path: /, agent: desktop, target: web", "", "http"),
        ("path: /, agent: desktop, target: web, scheme: http", "", "http"),
        (
            "path: /, agent: pool, target: web, scheme: https",
            "upstream_tls: {server_name: app.internal}",
            "https",
        ),
        (
            "path: /, agent: pool, target: web, scheme: https",
            "upstream_tls: {insecure: true}",
            "https",
        ),
    ],
)
def test_http_goes_through_an_agent(fields: str, more: str, scheme: str) -> None:
    (backend,) = load(through(fields, more)).backends
    (route,) = backend.http
    assert (route.target, route.scheme, route.endpoints) == ("web", scheme, ())


def test_a_backend_may_have_routes_of_both_kinds() -> None:
    fields = "path: /a, agent: desktop, target: web}, {path: /, upstream: 'http://h'"
    assert [route.agent for route in load(through(fields)).backends[0].http] == ["desktop", None]


def test_an_authority_of_ones_own_is_read_again_when_it_changes() -> None:
    config = load(GOOD + "agents_ca: {cert_file: ca/ca.pem, key_file: /run/ca.key}\n")
    assert config.agents_ca == AgentsCa(cert_file=FILE.parent / "ca/ca.pem", key_file="/run/ca.key")
    assert {FILE.parent / "ca/ca.pem", config.agents_ca.key_file} <= set(config.files())


def test_a_role_may_let_agents_in() -> None:
    config = load(GOOD.replace("  - name: admin\n", "  - name: admin\n    approve_agents: true\n"))
    assert [role.approve_agents for role in config.roles] == [True]


def test_what_is_loaded_can_be_written_and_loaded_again() -> None:
    more = "upstream_tls: {server_name: app.internal}"
    config = load(through("path: /, agent: pool, target: web, scheme: https", more))
    written = json.dumps(config.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert load(written) == config


MISTAKES = {
    "agent without a name": (GOOD + "agents: [{targets: [a]}]\n", "24: agents[0].name: is missing"),
    "agent without targets": (
        GOOD + "agents: [{name: a}]\n",
        "24: agents[0].targets: is missing",
    ),
    "no targets": (GOOD + "agents: [{name: a, targets: []}]\n", "24: agents[0].targets: must not"),
    "one target": (
        GOOD + "agents: [{name: a, targets: ssh}]\n",
        "24: agents[0].targets: must be a list, not text; begin each item with a dash",
    ),
    "misspelt targets": (
        GOOD + "agents: [{name: a, target: [ssh]}]\n",
        "24: agents[0].target: unknown key; did you mean targets?",
    ),
    "target twice": (
        GOOD + "agents: [{name: a, targets: [b, c, b]}]\n",
        '24: agents[0].targets[2]: "b" is in the list already',
    ),
    "too many targets": (
        GOOD + f"agents: [{{name: a, targets: [{', '.join(f't{n:060d}' for n in range(17))}]}}]\n",
        "24: agents[0].targets: has more than 1000 characters",
    ),
    "target with a port": (
        GOOD + "agents: [{name: a, targets: ['localhost:22']}]\n",
        '24: agents[0].targets[0]: "localhost:22" is not a name',
    ),
    "name with a slash": (
        GOOD + "agents: [{name: a/b, targets: [c]}]\n",
        '24: agents[0].name: "a/b" is not a name; names are',
    ),
    "dots": (GOOD + "agents: [{name: .., targets: [c]}]\n", '24: agents[0].name: ".." is not a'),
    "upper case": (
        GOOD + "agents: [{name: Db, targets: [c]}]\n",
        '24: agents[0].name: "Db" is not',
    ),
    "group in words": (
        GOOD + "agents: [{name: a, targets: [c], group: many}]\n",
        "24: agents[0].group: must be true or false, not text",
    ),
    "name twice": (
        GOOD + "agents: [{name: a, targets: [c]}, {name: a, targets: [d]}]\n",
        '24: agents[1].name: "a" is the name of another one in this list; names are unique',
    ),
    "authority without a key": (
        GOOD + "agents_ca: {cert_file: x}\n",
        "24: agents_ca.key_file: is missing",
    ),
    "authority with a word of a key": (
        GOOD + "agents_ca: {cert_file: x, keyfile: y}\n",
        "24: agents_ca.keyfile: unknown key; did you mean key_file?",
    ),
    "approval in words": (
        GOOD.replace("  - name: admin\n", "  - name: admin\n    approve_agents: all\n"),
        "15: roles[0].approve_agents: must be true or false, not text",
    ),
    "unknown agent of tcp": (
        tcp("agent: desktpo, target: ssh"),
        '15: backends[0].tcp.agent: there is no agent "desktpo"; did you mean desktop?',
    ),
    "unknown agent, nothing near": (
        tcp("agent: zzz, target: ssh"),
        '15: backends[0].tcp.agent: there is no agent "zzz"; there are desktop, pool',
    ),
    "no agent at all": (
        tcp("agent: desktop, target: ssh").replace(AGENTS, ""),
        '15: backends[0].tcp.agent: there is no agent "desktop"; none is defined',
    ),
    "unknown target of tcp": (
        tcp("agent: desktop, target: shh"),
        '15: backends[0].tcp.target: agent desktop has no target "shh"; did you mean ssh?',
    ),
    "target of another agent": (
        tcp("agent: pool, target: ssh"),
        '15: backends[0].tcp.target: agent pool has no target "ssh"; there are web',
    ),
    "unknown agent of http": (
        through("path: /, agent: dekstop, target: web"),
        '15: backends[0].http[0].agent: there is no agent "dekstop"; did you mean desktop?',
    ),
    "unknown target of http": (
        through("path: /, agent: desktop, target: wbe"),
        '15: backends[0].http[0].target: agent desktop has no target "wbe"; did you mean web?',
    ),
    "upstream besides": (
        through("path: /, upstream: 'http://h', agent: desktop, target: web"),
        "15: backends[0].http[0]: needs exactly one of upstream, upstreams and agent with target",
    ),
    "agent alone": (
        through("path: /, agent: desktop"),
        "15: backends[0].http[0].agent: needs target: which of the agent's",
    ),
    "target alone": (
        through("path: /, target: web"),
        "15: backends[0].http[0].target: needs agent: whose target it is",
    ),
    "scheme of an upstream": (
        through("path: /, upstream: 'http://h', scheme: https"),
        "15: backends[0].http[0].scheme: is only for a target of an agent; an upstream's URL says",
    ),
    "another scheme": (
        through("path: /, agent: desktop, target: web, scheme: h2"),
        '15: backends[0].http[0].scheme: "h2" is not one of http, https',
    ),
    "https without a name": (
        through("path: /, agent: desktop, target: web, scheme: https"),
        "15: backends[0].http[0].scheme: needs upstream_tls.server_name: a target of an agent has",
    ),
    "https with an authority and no name": (
        through(
            "path: /, agent: desktop, target: web, scheme: https", "upstream_tls: {ca_file: c}"
        ),
        "15: backends[0].http[0].scheme: needs upstream_tls.server_name",
    ),
    "TLS for http through an agent": (
        through("path: /, agent: desktop, target: web", "upstream_tls: {server_name: a.b}"),
        "16: backends[0].upstream_tls: means nothing, because no upstream is https",
    ),
}


@pytest.mark.parametrize(("text", "part"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_place_and_what_to_write(text: str, part: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert found[0].startswith(part)


def test_a_mistake_in_an_agent_does_not_hide_references_to_it() -> None:
    """An agent that cannot be used is still the one that the backend means."""
    (only,) = told(tcp("agent: desktop, target: ssh").replace("group: true", "group: 1"))
    assert only.startswith("18: agents[1].group")


def test_sections_of_the_reference_follow_the_order_of_the_file() -> None:
    keys = list(Config.model_fields)
    assert keys.index("agents") < keys.index("agents_ca") < keys.index("tunnel")


def test_a_name_fits_into_a_certificate_and_may_have_dots() -> None:
    assert Agent(name="shop." + "a" * 58, targets=("ssh",)).name.startswith("shop.")
    [found] = told(GOOD + f"agents: [{{name: shop.{'a' * 59}, targets: [ssh]}}]\n")
    assert "is longer than 63 characters" in found
