from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from heim_agent import cli
from heim_agent.files import Lock
from heim_runtime.complaints import FAILED, OK, USAGE


def targets(directory: Path, text: str, *more: str) -> int:
    path = directory / "agent.toml"
    path.write_text(text)
    return cli.main(["targets", *more, "--config", str(path)])


def test_the_list_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = (
        '[targets.ssh]\naddress = "127.0.0.1:22"\nrole = "prod-ssh"\nproxy_protocol = true\n'
        '[targets.app]\naddress = "unix:/run/app.sock"\n'
    )
    assert targets(tmp_path, text) == OK
    assert capfd.readouterr().out == (
        "ssh  127.0.0.1:22        only for role prod-ssh, with a PROXY v2 header\n"
        "app  unix:/run/app.sock\n"
    )


def test_check_connects_to_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as up,
        socket.create_server(("127.0.0.1", 0)) as gone,
    ):
        port, dead = up.getsockname()[1], gone.getsockname()[1]
        gone.close()
        text = (
            f'[targets.up]\naddress = "127.0.0.1:{port}"\n'
            f'[targets.down]\naddress = "127.0.0.1:{dead}"\n'
        )
        assert targets(tmp_path, text, "check") == FAILED
        rows = [line.split(maxsplit=2) for line in capfd.readouterr().out.splitlines()]
        assert rows == [
            ["up", f"127.0.0.1:{port}", "reached"],
            ["down", f"127.0.0.1:{dead}", "not reached: connection refused"],
        ]
        assert targets(tmp_path, f'targets.up.address = "127.0.0.1:{port}"', "check") == OK


@pytest.mark.parametrize("more", [[], ["check"]], ids=["shown", "checked"])
def test_names_that_the_proxy_has_otherwise_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], more: list[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir(0o700)
    text = '[targets.ssh]\naddress = "unix:/no/such"\n'
    lane = {"state": "connected", "targets": ["shh"], "targets_whole": True}
    about = {"serves": ["old"], "config": f"{tmp_path}/agent.toml", "lanes": [lane]}
    (state / "status.json").write_text(json.dumps(about))
    options = [*more, "--state", str(state)]
    with Lock(str(state)):
        targets(tmp_path, text, *options)
        said = capfd.readouterr()
        assert said.err == (
            "heim-agent: the proxy asks for shh, agent.toml has ssh: spell them the same, here or "
            "under agents: in the proxy's configuration\n"
        )
        assert said.out.startswith("ssh  unix:/no/such")
        (state / "status.json").write_text(json.dumps(about | {"config": "/another/agent.toml"}))
        targets(tmp_path, text, *options)
        assert capfd.readouterr().err == ""
    (state / "status.json").write_text(json.dumps(about))
    targets(tmp_path, text, *options)
    assert capfd.readouterr().err == "", "no agent runs"


def test_a_file_with_mistakes_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert targets(tmp_path, "lanes = 0\n") == USAGE
    assert len(capfd.readouterr().err.splitlines()) == 2
