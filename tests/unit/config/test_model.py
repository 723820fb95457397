from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from heim_config.backends import DIALECTS, METHODS, Backend, Location, Timeouts
from heim_config.model import Certificate, Config
from tests.unit.config.samples import GOOD, backend, load


def test_public_urls_carry_the_port_only_when_it_is_another() -> None:
    assert load(GOOD).public_url("a.example") == "https://a.example"
    config = load(GOOD + "public_port: 8443\n")
    assert config.public_url("a.example") == "https://a.example:8443"


@pytest.mark.parametrize(
    ("keys", "hosts"),
    [
        ("max_session_age: 1h", ("app.x.example.com",)),
        ("host: a.example", ("a.example",)),
        ("hosts: [a.example, b.example]", ("a.example", "b.example")),
        ("host: a.example\n    hosts: [b.example]", ("a.example", "b.example")),
    ],
)
def test_a_backend_has_the_hosts_that_are_named_or_one_of_its_own(
    keys: str, hosts: tuple[str, ...]
) -> None:
    config = load(backend(keys))
    assert config.backend_hosts(config.backends[0]) == hosts


def test_a_directory_stands_for_the_two_files_of_a_tls_secret() -> None:
    certificate = Certificate(directory=Path("/mnt"))
    assert certificate.pair == (Path("/mnt/tls.crt"), Path("/mnt/tls.key"))


def test_files_are_secrets_keys_and_authorities_but_not_certificates() -> None:
    config = load(
        backend("upstream_tls: {ca_file: up.pem}")
        .replace("http://127.0.0.1:3000", "https://h")
        .replace("      hosted_domains", "      ca_file: idp.pem\n      hosted_domains")
        + "session: {key_file: s}\nassertion: {key_file: a}\n"
    )
    assert config.files() == tuple(
        Path("/etc/heim") / name for name in ("secrets/google", "idp.pem", "s", "a", "up.pem")
    )
    assert config.certificate_files() == (
        Path("/etc/heim/tls/tls.crt"),
        Path("/etc/heim/tls/tls.key"),
    )


def test_listeners_tell_their_addresses() -> None:
    config = load(GOOD + "listeners: {http: null}\n")
    assert [str(address) for address in config.listeners.addresses()] == [
        "0.0.0.0:443",
        "127.0.0.1:9440",
    ]


def test_a_configuration_cannot_be_changed() -> None:
    config = load(GOOD)
    with pytest.raises(ValidationError):
        config.drain = 1.0  # type: ignore[misc]
    hash(config.backends[0].timeouts)


def test_code_builds_sections_with_numbers_and_paths() -> None:
    assert Timeouts(connect=1.5).connect == 1.5
    built = Backend.model_validate(
        {"name": "a", "http": [{"path": "/", "upstream": "http://h"}], "max_session_age": 60}
    )
    assert built.max_session_age == 60.0
    assert Config.model_validate({"domain": "x.example"}).login_host == "auth.x.example"


def test_a_value_in_the_wrong_place_is_not_quoted_by_the_error_of_code() -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"domain": "x.example", "session": {"secret": "hunter2"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_word_makes_a_location(method: str) -> None:
    config = load(backend(f"permissions: [{{name: p, locations: [{{{method}: /a}}]}}]"))
    assert config.backends[0].permissions[0].locations == (Location(method, "/a"),)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_can_be_chosen(dialect: str) -> None:
    assert load(backend(f"identity_headers: [{dialect}]")).backends[0].identity_headers == (
        dialect,
    )


def test_upgrades_are_compared_in_lower_case() -> None:
    assert load(backend("upgrades: [WebSocket, SPDY/3.1]")).backends[0].upgrades == (
        "websocket",
        "spdy/3.1",
    )
