from __future__ import annotations

import pytest

from heim_config.coherence import contradictions
from tests.unit.config.samples import (
    GOOD,
    HEAD,
    IDENTITY,
    backend,
    both,
    load,
    tcp_only,
    told,
)

NO_HTTP = "means nothing, because the backend has no http"

MISTAKES = {
    "permissions of a public backend": (
        backend("public: true\n    permissions: [{name: p, locations: [{any: /}]}]"),
        "backends[0].permissions: decide nothing",
    ),
    "session age of a public backend": (
        backend("public: true\n    max_session_age: 1h"),
        "backends[0].max_session_age: means nothing",
    ),
    "allow_http without public": (backend("allow_http: true"), "allow_http: needs public: true"),
    "allow_http without listener": (
        backend("allow_http: true\n    public: true") + "listeners: {http: null}\n",
        "allow_http: needs the plain listener",
    ),
    "one path twice": (
        GOOD.replace(
            '[{path: /, upstream: "http://127.0.0.1:3000"}]',
            '[{path: /é, upstream: "http://h"}, {path: /%C3%A9, upstream: "http://i"}]',
        ),
        'backends[0].http[1].path: "/%C3%A9" is the path of another route already',
    ),
    "tls settings for nothing": (
        backend("upstream_tls: {insecure: true}"),
        "upstream_tls: means nothing, because no upstream is https",
    ),
    "public tcp": (
        tcp_only("public: true"),
        "16: backends[0].public: is impossible with tcp: its streams always belong to somebody "
        "who signed in; remove it",
    ),
    "public http beside tcp": (
        both("public: true"),
        "17: backends[0].public: is impossible with tcp: its streams always belong to somebody "
        "who signed in; give what is public a backend of its own",
    ),
    "permissions of tcp": (
        tcp_only("permissions: [{name: p, locations: [{any: /}]}]"),
        f"16: backends[0].permissions: {NO_HTTP}; a binding without permission gives tcp",
    ),
    "no permissions of tcp": (tcp_only("permissions: []"), f"permissions: {NO_HTTP}"),
    "allow_http of tcp": (tcp_only("allow_http: true"), f"16: backends[0].allow_http: {NO_HTTP}"),
    "identity_headers of tcp": (
        tcp_only("identity_headers: [heimdallr]"),
        f"16: backends[0].identity_headers: {NO_HTTP}",
    ),
    "cors of tcp": (
        tcp_only("cors: {allow_origins: ['https://a.example']}"),
        f"16: backends[0].cors: {NO_HTTP}",
    ),
    "allowed_origins of tcp": (
        tcp_only("allowed_origins: ['https://a.example']"),
        f"16: backends[0].allowed_origins: {NO_HTTP}",
    ),
    "upstream_tls of tcp": (
        tcp_only("upstream_tls: {insecure: true}"),
        f"16: backends[0].upstream_tls: {NO_HTTP}",
    ),
    "forward_path of tcp": (
        tcp_only("forward_path: raw"),
        f"16: backends[0].forward_path: {NO_HTTP}",
    ),
    "upgrades of tcp": (tcp_only("upgrades: []"), f"16: backends[0].upgrades: {NO_HTTP}"),
    "first byte of tcp": (
        tcp_only("timeouts: {first_byte: 1s}"),
        f"16: backends[0].timeouts.first_byte: {NO_HTTP}",
    ),
    "idle of tcp in the wrong place": (
        tcp_only("timeouts: {idle: 1h}"),
        f"16: backends[0].timeouts.idle: {NO_HTTP}; write tcp: {{idle: ...}}",
    ),
}


