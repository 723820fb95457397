from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_config.document import MAX_BYTES
from heim_config.hosts import Upstream
from heim_config.load import MAX_PROBLEMS, load_file
from heim_config.model import Config
from heim_config.problems import ConfigError
from tests.fakes.thorough import examples
from tests.unit.config.samples import (
    BACKENDS,
    FILE,
    GOOD,
    HEAD,
    IDENTITY,
    ROLES,
    backend,
    load,
    permission,
    problems,
    route,
    told,
)


def test_a_good_configuration_loads_with_its_defaults() -> None:
    config = load(GOOD)
    assert config.login_host == "auth.x.example.com"
    assert config.session.lifetime == 86400.0
    assert config.session.idle == 28800.0
    assert config.drain == 30.0
    assert config.state.path == Path("/var/lib/heim/state.db")
    assert str(config.listeners.https.address) == "0.0.0.0:443"
    assert str(config.listeners.admin.address) == "127.0.0.1:9440"
    assert config.listeners.http is not None
    grafana = config.backends[0]
    assert grafana.http[0].endpoints == (Upstream("http", "127.0.0.1", 3000),)
    assert [(spot.method, spot.pattern) for spot in grafana.permissions[0].locations] == [
        ("any", "/")
    ]
    assert grafana.timeouts.connect == 5.0
    assert config.trusted_proxies == ()
    assert config.listeners.https.proxy_protocol.from_ == ()


def test_relative_paths_start_at_the_file() -> None:
    config = load(
        GOOD
        + "session: {key_file: keys/s, lifetime: 1d}\nassertion: {key_file: /k/a.pem}\n"
        + 'state: {url: "sqlite://state.db"}\n'
    )
    assert config.tls.certificates[0].pair == (
        Path("/etc/heim/tls/tls.crt"),
        Path("/etc/heim/tls/tls.key"),
    )
    assert config.state.path == Path("/etc/heim/state.db")
    assert config.files() == (
        Path("/etc/heim/secrets/google"),
        Path("/etc/heim/keys/s"),
        Path("/k/a.pem"),
    )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/s.db", "/var/s.db"),
        ("sqlite:////var/s.db", "/var/s.db"),
        ("sqlite://///var/s.db", "/var/s.db"),
        ("sqlite://s.db", "/etc/heim/s.db"),
        ("sqlite://../s.db", "/etc/heim/../s.db"),
    ],
)
def test_leading_slashes_of_the_state_url_are_collapsed(url: str, path: str) -> None:
    assert load(f"{GOOD}state: {{url: '{url}'}}\n").state.path == Path(path)


def test_json_is_a_configuration_too() -> None:
    config = load(GOOD)
    assert load(config.model_dump_json(by_alias=True, exclude_defaults=True)) == config


