from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from heim_proxy.demo.banner import banner
from heim_proxy.demo.files import DemoFiles, DemoPorts

PORTS = DemoPorts(https=8443, http=8080, admin=9440, idp=40001, echo=40002)


def text(*, directory: str = "/tmp/demo", kept: bool = False) -> str:
    return banner(
        files=DemoFiles(Path(directory)),
        ports=PORTS,
        start_url="http://127.0.0.1:40001/start/s3cret",
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


def test_banner_fits_a_terminal() -> None:
    lines = text().splitlines()
    assert len(lines) <= 32
    assert max(len(line) for line in lines if "curl" not in line and "explain" not in line) <= 100


def test_lines_to_paste_survive_a_directory_with_spaces() -> None:
    lines = [line for line in text(directory="/tmp/my demo").splitlines() if "--cacert" in line]
    assert [shlex.split(line)[2] for line in lines] == ["/tmp/my demo/ca.pem"] * 2


@pytest.mark.parametrize(
    ("kept", "ending"), [(True, "/tmp/demo stays"), (False, "removes /tmp/demo")]
)
def test_banner_says_what_becomes_of_the_files(kept: bool, ending: str) -> None:
    assert ending in text(kept=kept)
