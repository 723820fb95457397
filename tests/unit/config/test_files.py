from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.files import MAX_FILE_BYTES, check_files, exposed
from heim_config.load import load_text
from heim_config.model import Config
from tests.unit.config.samples import GOOD, load

PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

EVERYTHING = (
    GOOD.replace(
        "client_secret_file: secrets/google", "client_secret_env: GOOGLE\n      ca_file: ca.pem"
    ).replace("    - {cert_file", "    - {directory: mounted}\n    - {cert_file")
    + "session: {key_file: session.keys}\nassertion: {key_file: assertion.pem}\n"
    + "agents_ca: {cert_file: ca/agents.pem, key_file: ca/agents.key}\n"
).replace(
    '[{path: /, upstream: "http://127.0.0.1:3000"}]',
    '[{path: /, upstream: "https://h"}]\n    upstream_tls: {ca_file: upstream.pem}',
)

FILES = {
    "ca.pem": PEM,
    "mounted/tls.crt": b"x",
    "mounted/tls.key": b"x",
    "tls/tls.crt": b"x",
    "tls/tls.key": b"x",
    "session.keys": b"x",
    "assertion.pem": b"x",
    "upstream.pem": PEM,
    "ca/agents.pem": PEM,
    "ca/agents.key": b"x",
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return load(EVERYTHING, file=tmp_path / "heim.yaml")


def found(config: Config) -> list[tuple[str, str]]:
    return [
        (".".join(map(str, finding.loc)), finding.message)
        for finding in check_files(config, {"GOOGLE": "secret"})
    ]


PLACES = {
    "ca.pem": "identity.providers.0.ca_file",
    "mounted/tls.crt": "tls.certificates.0.directory",
    "mounted/tls.key": "tls.certificates.0.directory",
    "tls/tls.crt": "tls.certificates.1.cert_file",
    "tls/tls.key": "tls.certificates.1.key_file",
    "session.keys": "session.key_file",
    "assertion.pem": "assertion.key_file",
    "upstream.pem": "backends.0.upstream_tls.ca_file",
    "ca/agents.pem": "agents_ca.cert_file",
    "ca/agents.key": "agents_ca.key_file",
}


def test_files_that_are_there_are_not_complained_about(config: Config) -> None:
    assert found(config) == []


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_a_missing_file_is_told_at_the_key_that_names_it(
    config: Config, tmp_path: Path, name: str, place: str
) -> None:
    (tmp_path / name).unlink()
    [(where, message)] = found(config)
    assert where == place
    assert message == f"the file {tmp_path / name} cannot be read: No such file or directory"


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_an_empty_file_is_told(config: Config, tmp_path: Path, name: str, place: str) -> None:
    (tmp_path / name).write_bytes(b"\n")
    [(where, message)] = found(config)
    assert where == place
    assert "is empty" in message or "holds no PEM certificate" in message


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_a_huge_file_is_not_taken(config: Config, tmp_path: Path, name: str, place: str) -> None:
    (tmp_path / name).write_bytes(PEM * (MAX_FILE_BYTES // len(PEM) + 2))
    [(where, message)] = found(config)
    assert where == place
    assert "is larger than" in message


@pytest.mark.parametrize("name", ["ca.pem", "upstream.pem"])
def test_an_authority_must_be_a_certificate(config: Config, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    [(_, message)] = found(config)
    assert "holds no PEM certificate" in message


def test_a_missing_key_is_answered_with_the_command_that_makes_one(
    config: Config, tmp_path: Path
) -> None:
    (tmp_path / "session.keys").unlink()
    [finding] = check_files(config, {"GOOGLE": "secret"})
    assert finding.hint == "`heim-proxy keygen session` prints one"


def test_a_variable_that_is_not_set_is_told(config: Config) -> None:
    [finding] = check_files(config, {})
    assert finding.loc == ("identity", "providers", 0, "client_secret_env")
    assert finding.message == "the environment variable GOOGLE is not set"


def test_certificates_may_come_later_where_one_of_our_own_stands_in() -> None:
    document = """\
domain: x.example.com
tls: {certificates: [{cert_file: absent.crt, key_file: absent.key}], self_signed: SIGNED}
"""
    own = load_text(document.replace("SIGNED", "true"), file=Path("/nowhere/heim.yaml"))
    assert not list(check_files(own))
    none = load_text(document.replace("SIGNED", "false"), file=Path("/nowhere/heim.yaml"))
    assert len(list(check_files(none))) == 2


def test_a_webroot_must_be_a_directory(tmp_path: Path) -> None:
    text = "domain: a.test\ntls: {self_signed: true}\nlisteners: {http: {acme: {webroot: DIR}}}\n"
    (tmp_path / "file").write_text("")
    for name, count in (("file", 1), ("absent", 1), ("", 0)):
        path = tmp_path / name
        config = load_text(text.replace("DIR", str(path)), file=Path("/nowhere/heim.yaml"))
        found = list(check_files(config))
        assert len(found) == count
        assert not count or f"{path} is no directory" in found[0].message


class TestExposed:
    SECRETS = {
        "google": "identity.providers[0].client_secret_file",
        "session.keys": "session.key_file",
        "assertion.pem": "assertion.key_file",
        "ca/agents.key": "agents_ca.key_file",
        "mounted/tls.key": "tls.certificates[0]",
        "tls/tls.key": "tls.certificates[1]",
    }

    def configured(self, place: Path, mode: int) -> Config:
        for name in FILES | self.SECRETS:
            (place / name).parent.mkdir(exist_ok=True, mode=0o755)
            (place / name).write_bytes(FILES.get(name, b"x"))
            (place / name).chmod(mode)
        text = EVERYTHING.replace("client_secret_env: GOOGLE", "client_secret_file: google")
        return load(text, file=place / "heim.yaml")

    def test_a_secret_that_everybody_can_read_is_told_with_the_remedy(
        self, open_path: Path
    ) -> None:
        told = list(exposed(self.configured(open_path, 0o644)))
        assert told == [
            f"{key}: everybody on this machine can read {open_path / name}; "
            f"run: chmod o= {open_path / name}"
            for name, key in self.SECRETS.items()
        ]

    def test_what_a_group_reads_is_ordinary(self, open_path: Path) -> None:
        assert list(exposed(self.configured(open_path, 0o640))) == []

    def test_what_nobody_else_can_get_at_is_not_exposed(self, open_path: Path) -> None:
        config = self.configured(open_path, 0o644)
        open_path.chmod(0o750)
        assert list(exposed(config)) == []

    def test_a_file_that_is_not_there_is_for_others_to_tell(self, open_path: Path) -> None:
        config = self.configured(open_path, 0o640)
        (open_path / "tls/tls.key").unlink()
        assert list(exposed(config)) == []
