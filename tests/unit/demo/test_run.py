from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import aiohttp
import pytest

from heim_config.load import load_file
from heim_proxy.demo.files import NotADemoDirectoryError
from heim_proxy.demo.loopback import NotLoopbackError, listen
from heim_proxy.demo.programs import Programs
from heim_proxy.demo.run import NoSshdError, require_loopback_configuration, run_demo, stage

# None of them exists: the demo's agent cannot join, and nothing else may suffer from it.
PROGRAMS = Programs("/nowhere/heim-proxy", "/nowhere/heim-tunnel", "/nowhere/heim-agent")


class FakeProxy:
    """Stands for the proxy: remembers its configuration and runs until it is told to stop."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        self.closed = False
        self.path = Path()

    async def start(self, path: Path) -> FakeProxy:
        self.path = path
        self.started.set()
        return self

    async def wait(self) -> None:
        await self.stopped.wait()

    async def close(self) -> None:
        self.closed = True


async def test_proxy_gets_an_ordinary_configuration() -> None:
    proxy = FakeProxy()
    proxy.stopped.set()
    seen = []

    async def start(path: Path) -> FakeProxy:
        seen.append(load_file(path))
        return await proxy.start(path)

    await run_demo(start, out=io.StringIO(), programs=PROGRAMS)
    assert [role.name for role in seen[0].roles] == ["admin", "dev"]


async def test_banner_appears_when_the_proxy_is_up_and_files_go_when_it_ends() -> None:
    proxy, out = FakeProxy(), io.StringIO()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_demo(proxy.start, out=out, programs=PROGRAMS))
        await proxy.started.wait()
        assert proxy.path.exists()
        proxy.stopped.set()
    assert "/start/" in out.getvalue()
    assert not proxy.path.parent.exists()
    assert proxy.closed


async def test_interrupted_demo_closes_the_proxy_and_removes_its_files() -> None:
    proxy = FakeProxy()
    task = asyncio.ensure_future(run_demo(proxy.start, out=io.StringIO(), programs=PROGRAMS))
    await proxy.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert proxy.closed
    assert not proxy.path.parent.exists()


async def test_proxy_that_cannot_start_leaves_nothing_behind() -> None:
    seen = []

    async def start(path: Path) -> FakeProxy:
        seen.append(path)
        raise OSError("no socket")

    out = io.StringIO()
    with pytest.raises(OSError, match="no socket"):
        await run_demo(start, out=out, programs=PROGRAMS)
    # Another program may have the usual port, and that is said.
    assert (seen[0].exists(), "/start/" in out.getvalue()) == (False, False)


async def test_given_directory_stays(tmp_path: Path) -> None:
    proxy = FakeProxy()
    proxy.stopped.set()
    await run_demo(proxy.start, out=io.StringIO(), programs=PROGRAMS, directory=tmp_path)
    assert proxy.path == tmp_path / "heim.yaml"
    assert proxy.path.exists()


async def test_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(NotADemoDirectoryError):
        await run_demo(FakeProxy().start, out=io.StringIO(), programs=PROGRAMS, directory=tmp_path)


async def test_busy_port_is_replaced_and_said_so() -> None:
    proxy, out = FakeProxy(), io.StringIO()
    proxy.stopped.set()
    with listen() as busy:
        port = busy.getsockname()[1]
        await run_demo(proxy.start, out=out, programs=PROGRAMS, port=port)
    assert f"port {port} is busy" in out.getvalue()


async def test_every_port_is_another_one() -> None:
    async with stage() as scene:
        ports = scene.ports
        numbers = {
            ports.https, ports.http, ports.admin, ports.idp, ports.echo, ports.tcp, ports.office
        }  # fmt: skip
    assert len(numbers) == 7


async def test_tcp_service_says_back_what_it_hears() -> None:
    async with stage() as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.ports.tcp)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()


async def test_sshd_is_shown_to_alice_alone_when_it_was_asked_for() -> None:
    with listen() as machine:
        async with stage(ssh_port=machine.getsockname()[1]) as scene:
            config = load_file(scene.files.configuration)
            text = scene.text(PROGRAMS)
    bound = [
        role.name for role in config.roles for one in role.bindings if one.backend == "desktop"
    ]
    assert bound == ["admin"]
    assert "ssh -o ProxyCommand=" in text


async def test_sshd_that_is_not_there_is_said_before_anything_starts() -> None:
    with listen() as sock:
        port = sock.getsockname()[1]
    with pytest.raises(NoSshdError, match="openssh-server"):
        await run_demo(FakeProxy().start, out=io.StringIO(), programs=PROGRAMS, ssh_port=port)


async def test_provider_and_application_answer(http: aiohttp.ClientSession) -> None:
    async with stage() as scene:
        issuer = scene.provider.issuer
        async with http.get(f"{issuer}/.well-known/openid-configuration") as answer:
            assert (await answer.json())["issuer"] == issuer
        async with http.get(f"http://127.0.0.1:{scene.ports.echo}/headers.json") as answer:
            assert json.loads(await answer.text())["verified"] is False
        provider = load_file(scene.files.configuration).identity.providers[0]
        assert provider.issuer == issuer


async def test_two_demos_run_side_by_side() -> None:
    async with stage() as one, stage(port=one.ports.https) as other:
        assert one.provider.start_url != other.provider.start_url
        assert one.files.directory != other.files.directory


@pytest.mark.parametrize("listener", ["https", "http", "admin"])
async def test_configuration_that_listens_beyond_this_machine_is_refused(listener: str) -> None:
    async with stage() as scene:
        path = scene.files.configuration
        text = path.read_text()
        path.write_text(
            text.replace(f'{listener}: {{address: "127.0.0.1:', f'{listener}: {{address: "0.0.0.0:')
        )
        with pytest.raises(NotLoopbackError, match=r"0\.0\.0\.0"):
            require_loopback_configuration(path)
