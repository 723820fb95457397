from __future__ import annotations

from pathlib import Path

import pytest

from heim_proxy.demo.programs import Programs


@pytest.fixture(autouse=True)
def _installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in ("bin", "my bin"):
        (tmp_path / directory).mkdir()
        for name in ("heim-proxy", "heim-tunnel"):
            (tmp_path / directory / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("started", "proxy"),
    [
        ("bin/heim-proxy", "bin/heim-proxy"),
        ("{directory}/bin/heim-proxy", "{directory}/bin/heim-proxy"),
        ("my bin/heim-proxy", "my bin/heim-proxy"),
        # `python heim-proxy`, in a directory that is not in PATH.
        ("heim-proxy-elsewhere", "{directory}/heim-proxy-elsewhere"),
    ],
    ids=["relative", "absolute", "with a space", "no path at all"],
)
def test_the_program_is_named_as_it_was_started(tmp_path: Path, started: str, proxy: str) -> None:
    found = Programs.beside(started.format(directory=tmp_path))
    assert found.proxy == proxy.format(directory=tmp_path)


def test_the_others_are_those_of_the_same_installation(tmp_path: Path) -> None:
    assert Programs.beside("bin/heim-proxy").tunnel == str(tmp_path / "bin" / "heim-tunnel")


def test_one_that_is_not_installed_is_named_as_it_is_called() -> None:
    assert Programs.beside("bin/heim-proxy").agent == "heim-agent"
