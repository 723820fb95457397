"""The README's ssh configuration, unmodified: real OpenSSH, real names, port 443 and no other.

Everything runs in a network of its own (Linux namespaces), where `desktop.ssh.x.example.com` is
the proxy on port 443, and sshd listens on another port that the snippet does not know.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.heim import Heim, authority
from tests.fakes.real import require
from tests.integration.middleboxes import tinyproxy_configuration
from tests.integration.process import HEIM_PROXY
from tests.integration.services import sshd
from tests.integration.tunnel import ACCOUNT, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
DESKTOP = "desktop.ssh.x.example.com"
LOGIN_HOST = "auth.x.example.com"
COMPANY_PORT = 3128

SCRIPT = """\
set -eu
ip link set lo up
mount --bind {directory}/hosts /etc/hosts
{sshd} -D -e -f {directory}/sshd/sshd_config 2>{directory}/sshd.log &
{tinyproxy} -d -c {directory}/tinyproxy.conf >/dev/null 2>&1 &
{heim_proxy} run --config {directory}/heim.yaml >/dev/null 2>{directory}/heim.log &
for n in $(seq 400); do grep -q proxy.started {directory}/heim.log && break; sleep 0.05; done
(umask 077; {heim_proxy} token create ci --config {directory}/heim.yaml >{directory}/token)
exec "$@"
"""


def namespaces() -> str:
    """The program that makes namespaces; skips where this machine does not let us."""
    program = require("unshare")
    made = subprocess.run([program, "--net", "--mount", "true"], capture_output=True, timeout=10)
    if made.returncode:
        pytest.skip(f"namespaces are not permitted here: {made.stderr.decode().strip()}")
    return program


def readme_snippet() -> str:
    """The ssh configuration that the README tells people to write."""
    found = re.search(
        r"^```\n(Host \*\.ssh.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.fixture
async def cafe(tmp_path: Path) -> list[str]:
    """The command that runs another one in the café; its proxy, sshd and company proxy with it."""
    unshare = namespaces()
    async with sshd(tmp_path / "sshd") as machine:
        # Only for its keys and configuration: another one runs in the network of its own.
        client, upstream = machine.client_config.read_text(), machine.upstream
    Heim.prepare(
        tmp_path,
        hosts=(LOGIN_HOST, "*.ssh.x.example.com"),
        domain="x.example.com",
        listeners={
            "https": {"address": "127.0.0.1:443"},
            "http": None,
            "admin": {"address": f"unix:{tmp_path / 'admin.sock'}"},
        },
        backends=[{"name": "desktop", "host": DESKTOP, "tcp": {"upstream": upstream}}],
        service_accounts=[{"name": ACCOUNT}],
        roles=[
            {
                "name": "ssh",
                "members": [{"service_account": ACCOUNT}],
                "bindings": [{"backend": "desktop"}],
            }
        ],
    )
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost {DESKTOP} {LOGIN_HOST}\n")
    (tmp_path / "ssh_config").write_text(f"{readme_snippet()}\n{client}")
    (tmp_path / "script").write_text(
        SCRIPT.format(
            directory=tmp_path,
            sshd=shutil.which("sshd") or "/usr/sbin/sshd",
            heim_proxy=HEIM_PROXY,
            tinyproxy=require("tinyproxy"),
        )
    )
    tinyproxy_configuration(tmp_path, COMPANY_PORT, login=("alice", "s3cret"))
    return [
        unshare, "--net", "--mount", "--pid", "--fork", "--kill-child",
        "sh", str(tmp_path / "script"),
    ]  # fmt: skip


COMPANY = {"HTTPS_PROXY": f"http://alice:s3cret@127.0.0.1:{COMPANY_PORT}", "NO_PROXY": ""}
WAYS = {"directly": {}, "through the company's proxy": COMPANY}


@pytest.mark.parametrize("way", WAYS)
async def test_the_readme_snippet_works_with_real_openssh(
    cafe: list[str], tmp_path: Path, way: str
) -> None:
    done = await run(
        *cafe, require("ssh"), "-F", str(tmp_path / "ssh_config"), DESKTOP, "echo from the café",
        env={
            "PATH": f"{Path(HEIM_PROXY).parent}:{os.environ['PATH']}",
            "HEIM_TOKEN_FILE": str(tmp_path / "token"),
            "HEIM_CA_FILE": str(tmp_path / "ca.pem"),
            "HEIM_TUNNEL_HOME": str(tmp_path / "home"),
            **WAYS[way],
        },
        within_s=40,
    )  # fmt: skip
    assert (done.status, done.out.decode()) == (0, "from the café\n"), (
        done.err + (tmp_path / "heim.log").read_text()
    )
    passed = f"CONNECT {DESKTOP}:443" in (tmp_path / "tinyproxy.log").read_text()
    assert passed is (way != "directly")
