"""`heim-controller`: exit statuses, and where text goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heim_controller.cli import main
from heim_runtime.version import version

PROGRAM = str(Path(sys.executable).with_name("heim-controller"))


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_is_data(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"heim-controller {version()}\n"


def test_without_a_command_the_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "translate" in told.err


def test_usage_is_complained_of_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEIM_CONTROLLER_PROXY", raising=False)
    assert main(["run", "--domain=example.test"]) == 2
    assert capsys.readouterr().err.startswith("heim-controller: --proxy is missing")


def test_without_an_api_server_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["run", "--proxy=heim/main", "--domain=example.test"]) == 69
    err = capsys.readouterr().err
    assert "no API server to speak to" in err
    assert "KUBECONFIG" in err


def test_a_control_character_in_a_name_moves_no_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["translate", "--domain=example.test", "--from", "/no\x1bwhere"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    paths = [{"path": f"/{number}", "pathType": "Prefix"} for number in range(5000)]
    rules = [{"host": "a.example.test", "http": {"paths": paths}}]
    file.write_text(str({"kind": "Ingress", "metadata": {"name": "x", "namespace": "y"},
                         "spec": {"ingressClassName": "z", "rules": rules}}))  # fmt: skip
    process = subprocess.Popen(
        [PROGRAM, "translate", "--domain", "example.test", "--from", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"Traceback" not in err


def test_the_module_is_the_program() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "heim_controller", "version"], capture_output=True, timeout=30
    )
    assert found.returncode == 0


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from heim_controller.arguments import build_parser; build_parser(); "
        "print([one for one in ('kubernetes', 'aiohttp', 'cryptography', 'yaml') "
        "if one in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert found.stdout.strip() == b"[]"