@pytest.mark.parametrize(("text", "part"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_backend_that_contradicts_itself_is_told_once(text: str, part: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert part in found[0]


COHERENT = {
    "tcp alone": tcp_only(),
    "wildcard host, one upstream": tcp_only('host: "*.dev.example"'),
    "several hosts": tcp_only("hosts: [a.example, b.example]"),
    "session age of tcp": tcp_only("max_session_age: 1h"),
    "not public in so many words": tcp_only("public: false"),
    "connect timeout of tcp": tcp_only("timeouts: {connect: 2s}"),
    "http and tcp": both(),
    "http keys of a backend with both": both(
        "permissions: [{name: p, locations: [{any: /}]}]\n    identity_headers: [forwarded]\n"
        "    forward_path: raw\n    upgrades: []\n    allowed_origins: ['https://a.example']\n"
        "    timeouts: {first_byte: 1s, idle: 1h}"
    ),
}


@pytest.mark.parametrize("text", COHERENT.values(), ids=COHERENT.keys())
def test_a_coherent_backend_loads(text: str) -> None:
    config = load(text)
    assert not list(contradictions(config.backends[0], config))


def test_every_key_that_means_nothing_is_told_at_once() -> None:
    found = told(tcp_only("public: true\n    forward_path: raw\n    allow_http: true"))
    assert [row.split(": ")[1] for row in found] == [
        "backends[0].public",
        "backends[0].forward_path",
        "backends[0].allow_http",
    ]


SHARED = """\
backends:
  - name: one
    hosts: [a.example.com, b.example.com]
    http:
      - {path: /, upstream: "http://127.0.0.1:1"}
      - {path: /x, host: a.example.com, unavailable: the Service is gone}
  - name: shop.two
    hosts: [a.example.com]
    http:
      - {path: /y, upstream: "http://127.0.0.1:2"}
      - {path: /, match: exact, upstreams: ["http://127.0.0.1:2"]}
    tcp: {upstream: "10.0.0.5:22"}
  - name: rest
    public: true
    hosts: ["*"]
    http: [{path: /, upstream: "http://127.0.0.1:3"}]
"""


def shared(old: str = "", new: str = "") -> str:
    """Three backends that share hosts and no path, with something changed."""
    assert old in SHARED
    return HEAD + IDENTITY + SHARED.replace(old, new)


def test_backends_may_share_hosts_if_they_share_no_path() -> None:
    config = load(shared())
    assert [backend.name for backend in config.backends] == ["one", "shop.two", "rest"]
    assert config.backends[0].http[1].host == "a.example.com"
    assert config.backends[0].http[1].unavailable == "the Service is gone"
    assert config.backends[0].http[1].endpoints == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("path: /y", "path: /x", "a.example.com is a host of backend one already"),
        ("path: /y", "path: /%78", "a.example.com is a host of backend one already"),
        ("path: /, match: exact", "path: /", "a.example.com is a host of backend one already"),
        ("host: a.example.com, ", "host: c.example.com, ", "is not a host of the backend"),
        ("path: /x, host: a.example.com", "path: /, host: a.example.com", "of another route"),
        ('    hosts: [a.example.com]\n', "", "is not one label; write hosts"),
        ("    public: true\n", "", "* needs public: true"),
        ('hosts: ["*"]', 'hosts: ["*", "*"]', "is a host of backend rest already"),
        ("unavailable: the Service is gone", "unavailable: ''", "must not be empty"),
        ("unavailable: the Service is gone", "unavailable: x, upstream: 'http://h'", "exactly one"),
    ],
)  # fmt: skip
def test_what_answers_never_depends_on_order(old: str, new: str, expected: str) -> None:
    found = told(shared(old, new))
    assert len(found) == 1, found
    assert expected in found[0]


def test_one_backend_has_the_tcp_of_a_host() -> None:
    more = '    tcp: {upstream: "10.0.0.6:22"}\n  - name: shop.two'
    [found] = told(shared("  - name: shop.two", more))
    assert "a.example.com is a host of backend one already" in found


def test_routes_for_different_hosts_may_have_one_path() -> None:
    text = shared("path: /x, host: a.example.com, unavailable: the Service is gone",
                  'path: /z, host: a.example.com, upstream: "http://h"}\n'
                  '      - {path: /z, host: b.example.com, upstream: "http://i"')  # fmt: skip
    assert len(load(text).backends[0].http) == 3
