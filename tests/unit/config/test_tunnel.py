from __future__ import annotations

import base64
import json

import pytest

from heim_config.hosts import Upstream
from heim_config.tunnel import TcpService, Tunnel
from tests.unit.config.samples import GOOD, load, tcp_only, told


def with_tcp(fields: str) -> str:
    """A whole configuration whose only backend has this `tcp`, on line 15."""
    return tcp_only().replace('upstream: "10.0.0.5:22"', fields)


def test_a_tcp_service_has_no_limits_unless_asked_for() -> None:
    (backend,) = load(tcp_only()).backends
    assert backend.tcp == TcpService(upstream=Upstream("tcp", "10.0.0.5", 22))
    assert (backend.tcp.idle, backend.tcp.max_duration) == (None, None)
    assert backend.http == ()


def test_limits_are_durations() -> None:
    (backend,) = load(with_tcp("upstream: 'unix:db.sock', idle: 30m, max_duration: 8h")).backends
    assert backend.tcp is not None
    assert backend.tcp.upstream == Upstream("unix", "/etc/heim/db.sock", 0)
    assert (backend.tcp.idle, backend.tcp.max_duration) == (1800.0, 28800.0)


def test_null_is_no_limit() -> None:
    assert load(with_tcp("upstream: 'h:1', idle: null, max_duration: null"))


def test_what_is_loaded_can_be_written_and_loaded_again() -> None:
    config = load(with_tcp("upstream: '[::1]:22', idle: 30m") + "tunnel: {streams_per_user: 7}\n")
    written = json.dumps(config.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert load(written) == config


def test_a_user_has_256_streams_unless_asked_for() -> None:
    assert load(GOOD).tunnel == Tunnel(streams_per_user=256)
    assert load(GOOD + "tunnel: {streams_per_user: 1}\n").tunnel.streams_per_user == 1
    assert load(GOOD + "tunnel: {}\n").tunnel == Tunnel()


MISTAKES = {
    "no upstream": (
        with_tcp("idle: 1h"),
        "15: backends[0].tcp: needs upstream, or agent and target; there is nowhere to go",
    ),
    "misspelt upstream": (
        with_tcp("upstrem: 'h:1'"),
        "15: backends[0].tcp.upstrem: unknown key; did you mean upstream?",
    ),
    "an agent besides": (
        with_tcp("upstream: 'h:1', agent: desktop, target: ssh"),
        "15: backends[0].tcp: has an upstream and an agent; its streams go to one place",
    ),
    "an agent without a target": (
        with_tcp("agent: desktop"),
        "15: backends[0].tcp.agent: needs target: which of the agent's",
    ),
    "a target without an agent": (
        with_tcp("target: ssh"),
        "15: backends[0].tcp.target: needs agent: whose target it is",
    ),
    "a target besides": (
        with_tcp("upstream: 'h:1', target: ssh"),
        "15: backends[0].tcp.target: needs agent: whose target it is",
    ),
    "misspelt agent": (
        with_tcp("agnt: desktop, target: ssh"),
        "15: backends[0].tcp.agnt: unknown key; did you mean agent?",
    ),
    "key that is none": (
        GOOD + "tunnel: {agent_tls_keys: [abc]}\n",
        '24: tunnel.agent_tls_keys[0]: "abc" is not a SHA-256 digest; write its 64',
    ),
    "key with something behind it": (
        GOOD + f"tunnel: {{agent_tls_keys: ['{'A' * 44}']}}\n",
        "24: tunnel.agent_tls_keys[0]: ",
    ),
    "key that is too short": (
        GOOD + f"tunnel: {{agent_tls_keys: ['{'ab' * 31}']}}\n",
        "24: tunnel.agent_tls_keys[0]: ",
    ),
    "key that YAML takes for a number": (
        GOOD + f"tunnel: {{agent_tls_keys: [{'12' * 32}]}}\n",
        "24: tunnel.agent_tls_keys[0]: ",
    ),
    "key without a list": (
        GOOD + "tunnel: {agent_tls_keys: abc}\n",
        "24: tunnel.agent_tls_keys: must be a list, not text; begin each item with a dash",
    ),
    "several upstreams": (
        with_tcp("upstreams: ['h:1']"),
        "15: backends[0].tcp.upstreams: unknown key; did you mean upstream?",
    ),
    "no port": (
        with_tcp("upstream: 10.0.0.5"),
        '15: backends[0].tcp.upstream: "10.0.0.5" is not a host and a port; '
        "write both: 10.0.0.5:22",
    ),
    "URL": (
        with_tcp("upstream: 'tcp://h:22'"),
        "15: backends[0].tcp.upstream: is a URL, but tcp has only a host and a port; write h:22",
    ),
    "brackets without quotes": (
        with_tcp("upstream: [::1]:22"),
        "15: is not valid YAML",
    ),
    "text": (
        tcp_only().replace('{upstream: "10.0.0.5:22"}', '"10.0.0.5:22"'),
        "15: backends[0].tcp: must be a mapping of keys to values, not text",
    ),
    "idle without unit": (
        with_tcp("upstream: 'h:1', idle: 60"),
        "15: backends[0].tcp.idle: 60 has no unit; write 60s, 60m, 60h or 60d",
    ),
    "idle: none": (
        with_tcp("upstream: 'h:1', idle: none"),
        '15: backends[0].tcp.idle: "none" is not a duration',
    ),
    "zero": (with_tcp("upstream: 'h:1', max_duration: 0s"), "15: backends[0].tcp.max_duration: "),
    "idle too long": (
        with_tcp("upstream: 'h:1', idle: 2h, max_duration: 1h"),
        "15: backends[0].tcp.idle: is longer than max_duration; a stream has ended by then",
    ),
    "no streams": (
        GOOD + "tunnel: {streams_per_user: 0}\n",
        "24: tunnel.streams_per_user: 0 must be at least 1",
    ),
    "too many streams": (
        GOOD + "tunnel: {streams_per_user: 65536}\n",
        "24: tunnel.streams_per_user: 65536 must be at most 65535",
    ),
    "streams as text": (
        GOOD + 'tunnel: {streams_per_user: "9"}\n',
        "24: tunnel.streams_per_user: must be a whole number, not text; remove the quotes",
    ),
    "unknown limit": (
        GOOD + "tunnel: {streams: 9}\n",
        "24: tunnel.streams: unknown key; did you mean streams_per_user?",
    ),
}


@pytest.mark.parametrize(("text", "part"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_place_and_what_to_write(text: str, part: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert found[0].startswith(part)


KEY = bytes(range(31)) + b"\xfb"
PADDED = base64.b64encode(KEY).decode()


@pytest.mark.parametrize(
    "written",
    [
        KEY.hex(),
        KEY.hex().upper(),
        PADDED,
        PADDED.rstrip("="),
        f"SHA256:{PADDED.rstrip('=')}",
        base64.urlsafe_b64encode(KEY).decode().rstrip("="),
    ],
    ids=["hexadecimal", "upper case", "base64", "unpadded", "as ssh prints it", "base64url"],
)
def test_the_key_of_a_load_balancer_is_written_as_its_tools_print_it(written: str) -> None:
    config = load(GOOD + f"tunnel: {{agent_tls_keys: ['{written}']}}\n")
    assert config.tunnel.agent_tls_keys == frozenset({KEY})
    again = json.dumps(config.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert load(again) == config
