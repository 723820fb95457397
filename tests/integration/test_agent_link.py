"""The agent's link to a real `heim-proxy`: what breaks it, what is in between, and its return."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_proxy.agents.authority import Authority
from heim_proxy.demo.loopback import free_port
from tests.fakes.heim import DOMAIN, LOGIN_HOST, authority
from tests.fakes.middlebox import stuck
from tests.fakes.tunnel import TcpServer
from tests.integration.middleboxes import nginx_in_front, tinyproxy
from tests.integration.process import admin
from tests.integration.test_agent_program import AGENT, BACKENDS, HEIM_AGENT, Machine
from tests.integration.tunnel import stream, tunnel_site

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

KEY_HINT = "tunnel.agent_tls_keys"


@dataclass
class Linked(Machine):
    """A machine whose way to the proxy is the test's."""

    to: tuple[str, int] | None = None
    environ: dict[str, str] = field(default_factory=dict)
    own: str = "agent"

    @property
    def state(self) -> Path:
        return self.directory / self.own

    @property
    def config(self) -> Path:
        return self.directory / f"{self.own}.toml"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.own}.log"

    @property
    def _way(self) -> tuple[str, ...]:
        host, port = self.to or ("127.0.0.1", self.site.port)
        return (
            "--connect-to", f"{host}:{port}",
            "--config", str(self.config), "--state", str(self.state),
        )  # fmt: skip

    async def begin(self) -> asyncio.subprocess.Process:
        """`heim-agent run`, whether it gets anywhere or not."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if "HEIM" not in name and "proxy" not in name.lower()
        }
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                HEIM_AGENT, "run", *self._way,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**inherited, **self.environ},
            )  # fmt: skip
        self.processes.append(process)
        return process

    async def connect(self) -> None:
        count = len(self.events("lane.ready")) if self.log.exists() else 0
        await self.begin()
        await self.told("lane.ready", count=count + 1)

    async def presence(self) -> list[dict[str, Any]]:
        """The agent's lanes, as the proxy's /debug/agents has them."""
        answer = await admin(self.site.heim.directory, "/debug/agents")
        found: dict[str, Any] = json.loads(answer.body)
        return [
            lane
            for agent in found["connected"]
            if agent["name"] == AGENT
            for lane in agent["lanes"]
        ]


@asynccontextmanager
async def linked(directory: Path, **more: Any) -> AsyncIterator[tuple[Linked, TcpServer]]:
    """A proxy, and a machine that has joined, whose target `ssh` is an echo."""
    echo = await TcpServer().start()
    agents = [{"name": AGENT, "targets": ["ssh", "web"]}]
    try:
        async with tunnel_site(directory, BACKENDS, agents=agents, **more) as site:
            machine = Linked(site, directory)
            machine.serve(ssh=echo.port)
            await machine.joined()
            try:
                yield machine, echo
            finally:
                await machine.stop()
    finally:
        await echo.stop()


def key_of(certificate: Path) -> str:
    """SHA-256 of the key of a certificate, in hex."""
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    der = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


async def test_21_a_proxy_that_was_killed_has_its_agent_back_within_two_seconds(
    tmp_path: Path,
) -> None:
    listeners = {
        "https": {"address": f"127.0.0.1:{free_port(19600)}"},
        "http": None,
        "admin": {"address": f"unix:{tmp_path / 'admin.sock'}"},
    }
    async with linked(tmp_path, listeners=listeners) as (machine, _):
        await machine.connect()
        heim = machine.site.heim
        heim.process.kill()
        await heim.process.wait()
        await machine.told("lane.lost")
        await heim.launch()
        began = time.monotonic()
        await machine.told("lane.ready", count=2)
        assert time.monotonic() - began < 2.5
        answer = await machine.ask("ssh")
        assert (answer.status, answer.out) == (0, b"hello"), answer.err


async def test_a_proxy_that_restarts_in_order_is_left_and_found_again(tmp_path: Path) -> None:
    listeners = {
        "https": {"address": f"127.0.0.1:{free_port(19620)}"},
        "http": None,
        "admin": {"address": f"unix:{tmp_path / 'admin.sock'}"},
    }
    async with linked(tmp_path, listeners=listeners) as (machine, _):
        await machine.connect()
        heim = machine.site.heim
        heim.signal(signal.SIGTERM)
        away = await machine.told("lane.away")
        assert 0.0 <= away["retry_in_s"] < 12.0
        await heim.process.wait()
        await heim.launch()
        await machine.told("lane.ready", count=2)
        assert not machine.events("lane.refused")


@pytest.mark.slow
async def test_20_a_link_into_a_black_hole_is_noticed_by_both_and_replaced(
    tmp_path: Path,
) -> None:
    async with linked(tmp_path) as (machine, _), stuck(machine.site.port) as way:
        machine.to = ("127.0.0.1", way.port)
        await machine.connect()
        way.freeze()
        began = time.monotonic()
        async with asyncio.timeout(40):
            while not machine.events("lane.lost"):
                await asyncio.sleep(0.1)
        assert time.monotonic() - began < 27.0
        async with asyncio.timeout(10):
            while await machine.presence():
                await asyncio.sleep(0.1)
        way.thaw()
        await machine.told("lane.ready", count=2)
        answer = await machine.ask("ssh")
        assert (answer.status, answer.out) == (0, b"hello"), answer.err


def own_address() -> str:
    """An address of this machine that is not loopback, which web proxies are not used for."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        # Nothing is sent: it only asks for the way.
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])
    pytest.skip("this machine has no address but loopback")