def test_what_is_loaded_can_be_written_and_loaded_again() -> None:
    text = GOOD.replace(
        "public: true,", "public: true, cors: {allow_origins: [https://a.example]},"
    )
    config = load(text + "listeners: {http: null, admin: {address: 'unix:/run/a'}}\n")
    written = json.dumps(config.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert load(written) == config


def test_all_mistakes_are_reported_at_once_in_line_order() -> None:
    text = """\
version: 2
domain: x.example.com
public_port: "443"
drain: 30
tls:
  certificates:
    - {cert_file: tls.crt}
identity:
  providers:
    - name: Google
      type: gogle
      client_id: 12
      client_secret: hunter2
session: {lifetime: 1h}
roles:
  - name: admin
    members: [{gruop: x}, {user: alice}]
    bindings: [{backend: grafna, permission: all}, {backend: app}, {backend: app, permission: raed}]
  - name: admin
backends:
  - name: app
    http: [{path: /.heim, upstrem: "http://127.0.0.1"}, {path: /x, upstream: "ftp://h"}]
    permissions: [{name: read, locations: [{gte: /}, {any: /**}]}]
  - name: auth
    public: yes
    allow_http: true
    http: [{path: /, upstream: "http://h"}]
    domian: x
agents: [{name: pi, target: [ssh]}]
"""
    found = told(text)
    lines = [int(row.split(":")[0]) for row in found]
    assert lines == sorted(lines)
    assert "hunter2" not in "".join(found)
    expected = [
        "1: version: must be 1",
        "3: public_port: must be a whole number, not text; remove the quotes",
        "4: drain: 30 has no unit; write 30s, 30m, 30h or 30d",
        "7: tls.certificates[0]: needs cert_file and key_file, or directory",
        '10: identity.providers[0].name: "Google" is not a name',
        '11: identity.providers[0].type: "gogle" is not one of google, okta, azure, oidc; '
        "did you mean google?",
        "12: identity.providers[0].client_id: must be text, and 12 is a number; "
        'put it in quotes: "12"',
        "13: identity.providers[0].client_secret: secrets come from",
        "14: session.idle: is longer than lifetime",
        "17: roles[0].members[0].gruop: unknown key; did you mean group?",
        '17: roles[0].members[1].user: "alice" is not an e-mail address',
        '18: roles[0].bindings[0].backend: there is no backend "grafna"',
        "18: roles[0].bindings[1].permission: is missing: which permission of app; it has read",
        '18: roles[0].bindings[2].permission: backend app has no permission "raed"; '
        "did you mean read?",
        '19: roles[1].name: "admin" is the name of another one',
        '22: backends[0].http[0].path: "/.heim" is under /.heim',
        "22: backends[0].http[0].upstrem: unknown key; did you mean upstream?",
        '22: backends[0].http[1].upstream: "ftp://h" does not start with http:// or https://',
        '23: backends[0].permissions[0].locations[0].gte: "gte" is not a method; did you mean get?',
        '23: backends[0].permissions[0].locations[1].any: "/**": ** is not a wildcard',
        '25: backends[1].public: "yes" without quotes',
        "28: backends[1].domian: unknown key",
        "29: agents[0].target: unknown key; did you mean targets?",
    ]
    missing = [part for part in expected if not any(row.startswith(part) for row in found)]
    assert missing == []
    assert len(found) <= len(expected) + 2, found


UNKNOWN = {
    "top": (GOOD + "backend: []\n", "backend", "did you mean backends?"),
    "listeners": (GOOD + "listeners: {htps: null}\n", "listeners.htps", "did you mean https?"),
    "https": (
        GOOD + 'listeners: {https: {adress: "0.0.0.0:1"}}\n',
        "listeners.https.adress",
        "did you mean address?",
    ),
    "proxy_protocol": (
        GOOD + "listeners: {https: {proxy_protocol: {form: []}}}\n",
        "listeners.https.proxy_protocol.form",
        "did you mean from?",
    ),
    "code spelling": (
        GOOD + "listeners: {https: {proxy_protocol: {from_: []}}}\n",
        "listeners.https.proxy_protocol.from_",
        "did you mean from?",
    ),
    "admin": (GOOD + "listeners: {admin: {port: 1}}\n", "listeners.admin.port", "keys here are"),
    "tls": (HEAD + "  certs: []\n", "tls.certs", "the keys here are certificates"),
    "identity": (
        HEAD + "identity: {provider: []}\n",
        "identity.provider",
        "did you mean providers?",
    ),
    "session": (GOOD + "session: {keyfile: x}\n", "session.keyfile", "did you mean key_file?"),
    "state": (GOOD + "state: {uri: x}\n", "state.uri", "did you mean url?"),
    "assertion": (GOOD + "assertion: {file: x}\n", "assertion.file", "key_file"),
    "timeouts": (
        backend("timeouts: {firstbyte: 1s}"),
        "backends[0].timeouts.firstbyte",
        "did you mean first_byte?",
    ),
    "upstream_tls": (
        backend("upstream_tls: {servername: x}"),
        "backends[0].upstream_tls.servername",
        "did you mean server_name?",
    ),
    "cors": (
        backend("cors: {allow_origins: ['https://a.example'], origin: x}"),
        "backends[0].cors.origin",
        None,
    ),
    "route": (
        route("path: /, upstream: 'http://h', strip: true"),
        "backends[0].http[0].strip",
        None,
    ),
    "capitals": (GOOD + "Drain: 1s\n", "Drain", "did you mean drain?"),
    "boolean word": (GOOD + "true: 1\n", "true", None),
    "number": (GOOD + "1: 1\n", '["1"]', None),
    "empty": (GOOD + '"": 1\n', '[""]', None),
    "hostile": (GOOD + '"a\\nb.c[0]: x": 1\n', '["a\\nb.c[0]: x"]', None),
}


@pytest.mark.parametrize(("text", "path", "hint"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_key_is_told_with_the_nearest_one(
    text: str, path: str, hint: str | None
) -> None:
    [problem] = [found for found in problems(text) if found.message == "unknown key"]
    assert problem.path == path
    assert hint is None or hint in (problem.hint or "")
    assert str(problem).isprintable()


WRONG_TYPES = {
    "text for number": (GOOD + "public_port: eighty\n", "public_port: must be a whole number"),
    "float for number": (GOOD + "public_port: 443.0\n", "public_port: must be a whole number"),
    "boolean for number": (GOOD + "public_port: true\n", "public_port: must be a whole number"),
    "port 0": (GOOD + "public_port: 0\n", "public_port: 0 must be at least 1"),
    "port too high": (GOOD + "public_port: 65536\n", "public_port: 65536 must be at most 65535"),
    "negative port": (GOOD + "public_port: -1\n", "public_port: -1 must be at least 1"),
    "number for text": (GOOD.replace("name: status", "name: 7"), "must be text, and 7 is a number"),
    "boolean for text": (
        GOOD.replace("name: status", "name: true"),
        'must be text, and true is a boolean; put it in quotes: "true"',
    ),
    "no for text": (GOOD.replace("name: status", "name: no"), '"no" without quotes is a boolean'),
    "off for text": (GOOD.replace("name: status", "name: off"), '"off" without quotes'),
    "date for text": (
        GOOD.replace("name: status", "name: 2024-01-01"),
        '"2024-01-01" without quotes is a date',
    ),
    "octal for text": (GOOD.replace("name: status", "name: 0600"), '"0600" without quotes'),
    "null for text": (GOOD.replace("name: status", "name: ~"), "must be text, not nothing"),
    "list for text": (GOOD.replace("name: status", "name: [a]"), "must be text, not a list"),
    "text for boolean": (
        GOOD.replace("public: true", 'public: "true"'),
        "public: must be true or false, not text",
    ),
    "number for boolean": (GOOD.replace("public: true", "public: 1"), "must be true or false"),
    "null for boolean": (GOOD.replace("public: true", "public: ~"), "must be true or false"),
    "text for list": (GOOD + "trusted_proxies: 10.0.0.0/8\n", "must be a list, not text"),
    "mapping for list": (GOOD.replace(ROLES, "roles: {name: x}\n"), "roles: must be a list"),
    "nothing for list": (
        GOOD.replace(ROLES, "roles:\n"),
        "roles: must be a list, not nothing; write [] for none",
    ),
    "text for mapping": (GOOD + "session: 24h\n", "session: must be a mapping"),
    "list for mapping": (GOOD + "session: []\n", "session: must be a mapping"),
    "nothing for mapping": (GOOD + "session:\n", "session: must be a mapping"),
    "text in list of mappings": (
        GOOD.replace(ROLES, "roles: [x]\n"),
        "roles[0]: must be a mapping",
    ),
    "null where allowed not": (GOOD + "listeners: {https: null}\n", "listeners.https: must be a"),
    "negative duration": (GOOD + "drain: -5s\n", 'drain: "-5s" is not a duration'),
    "zero duration": (GOOD + "drain: 0s\n", "drain: "),
    "duration without unit": (GOOD + 'drain: "5"\n', 'drain: "5" is not a duration'),
    "version as text": (GOOD.replace("version: 1", 'version: "1"'), "version: must be 1"),
    "file as number": (GOOD.replace("secrets/google", "7"), "must be the path of a file"),
    "empty file": (GOOD.replace("secrets/google", '""'), "must be the path of a file"),
    "nul in file": (GOOD.replace("secrets/google", '"a\\0b"'), "is not the path of a file"),
    "name in capitals": (GOOD.replace("name: status", "name: Status"), '"Status" is not a name'),
    "name too long": (GOOD.replace("name: status", f"name: {'a' * 64}"), "is not one label"),
    "name with a dot": (GOOD.replace("name: status", "name: a.b"), "is not one label"),
    "two lines of text": (GOOD.replace("1234.apps.googleusercontent.com", '"a\\nb"'), "one line"),
    "blank text": (GOOD.replace("1234.apps.googleusercontent.com", '" a"'), "begin or end"),
}


@pytest.mark.parametrize(("text", "part"), WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_a_value_of_the_wrong_kind_is_told_once(text: str, part: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert part in found[0]


REFUSED = {
    "relative route": (route("path: x, upstream: 'http://h'"), "http[0].path"),
    "route under /.heim": (route("path: /.heim/x, upstream: 'http://h'"), "/.heim"),
    "route with query": (route("path: '/x?y', upstream: 'http://h'"), "query"),
    "route with dots": (route("path: /x/../y, upstream: 'http://h'"), "dot segment"),
    "route without upstream": (
        route("path: /"),
        "exactly one of upstream, upstreams and agent with target",
    ),
    "route with both": (
        route("path: /, upstream: 'http://h', upstreams: ['http://i']"),
        "exactly one",
    ),
    "no upstreams": (route("path: /, upstreams: []"), "upstreams: is an empty list"),
    "upstream with path": (route("path: /, upstream: 'http://h/base'"), "keep the path"),
    "exact strip": (
        route("path: /x, match: exact, strip_prefix: true, upstream: 'http://h'"),
        "strip_prefix",
    ),
    "unknown match": (route("path: /, match: regex, upstream: 'http://h'"), "not one of prefix"),
    "no routes": (
        f"{HEAD}{IDENTITY}backends: [{{name: a, http: []}}]\n",
        "http: must not be empty",
    ),
    "neither http nor tcp": (
        f"{HEAD}{IDENTITY}backends: [{{name: a}}]\n",
        "backends[0]: needs http, tcp or both; there is nothing to reach",
    ),
    "double star": (permission("{any: /a/**}"), "** is not a wildcard"),
    "star in segment": (permission("{any: /a*}"), "one whole segment"),
    "regex": (permission("{any: '^/a$'}"), "does not start with a slash"),
    "regex in path": (permission("{any: '/a/[0-9]+'}"), "regular expression"),
    "pattern with dots": (permission("{any: /a/../b}"), "dot segment"),
    "pattern with encoded dots": (permission("{any: /a/%2e%2e/b}"), "dot segment"),
    "pattern with query": (permission("{any: '/a?b=c'}"), "query"),
    "pattern under /.heim": (permission("{any: /.heim/me}"), "/.heim"),
    "two methods": (permission("{get: /, post: /}"), "not a location"),
    "no method": (permission("{}"), "not a location"),
    "only a path": (permission("/a"), "not a location"),
    "wrong method": (permission("{gett: /a}"), "did you mean get?"),
    "capital method": (permission("{GET: /a}"), "did you mean get?"),
    "connect": (permission("{connect: /a}"), '"connect" is not a method'),
    "null pattern": (permission("{get: }"), "locations[0].get"),
    "no locations": (
        backend("permissions: [{name: p, locations: []}]"),
        "locations: must not be empty",
    ),
    "host is a URL": (backend("host: https://a.example.com"), "is a URL"),
    "host with port": (backend('host: "a.example.com:8443"'), "remove the port"),
    "host is an address": (backend("host: 10.0.0.1"), "is an address"),
    "catch-all host": (backend('host: "*"'), "* can only be the whole first label"),
    "inner wildcard": (backend('host: "a.*.example.com"'), "* can only be"),
    "two stars": (backend('hosts: ["*.*.example.com"]'), "hosts[0]"),
    "unknown dialect": (backend("identity_headers: [heimdal]"), "did you mean heimdallr?"),
    "unknown forward_path": (backend("forward_path: both"), "canonical, raw"),
    "h2c upgrade": (backend("upgrades: [h2c]"), "cannot be allowed"),
    "http upgrade": (backend("upgrades: [HTTP/2.0]"), "cannot be allowed"),
    "origin star": (backend('allowed_origins: ["*"]'), "every site"),
    "cors star": (backend('cors: {allow_origins: ["*"]}'), "every site"),
    "cors without origins": (backend("cors: {allow_origins: []}"), "must not be empty"),
    "cors connect": (
        backend("cors: {allow_origins: ['https://a.example'], allow_methods: [CONNECT]}"),
        "allow_methods",
    ),
    "cors reserved header": (
        backend("cors: {allow_origins: ['https://a.example'], allow_headers: [X_Heim-Host]}"),
        "reserved for Heim",
    ),
    "cors header line": (
        backend("cors: {allow_origins: ['https://a.example'], expose_headers: ['A: b']}"),
        "not a header name",
    ),
    "insecure and ca": (
        backend("upstream_tls: {insecure: true, ca_file: ca.pem}"),
        "would ignore ca_file",
    ),
    "two certificate forms": (
        HEAD.replace("{cert_file", "{directory: d, cert_file") + IDENTITY,
        "or directory",
    ),
    "memory state": (GOOD + 'state: {url: "sqlite://:memory:"}\n', "must outlive"),
    "state with query": (GOOD + 'state: {url: "sqlite:///a?mode=ro"}\n', "plain path"),
    "other store": (GOOD + 'state: {url: "postgres://h/d"}\n', "not a state URL"),
    "state directory": (GOOD + 'state: {url: "sqlite:///var/lib/"}\n', "names no file"),
    "listener by name": (
        GOOD + 'listeners: {https: {address: "localhost:443"}}\n',
        "not an IP address",
    ),
    "public socket": (
        GOOD + 'listeners: {https: {address: "unix:/run/x"}}\n',
        "only listeners.admin can",
    ),
    "trust everybody": (GOOD + 'trusted_proxies: ["0.0.0.0/0"]\n', "anyone"),
    "plain http issuer": (
        GOOD.replace("type: google", "type: oidc\n      issuer: http://id.example.com"),
        "plain http off this machine",
    ),
    "no issuer": (GOOD.replace("type: google", "type: okta"), "issuer: is missing"),
    "empty hosted_domains": (
        GOOD.replace("hosted_domains: [example.com]", "hosted_domains: []"),
        "every domain",
    ),
    "empty domains": (
        GOOD.replace("hosted_domains: [example.com]", "domains: []"),
        "every domain",
    ),
    "two secrets": (
        GOOD.replace("hosted_domains: [example.com]", "client_secret_env: X"),
        "exactly one of client_secret_file and client_secret_env",
    ),
    "no openid": (
        GOOD.replace("hosted_domains: [example.com]", "scopes: [email]"),
        "must hold openid",
    ),
    "scopes in one text": (
        GOOD.replace("hosted_domains: [example.com]", "scopes: ['openid email']"),
        "each scope as its own item",
    ),
    "nobody": (GOOD.replace("{user: alice@example.com}", "{}"), "names nobody"),
    "two forms": (
        GOOD.replace("{user: alice@example.com}", "{user: a@example.com, domain: example.com}"),
        "names user and domain",
    ),
    "subject without issuer": (
        GOOD.replace("{user: alice@example.com}", "{subject: '7'}"),
        "both issuer and subject",
    ),
    "provider without group": (
        GOOD.replace("{user: alice@example.com}", "{domain: example.com, provider: google}"),
        "only groups belong",
    ),
    "email wildcard": (GOOD.replace("alice@example.com", '"*@example.com"'), "write domain:"),
}


@pytest.mark.parametrize(("text", "part"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused(text: str, part: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert part in found[0]


def test_the_samples_that_are_broken_above_load_as_they_are() -> None:
    load(GOOD)
    load(backend("max_session_age: 1h"))
    load(route("path: /x, upstream: 'http://h'"))
    load(permission("{get: /a}"))


@pytest.mark.parametrize(
    ("text", "path", "part"),
    [
        (backend("webhooks: []"), "backends[0].webhooks", "arrives with webhooks"),
        (
            GOOD + "listeners: {https: {acme: {}}}\n",
            "listeners.https.acme",
            "belongs to the plain listener",
        ),
    ],
)
def test_keys_of_later_versions_or_other_places_are_told_and_never_ignored(
    text: str, path: str, part: str
) -> None:
    [problem] = problems(text)
    assert problem.path == path
    assert part in problem.message


def test_hosts_are_canonical_wherever_they_are_written() -> None:
    name = "  - name: grafana\n"
    text = GOOD.replace("domain: x.example.com", "domain: X.Bücher.Example.")
    config = load(text.replace(name, f"{name}    hosts: [Graf.Example.COM, '*.G.example']\n"))
    assert config.domain == "x.xn--bcher-kva.example"
    assert config.login_host == "auth.x.xn--bcher-kva.example"
    assert config.backend_hosts(config.backends[0]) == ("graf.example.com", "*.g.example")
    assert config.backend_hosts(config.backends[1]) == ("status.x.xn--bcher-kva.example",)


def test_a_mistake_in_one_place_does_not_hide_references_to_it() -> None:
    """A backend that cannot be used is still the one that the role means."""
    text = GOOD.replace('upstream: "http://127.0.0.1:3000"', 'upstream: "ftp://h"')
    [problem] = problems(text)
    assert problem.path == "backends[0].http[0].upstream"


def test_a_broken_domain_is_told_once_and_the_rest_is_still_checked() -> None:
    text = GOOD.replace("domain: x.example.com", "domain: x y", 1).replace(
        "{backend: grafana, permission: all}", "{backend: other, permission: all}"
    )
    assert [problem.path for problem in problems(text)] == [
        "domain",
        "roles[0].bindings[0].backend",
    ]


def test_a_missing_domain_is_told_at_the_top() -> None:
    [problem] = problems(GOOD.replace("domain: x.example.com\n", "", 1))
    assert str(problem) == f"{FILE}:1: domain: is missing"


def test_a_key_given_twice_is_told_at_its_second_line() -> None:
    assert told(GOOD + "domain: y.example.com\n") == [
        f"{GOOD.count(chr(10)) + 1}: domain: is given twice (first on line 2)"
    ]


def test_many_mistakes_are_bounded() -> None:
    text = GOOD + "trusted_proxies: [" + ", ".join(f"x{i}" for i in range(5000)) + "]\n"
    found = problems(text)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].message == "and 4900 more mistakes"


def test_a_large_configuration_loads_in_reasonable_time() -> None:
    rows = "".join(
        f"  - name: b{i}\n"
        '    http: [{path: /, upstream: "http://127.0.0.1:3000"}]\n'
        "    permissions: [{name: all, locations: [{any: /}]}]\n"
        for i in range(2000)
    )
    started = time.process_time()
    assert len(load(f"{HEAD}{IDENTITY}backends:\n{rows}").backends) == 2000
    assert time.process_time() - started < 4


# Files


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def good_directory(tmp_path: Path) -> Path:
    write(tmp_path / "tls/tls.crt", "certificate")
    write(tmp_path / "tls/tls.key", "key")
    write(tmp_path / "secrets/google", "hunter2\n")
    return write(tmp_path / "heim.yaml", GOOD)


def only(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    [problem] = caught.value.problems
    return str(problem)


def test_a_file_loads(tmp_path: Path) -> None:
    assert isinstance(load_file(good_directory(tmp_path)), Config)


def test_missing_files_are_told_with_the_line_that_names_them(tmp_path: Path) -> None:
    path = good_directory(tmp_path)
    (tmp_path / "secrets/google").unlink()
    assert only(path) == (
        f"{path}:11: identity.providers[0].client_secret_file: the file "
        f"{tmp_path}/secrets/google cannot be read: No such file or directory"
    )
    load_file(path, check_files=False)


def test_a_rejected_configuration_names_the_files_that_may_mend_it(tmp_path: Path) -> None:
    path = good_directory(tmp_path)
    (tmp_path / "tls/tls.key").unlink()
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert set(caught.value.files) == {
        tmp_path / "secrets/google",
        tmp_path / "tls/tls.crt",
        tmp_path / "tls/tls.key",
    }


@pytest.mark.parametrize(
    ("content", "part"),
    [
        pytest.param(b"", ":1: is empty", id="empty"),
        pytest.param(b"\n\n", ":1: is empty", id="blank"),
        pytest.param(b"a: 1\nb: \xff\n", ":2: is not UTF-8 text", id="latin1"),
        pytest.param("a: 1\n".encode("utf-16"), ":1: is not UTF-8 text", id="utf16"),
        pytest.param(b"a: 1\nb: \x00\n", ":2: has the control character U+0000", id="nul"),
        pytest.param(b"- a\n", ":1: is not a mapping", id="list"),
        pytest.param(b"hello\n", ":1: is not a mapping", id="text"),
        pytest.param(b"a: [\n", ": is not valid YAML", id="syntax"),
        pytest.param(b"#" * (MAX_BYTES + 1), ": is larger than 8 MiB", id="huge"),
    ],
)
def test_a_file_that_is_no_configuration_is_told(tmp_path: Path, content: bytes, part: str) -> None:
    path = write(tmp_path / "heim.yaml", content)
    assert part in only(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = good_directory(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    load_file(path)


def test_a_missing_configuration_says_how_to_write_one(tmp_path: Path) -> None:
    found = only(tmp_path / "heim.yaml")
    assert "cannot be read: No such file or directory; `heim-proxy init` writes one" in found


def test_a_directory_is_not_a_configuration(tmp_path: Path) -> None:
    assert "is not a regular file" in only(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "heim.yaml")
    assert "is not a regular file" in only(tmp_path / "heim.yaml")


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "heim.yaml").symlink_to("heim.yaml")
    assert "cannot be read" in only(tmp_path / "heim.yaml")


# Anything at all


@settings(max_examples=examples(200), deadline=None)
@given(st.text(max_size=200))
def test_any_text_loads_or_is_answered_with_problems_that_are_one_line_each(text: str) -> None:
    assert all(str(problem).isprintable() for problem in problems(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
SECTIONS = list(Config.model_fields)


@settings(max_examples=examples(300), deadline=None)
@given(st.dictionaries(st.sampled_from(SECTIONS), JSON), st.integers(0, 3))
def test_any_value_in_any_section_is_answered_with_problems(
    replaced: dict[str, object], depth: int
) -> None:
    data: dict[str, object] = json.loads(
        load(GOOD).model_dump_json(by_alias=True, exclude_none=True)
    )
    for key, value in replaced.items():
        place: object = data
        # Break something inside the section where it has an inside, else the section itself.
        if depth and isinstance(data.get(key), list) and data[key]:
            place = data[key]
            assert isinstance(place, list)
            place[0] = value if depth == 1 else {**place[0], "name": value}
        else:
            data[key] = value
    found = problems(json.dumps(data))
    assert all(problem.line is not None for problem in found[:MAX_PROBLEMS])


def test_backends_alone_need_no_login_when_all_are_public() -> None:
    load(HEAD + BACKENDS.splitlines()[0] + "\n" + BACKENDS.splitlines()[-1] + "\n")
