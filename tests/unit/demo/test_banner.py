from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from heim_proxy.cli.main import build_parser
from heim_proxy.demo.banner import banner
from heim_proxy.demo.files import DemoFiles, DemoPorts
from heim_proxy.demo.programs import Programs

PORTS = DemoPorts(https=8443, http=8080, admin=9440, idp=40001, echo=40002, tcp=40003, office=40004)


def text(
    *, directory: str = "/tmp/demo", program: str = ".venv/bin/heim-proxy", kept: bool = False
) -> str:
    return banner(
        files=DemoFiles(Path(directory)),
        ports=PORTS,
        start_url="http://127.0.0.1:40001/start/s3cret",
        programs=Programs(program, program.replace("-proxy", "-tunnel"), "heim-agent"),
        kept=kept,
    )


@pytest.mark.parametrize(
    "expected",
    [
        "DEMO",
        "http://127.0.0.1:40001/start/s3cret",
        "https://app.localhost:8443/ ",
        "https://app.localhost:8443/admin",
        "https://app.localhost:8443/live",
        "https://office.localhost:8443/ ",
        "https://status.localhost:8443/ ",
        "https://auth.localhost:8443/.heim/me",
        "alice",
        "bob",
        "mallory",
        "/tmp/demo/ca.pem",
    ],
)
def test_banner_names(expected: str) -> None:
    assert expected in text()


def test_banner_says_how_to_ask_the_agent() -> None:
    printed = text(directory="/tmp/my demo")
    assert "    heim-agent status --state '/tmp/my demo/agent'\n" in printed
    assert "/tmp/my demo/agent.toml lists:" in printed


def test_banner_fits_a_terminal() -> None:
    # As long as the names that tempfile makes.
    lines = text(directory="/tmp/heim-demo-abcdefgh").splitlines()
    assert len(lines) <= 44
    assert [line for line in lines if len(line) > 100] == []


def pasted(printed: str) -> list[list[str]]:
    """The words of every command that is printed to be pasted."""
    block = printed.partition("Or paste")[2].partition("\n")[2]
    lines = re.findall(r"^    \S.*(?:(?<=\\)\n.*)*", block, re.MULTILINE)
    # shlex, unlike a shell, does not join lines.
    return [shlex.split(line.replace("\\\n", "")) for line in lines]


def test_lines_to_paste_survive_names_with_spaces() -> None:
    commands = pasted(text(directory="/tmp/my demo", program="my venv/heim-proxy"))
    assert [command[0] for command in commands] == ["curl"] * 2 + ["my venv/heim-proxy"] * 3
    assert [command[2] for command in commands[:2]] == ["/tmp/my demo/ca.pem"] * 2
    for command in commands[2:]:
        assert command[command.index("--config") + 1] == "/tmp/my demo/heim.yaml"


def test_lines_to_paste_are_commands_that_the_program_takes() -> None:
    ours = [command[1:] for command in pasted(text()) if command[0] != "curl"]
    assert [build_parser().parse_args(arguments).config for arguments in ours] == [
        "/tmp/demo/heim.yaml"
    ] * 3


@pytest.mark.parametrize(
    ("kept", "ending"), [(True, "/tmp/demo stays"), (False, "removes /tmp/demo")]
)
def test_banner_says_what_becomes_of_the_files(kept: bool, ending: str) -> None:
    assert ending in text(kept=kept)
