from __future__ import annotations

from pathlib import Path

import pytest

from heim_agent import config
from heim_agent.config import SAMPLE, Settings, SettingsError, parse
from heim_agent.targets import Target
from heim_runtime.complaints import USAGE, Complaint

FULL = b"""\
lanes = 2

[targets.ssh]
address = "127.0.0.1:22"
role = "prod-ssh"

[targets]
web = { address = "unix:/run/web.sock", proxy_protocol = true }
"""


def problems(text: str | bytes) -> list[str]:
    """What is wrong with a file, without its name."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(SettingsError) as caught:
        parse(data, "agent.toml")
    assert caught.value.status == USAGE
    return [one.removeprefix("agent.toml") for one in caught.value.problems]


def test_the_sample_is_a_configuration() -> None:
    assert parse(SAMPLE.encode(), "x").targets == {"ssh": Target("ssh", "127.0.0.1", 22)}


def test_a_file_says_what_is_served() -> None:
    data = FULL.replace(b"[targets]\nweb =", b"[targets.web]\n#").replace(
        b'# { address = "unix:/run/web.sock", proxy_protocol = true }',
        b'address = "unix:/run/web.sock"\nproxy_protocol = true',
    )
    assert parse(data, "x") == Settings(
        2,
        {
            "ssh": Target("ssh", "127.0.0.1", 22, role="prod-ssh"),
            "web": Target("web", path="/run/web.sock", proxy_protocol=True),
        },
    )


def test_inline_tables_are_tables() -> None:
    assert set(parse(b'[targets]\nweb = {address = "a:1"}\n', "x").targets) == {"web"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lanes = 5", ", line 1: lanes: must be a number from 1 to 4"),
        ("lanes = true", ", line 1: lanes: must be a number from 1 to 4"),
        ("lane = 2", ", line 1: lane: there is no such key; did you mean lanes?"),
        ("x = 2", ", line 1: x: there is no such key; there are lanes, targets"),
        (
            '[targets.ssh]\naddr = "a:1"',
            ", line 2: targets.ssh.addr: there is no such key; did you mean address?",
        ),
        (
            "[targets.ssh]\n# later",
            ', line 1: targets.ssh: has no address, as in: address = "127.0.0.1:22"',
        ),
        (
            '[targets.ssh]\n\naddress = "127.0.0.1"',
            ', line 3: targets.ssh.address: must be "host:port" or "unix:/path"; a port is needed',
        ),
        (
            'targets.ssh.address = "a"',
            ', line 1: targets.ssh.address: must be "host:port" or "unix:/path"; a port is needed',
        ),
        (
            '[targets.SSH]\naddress = "a:1"',
            ", line 1: targets.SSH: a name has lower-case letters, digits and hyphens, 63 at most",
        ),
        ("[targets]\nssh = 22", ", line 2: targets.ssh: must be a table, as in [targets.ssh]"),
        ("targets = 7", ", line 1: targets: there is none; write one, such as [targets.ssh]"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, told: str) -> None:
    assert told in problems(text)


def test_a_file_without_targets_is_a_mistake_and_not_an_empty_list() -> None:
    """An editor empties a file before it writes it; nobody's streams may end by that."""
    assert problems("") == [": targets: there is none; write one, such as [targets.ssh]"]


def test_every_mistake_is_told_at_once() -> None:
    found = problems("lanes = 0\n[targets.A]\n[targets.b]\nrole = 7\n")
    assert len(found) == 4


def test_what_is_no_toml_is_told_with_its_place() -> None:
    assert problems("lanes = \n") == [
        ": Invalid value (at line 1, column 9); texts stand in quotes, as in address = "
        '"127.0.0.1:22"'
    ]
    assert problems(b"\xff") == [": it is not UTF-8"]


def test_more_targets_than_a_machine_has_are_refused() -> None:
    text = "\n".join(f'targets.t{number}.address = "a:1"' for number in range(1001))
    assert "there are more than 1000" in problems(text)[0]


def test_no_file_is_explained_with_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    with pytest.raises(SettingsError) as caught:
        config.load(str(path))
    assert caught.value.text == (
        f"there is no {path}; write what to serve into it, such as [targets.ssh] and below it "
        'address = "127.0.0.1:22"'
    )


def test_a_file_may_be_a_link_but_not_everybodys(tmp_path: Path) -> None:
    """As a ConfigMap has them."""
    (tmp_path / "data").write_text(SAMPLE)
    path = tmp_path / "agent.toml"
    path.symlink_to("data")
    assert config.load(str(path)).lanes == 1
    path.chmod(0o666)
    with pytest.raises(Complaint, match="everybody may write"):
        config.load(str(path))
