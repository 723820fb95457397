"""What the README tells a newcomer to type is typed here, in an empty directory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import page
from tests.fakes.heim import authority

_HEIM_PROXY = Path(sys.executable).with_name("heim-proxy")
_README = page("README.md")
_START_DEADLINE_S = 15.0


def _block(heading: str, index: int = 0) -> list[str]:
    """The lines of a shell block below a heading."""
    below = _README.text[_README.text.index(f"\n## {heading}\n") :]
    return [
        line for line in re.findall(r"```sh\n(.*?)```", below, re.DOTALL)[index].split("\n") if line
    ]


class Shell:
    """Types lines into a shell in an empty directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        command = re.sub(r"(?:\.venv/bin/)?\bheim-proxy\b", str(_HEIM_PROXY), line)
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env={name: value for name, value in os.environ.items() if "HEIM_" not in name},
        )

    def make_what_the_comment_asks_for(self) -> None:
        (self.directory / "secrets/google").write_text("a client secret\n")
        issued = authority().issue_cert("*.x.example.com")
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        (self.directory / "tls/tls.crt").write_bytes(chain)
        issued.private_key_pem.write_to_path(self.directory / "tls/tls.key")

    def stay_on_loopback(self) -> None:
        """Ports and a directory that a test may have; the README says what it is about."""
        path = self.directory / "heim.yaml"
        text = path.read_text()
        for address in ("0.0.0.0:443", "0.0.0.0:80"):
            text = text.replace(f'"{address}"', '"127.0.0.1:0"')
        text = text.replace('"127.0.0.1:9440"', '"unix:admin.sock"')
        text = text.replace("sqlite:///var/lib/heim/", f"sqlite://{self.directory}/state/")
        assert "0.0.0.0" not in text
        assert "/var/lib" not in text
        path.write_text(text)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def _events(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        yield json.loads(line)["event"]


def _run_and_stop(shell: Shell, line: str) -> int:
    """Start `heim-proxy run`, wait until it serves, and stop it; its exit status."""
    log = shell.directory / "heim.log"
    arguments = line.partition("heim-proxy ")[2].split()
    with log.open("wb") as stderr, (shell.directory / "access.log").open("wb") as stdout:
        process = subprocess.Popen(
            [_HEIM_PROXY, *arguments], cwd=shell.directory, stdout=stdout, stderr=stderr
        )
    try:
        deadline = time.monotonic() + _START_DEADLINE_S
        while "proxy.started" not in _events(log):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_use_it_works_as_written(shell: Shell) -> None:
    ran = False
    for line in _block("Use it"):
        if "pip install" in line:
            continue  # the tests run where it is installed
        if line.startswith("#"):
            shell.make_what_the_comment_asks_for()
        elif " run " in line:
            shell.stay_on_loopback()
            assert _run_and_stop(shell, line) == 0
            ran = True
        else:
            done = shell.type(line)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert ran
    assert (shell.directory / "secrets/session.keys").stat().st_mode & 0o777 == 0o600

    (explain,) = _block("Use it", 1)
    explained = shell.type(explain)
    assert explained.returncode == 1
    assert explained.stdout.startswith("REFUSED (no_permission): bob@example.com")

    listing, revoking = _block("Use it", 2)
    listed = shell.type(listing)
    assert (listed.returncode, listed.stderr) == (0, "nobody is signed in\n")
    revoked = shell.type(revoking)
    assert (revoked.returncode, revoked.stderr) == (1, "0 sessions revoked\n")


def test_check_says_what_is_missing_before_the_files_are_there(shell: Shell) -> None:
    init, *_ = (line for line in _block("Use it") if " init " in line)
    shell.type(init)
    done = shell.type("heim-proxy check --config heim.yaml")
    assert done.returncode == 2
    for name in ("secrets/google", "secrets/session.keys", "tls/tls.crt", "tls/tls.key"):
        assert name in done.stderr
    assert re.search(r"^heim\.yaml:\d+: ", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("secrets/session.keys", "k1:short\n", id="session keys"),
        pytest.param("tls/tls.crt", "garbage\n", id="certificate"),
        pytest.param("tls/tls.key", None, id="key of another certificate"),
    ],
)
def test_check_looks_into_keys_and_certificates(
    shell: Shell, name: str, content: str | None
) -> None:
    for line in _block("Use it"):
        if line.startswith("#"):
            shell.make_what_the_comment_asks_for()
        elif "pip install" not in line and " check " not in line and " run " not in line:
            shell.type(line)
    path = shell.directory / name
    other = authority().issue_cert("*.x.example.com").private_key_pem.bytes().decode()
    path.write_text(other if content is None else content)
    done = shell.type("heim-proxy check --config heim.yaml")
    assert done.returncode == 2
    assert name in done.stderr
    assert done.stderr.endswith("1 mistake found\n")


@pytest.mark.parametrize("heading", ["Look at it: one command", "Test it: one command"])
def test_make_targets_exist(heading: str) -> None:
    (line,) = _block(heading)
    target = line.removeprefix("make ")
    makefile = (_README.path.parent / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