async def test_54_it_goes_through_a_company_proxy_with_a_login(tmp_path: Path) -> None:
    address = own_address()
    port = free_port(19640)
    listeners = {
        "https": {"address": f"0.0.0.0:{port}"},
        "http": None,
        "admin": {"address": f"unix:{tmp_path / 'admin.sock'}"},
    }
    async with (
        linked(tmp_path, listeners=listeners) as (machine, _),
        tinyproxy(tmp_path / "company", login=("alice", "s3cret")) as company,
    ):
        machine.to = (address, port)
        machine.environ = {"HTTPS_PROXY": company.url, "NO_PROXY": ""}
        process = await machine.begin()
        failed = await machine.told("lane.failed")
        assert "answered 407" in failed["reason"]
        assert "HTTPS_PROXY" in failed["hint"]
        process.kill()
        await process.wait()

        machine.environ["HTTPS_PROXY"] = company.url.replace("//", "//alice:s3cret@")
        await machine.connect()
        assert machine.events("lane.ready")[-1]["via"] == company.url
        answer = await machine.ask("ssh")
        assert (answer.status, answer.out) == (0, b"hello"), answer.err
        assert f"CONNECT {address}:{port}" in company.log.read_text()
        assert "s3cret" not in machine.log.read_text()


async def test_a_load_balancer_that_ends_tls_is_trusted_once_its_key_is_listed(
    tmp_path: Path,
) -> None:
    async with (
        linked(tmp_path) as (machine, _),
        nginx_in_front(tmp_path / "front", machine.site.port) as front,
    ):
        machine.to = ("127.0.0.1", front.port)
        # The machine trusts the front end's authority; the proxy does not know of its key.
        shutil.copy(front.ca_file, machine.state / "authorities.pem")
        await machine.begin()
        refused = await machine.told("lane.refused")
        assert refused["code"] == "unauthenticated"
        assert "terminates TLS" in refused["reason"]
        assert KEY_HINT in refused["reason"] + refused["hint"]

        heim = machine.site.heim
        heim.document["tunnel"] = {"agent_tls_keys": [key_of(tmp_path / "front" / "front.pem")]}
        heim.write()
        heim.signal(signal.SIGHUP)
        await machine.told("lane.ready")
        answer = await machine.ask("ssh")
        assert (answer.status, answer.out) == (0, b"hello"), answer.err


