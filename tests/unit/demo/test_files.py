from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from heim_config.load import load_file
from heim_proxy.cli.explain import explain_request, subject_of
from heim_proxy.demo.certificates import issue
from heim_proxy.demo.files import (
    DemoFiles,
    DemoPorts,
    NotADemoDirectoryError,
    hosts_of,
    public_url,
)

PORTS = DemoPorts(https=8443, http=8080, admin=9440, idp=40001, echo=40002, tcp=40003, office=40004)
CERTIFICATES = issue(hosts_of(PORTS), now=datetime.now(UTC))


def write(directory: Path) -> DemoFiles:
    files = DemoFiles(directory)
    files.write(ports=PORTS, certificates=CERTIFICATES, client_secret="a-client-secret")
    return files


def test_configuration_is_one_that_anybody_could_have_written(tmp_path: Path) -> None:
    config = load_file(write(tmp_path / "demo").configuration)
    assert [backend.name for backend in config.backends] == ["app", "status", "tcp", "office"]
    assert config.public_url(config.login_host) == "https://auth.localhost:8443"


@pytest.mark.parametrize("name", ["plain", "with space", 'qu"ote', "co: lon", "ümlaut"])
def test_state_is_inside_the_directory_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    files = write(tmp_path / name)
    assert load_file(files.configuration).state.path == tmp_path / name / "state" / "state.db"


def test_certificate_hosts_are_the_hosts_of_the_configuration(tmp_path: Path) -> None:
    config = load_file(write(tmp_path).configuration)
    hosts = {host for backend in config.backends for host in config.backend_hosts(backend)}
    assert hosts | {config.login_host} == set(hosts_of(PORTS))


def decided(path: Path, *, who: str, url: str) -> bool:
    config = load_file(path)
    subject = subject_of(config, who, groups=[], provider=None)
    return explain_request(config, subject, "GET", url).allowed


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://app.localhost:8443/", True),
        ("https://app.localhost:8443/live", True),
        ("https://app.localhost:8443/admin", False),
        ("https://app.localhost:8443/nosuch", False),
    ],
)
def test_bob_gets_the_everyday_pages_and_nothing_else(
    tmp_path: Path, url: str, allowed: bool
) -> None:
    path = write(tmp_path).configuration
    assert decided(path, who="bob@example.com", url=url) is allowed


@pytest.mark.parametrize(
    ("path", "served"),
    [("/", True), ("/headers.json", True), ("/admin", False), ("/live", False), ("/ws", False)],
)
def test_public_host_has_only_what_everybody_may_see(
    tmp_path: Path, path: str, served: bool
) -> None:
    found = decided(
        write(tmp_path).configuration,
        who="mallory@example.com",
        url=f"https://status.localhost:8443{path}",
    )
    assert found is served


@pytest.mark.parametrize("name", ["tls/server.key", "secrets/client"])
def test_secret_is_readable_by_its_owner_only(tmp_path: Path, name: str) -> None:
    files = write(tmp_path)
    assert stat.S_IMODE((files.directory / name).stat().st_mode) == 0o600


def test_secret_of_the_authority_is_nowhere(tmp_path: Path) -> None:
    files = write(tmp_path)
    keys = [path.name for path in files.directory.rglob("*") if path.suffix in {".key", ".pem"}]
    assert sorted(keys) == ["ca.pem", "server.key"]
    assert b"PRIVATE" not in files.ca.read_bytes()


def test_client_secret_is_not_in_the_configuration(tmp_path: Path) -> None:
    assert "a-client-secret" not in write(tmp_path).configuration.read_text()


def test_new_run_forgets_the_state_of_the_last_one(tmp_path: Path) -> None:
    state = write(tmp_path).directory / "state" / "state.db"
    state.touch()
    write(tmp_path)
    assert not state.exists()


def test_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "heim.yaml").write_text("mine")
    with pytest.raises(NotADemoDirectoryError, match="not empty"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["heim.yaml"]
    assert (tmp_path / "heim.yaml").read_text() == "mine"


def test_other_files_in_a_demo_directory_survive(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_link_in_a_demo_directory_is_removed_not_followed(tmp_path: Path) -> None:
    files = write(tmp_path / "demo")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    for path in sorted((files.directory / "state").iterdir()):
        path.unlink()
    (files.directory / "state").rmdir()
    (files.directory / "state").symlink_to(elsewhere)
    write(tmp_path / "demo")
    assert (elsewhere / "kept").exists()


@pytest.mark.parametrize(
    ("port", "url"),
    [(443, "https://app.localhost"), (8443, "https://app.localhost:8443")],
)
def test_url_names_the_port_unless_it_is_the_usual_one(port: int, url: str) -> None:
    ports = DemoPorts(https=port, http=1, admin=2, idp=3, echo=4, tcp=5, office=6)
    assert public_url("app.localhost", ports) == url
