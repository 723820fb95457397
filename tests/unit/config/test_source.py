from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.problems import Finding
from heim_config.source import DOCUMENT_KEYS, boot_part
from tests.unit.config.samples import FILE, GOOD, HEAD, IDENTITY, load, told

BOOT = "version: 1\ndomain: x.example.com\n" + IDENTITY
KUBERNETES = "source: {kubernetes: {config_map: heim-configuration}}\n"


def test_a_boot_file_loads_without_backends_and_certificates() -> None:
    config = load(BOOT + KUBERNETES)
    assert config.source is not None
    assert config.source.file is None
    wanted = config.source.kubernetes
    assert wanted is not None
    assert (wanted.config_map, wanted.namespace, wanted.account) == (
        "heim-configuration",
        None,
        None,
    )


def test_a_file_without_source_is_all_of_the_configuration() -> None:
    assert load(GOOD).source is None


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("source: {file: {path: document}}\n", FILE.parent / "document"),
        ("source: {file: {path: document, secrets: /mnt}}\n", Path("/mnt")),
    ],
    ids=["beside the document", "elsewhere"],
)
def test_paths_start_at_the_boot_file(text: str, secrets: Path) -> None:
    source = load(BOOT + text).source
    assert source is not None
    assert source.file is not None
    assert source.file.path == FILE.parent / "document"
    assert source.file.secrets_directory == secrets


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("source: {}\n", "source: needs exactly one of kubernetes and file"),
        (
            "source: {kubernetes: {config_map: a}, file: {path: b}}\n",
            "source: needs exactly one of kubernetes and file",
        ),
        ("source: {kubernetes: {}}\n", "source.kubernetes.config_map: is missing"),
        ("source: {kubernetes: {config_map: Heim}}\n", '"Heim" is not the name of an object'),
        ("source: {kubernetes: {config_map: a..b}}\n", '"a..b" is not the name of an object'),
        ('source: {kubernetes: {config_map: "../x"}}\n', '"../x" is not the name of an object'),
        (f"source: {{kubernetes: {{config_map: {'a' * 252}}}}}\n", "longer than 251 characters"),
        ("source: {kubernetes: {config_map: a, namespace: a.b}}\n", '"a.b" is not a name'),
        ("source: {kubernetes: {configmap: a}}\n", "did you mean config_map?"),
        ("source: {file: {}}\n", "source.file.path: is missing"),
    ],
    ids=[
        "neither", "both", "no name", "upper case", "dots", "path", "long", "namespace", "misspelt",
        "no path",
    ],
)  # fmt: skip
def test_a_source_that_leads_nowhere_is_refused(source: str, message: str) -> None:
    assert any(message in one for one in told(BOOT + source)), told(BOOT + source)


@pytest.mark.parametrize("key", DOCUMENT_KEYS)
def test_keys_of_the_document_are_not_of_the_boot_file(key: str) -> None:
    text = f"{BOOT}{KUBERNETES}{key}: []\n"
    line = text.count("\n")
    assert told(text) == [
        f"{line}: {key}: comes from the configuration document, which source names; remove it"
    ]


def test_without_source_the_file_may_say_everything() -> None:
    data = {"backends": [], "domain": "x.example.com"}
    assert boot_part(data) == (data, [])
    assert boot_part({**data, "source": None}) == ({**data, "source": None}, [])


def test_what_belongs_to_the_document_is_taken_out_and_told() -> None:
    data = {"source": {"file": {"path": "x"}}, "roles": [], "drain": "1s"}
    kept, findings = boot_part(data)
    assert kept == {"source": {"file": {"path": "x"}}, "drain": "1s"}
    assert [finding.loc for finding in findings] == [("roles",)]
    assert all(isinstance(finding, Finding) for finding in findings)


def test_a_secret_needs_a_source() -> None:
    text = HEAD.replace("{cert_file: tls/tls.crt, key_file: tls/tls.key}", "{secret: wiki-tls}")
    [problem] = told(text)
    assert "tls.certificates[0].secret: is a Secret in Kubernetes" in problem


def test_a_certificate_has_one_form() -> None:
    text = HEAD.replace("{cert_file", "{secret: a, cert_file")
    [problem] = told(text)
    assert "needs cert_file and key_file, or directory, or secret" in problem