async def test_65_another_certificate_of_the_proxy_drops_no_lane_and_lets_new_ones_in(
    tmp_path: Path,
) -> None:
    async with linked(tmp_path) as (machine, _):
        await machine.connect()
        with stream(machine.site, "ssh") as held:
            await held.send(b"before")
            assert await held.read(6) == b"before"
            heim = machine.site.heim
            before = key_of(heim.directory / "tls.crt")
            issued = authority().issue_cert(f"*.{DOMAIN}", DOMAIN)
            pem = b"".join(part.bytes() for part in issued.cert_chain_pems)
            (heim.directory / "tls.crt").write_bytes(pem)
            issued.private_key_pem.write_to_path(heim.directory / "tls.key")
            heim.signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while await shown(machine.site.port) == before:
                    await asyncio.sleep(0.05)
            await held.send(b"after")
            assert await held.read(5) == b"after"
            assert len(machine.events("lane.ready")) == 1

            # A lane of now proves itself over the key of now.
            machine.config.write_text(f"lanes = 2\n{machine.config.read_text()}")
            machine.processes[0].send_signal(signal.SIGHUP)
            await machine.told("lane.ready", count=2)
            assert len(await machine.presence()) == 2
            assert not machine.events("lane.refused")


async def shown(port: int) -> str:
    """The key of the certificate that a port shows, as `key_of` has it."""
    import ssl

    der = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    found = x509.load_pem_x509_certificate(der.encode())
    spki = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


async def test_two_lanes_are_one_agent_and_one_may_break(tmp_path: Path) -> None:
    async with linked(tmp_path) as (machine, _):
        machine.config.write_text(f"lanes = 2\n{machine.config.read_text()}")
        await machine.connect()
        await machine.told("lane.ready", count=2)
        lanes = await machine.presence()
        assert sorted(lane["number"] for lane in lanes) == [0, 1]
        async with asyncio.timeout(10):
            # It is written once a second at most.
            while (await machine.status()).status != 0:
                await asyncio.sleep(0.2)
        answer = await machine.ask("ssh")
        assert (answer.status, answer.out) == (0, b"hello"), answer.err


async def test_39_a_copied_machine_is_told_that_there_are_two(tmp_path: Path) -> None:
    async with linked(tmp_path) as (machine, _):
        await machine.connect()
        shutil.copytree(machine.state, tmp_path / "copy")
        (tmp_path / "copy" / "lock").unlink(missing_ok=True)
        shutil.copy(machine.config, tmp_path / "copy.toml")
        copy = Linked(machine.site, tmp_path, own="copy")
        try:
            await copy.connect()
            refused = await machine.told("lane.refused")
            assert refused["code"] == "superseded"
            assert "copied machine" in refused["hint"]
            answer = await machine.ask("ssh")
            assert (answer.status, answer.out) == (0, b"hello"), answer.err
        finally:
            await copy.stop()


async def test_an_agent_whose_certificate_ran_out_while_it_was_off_is_renewed(
    tmp_path: Path,
) -> None:
    """What a machine finds that comes back after a weekend, as long as it is still enrolled."""
    async with linked(tmp_path) as (machine, _):
        heim = machine.site.heim
        agents_ca = Authority.load_or_create(heim.directory / "state", login_host=LOGIN_HOST)
        path = machine.state / "certificate.pem"
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        public = certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        der = agents_ca.issue(public, name=AGENT, now=time.time(), lifetime_s=1)
        old = x509.load_der_x509_certificate(der)
        path.write_bytes(old.public_bytes(Encoding.PEM))
        await asyncio.sleep(old.not_valid_after_utc.timestamp() - time.time() + 0.1)
        await machine.connect()
        await machine.told("certificate.renewed")
        fresh = x509.load_pem_x509_certificate(path.read_bytes())
        assert fresh.not_valid_after_utc.timestamp() > time.time() + 80_000
        assert len(machine.events("lane.ready")) == 1
