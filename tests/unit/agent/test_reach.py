from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heim_agent import reach
from heim_agent.reach import NotReached, connect
from heim_agent.targets import Target
from heim_wire.errors import Code
from tests.fakes.loops import LOOPS, run_on

ON_BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)


def listening(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


async def found(target: Target, timeout_s: float = 5.0) -> tuple[Any, ...] | str:
    """Where a connection went, or why there is none."""
    try:
        transport = await connect(target, asyncio.Protocol, timeout_s=timeout_s)
    except NotReached as error:
        return (error.code, error.reason)
    peer: tuple[Any, ...] | str = transport.get_extra_info("peername")
    transport.abort()
    await asyncio.sleep(0)
    return peer


@ON_BOTH_LOOPS
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_an_address_or_a_name_is_reached(loop: str, host: str) -> None:
    with listening("::1" if host == "::1" else "127.0.0.1") as listener:
        peer = run_on(loop, found(Target("x", host=host, port=port_of(listener))))
        assert tuple(peer)[:2] == listener.getsockname()[:2]


def test_an_address_needs_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads are few, and may all wait for a name server."""

    async def scenario(target: Target) -> tuple[Any, ...] | str:
        async def resolve(*_: object, **__: object) -> list[Any]:
            raise AssertionError("asked")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        return await found(target)

    with listening() as listener:
        target = Target("x", host="127.0.0.1", port=port_of(listener))
        assert run_on("asyncio", scenario(target)) == listener.getsockname()


@ON_BOTH_LOOPS
def test_a_unix_socket_is_reached(loop: str, tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert run_on(loop, found(Target("x", path=path))) == path


@ON_BOTH_LOOPS
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: Target("x", path="/nowhere/sock"),
            (Code.DIAL_REFUSED, "there is no such socket"),
        ),
        (
            lambda: Target("x", host="no-such-host.invalid", port=1),
            (Code.DNS, "its name does not resolve"),
        ),
        (
            lambda: Target("x", host=f"{'a' * 64}.example", port=1),
            (Code.DNS, "its name is not a host name"),
        ),
        (lambda: Target("x", host="255.255.255.255", port=1), (Code.DIAL_REFUSED, None)),
    ],
    ids=["no socket", "no name", "no host name", "not to be connected to"],
)
def test_what_is_wrong_is_said_without_the_address(
    loop: str, make: Callable[[], Target], expected: tuple[int, str | None]
) -> None:
    code, reason = run_on(loop, found(make()))
    assert code == expected[0]
    assert expected[1] in (None, reason)
    assert "255" not in str(reason)
    assert str(reason).islower()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EMFILE, Code.BUSY),
        (errno.ECONNREFUSED, Code.DIAL_REFUSED),
        (errno.ETIMEDOUT, Code.DIAL_TIMEOUT),
        (errno.EHOSTUNREACH, Code.DIAL_REFUSED),
        (errno.EACCES, Code.DIAL_REFUSED),
        (0, Code.DIAL_REFUSED),
    ],
    ids=["no descriptors", "refused", "timed out", "unreachable", "forbidden", "unknown"],
)
def test_every_failure_has_a_code(number: int, code: int) -> None:
    error = OSError(number, "10.0.0.1 said no") if number else OSError("10.0.0.1 said no")
    reason = reach._reason(error)
    assert reason.code == code
    assert "10.0.0.1" not in reason.reason


def answers(*places: tuple[str, int]) -> list[tuple[Any, ...]]:
    """What getaddrinfo gives for a name with these addresses."""
    return [
        (
            socket.AF_INET6 if ":" in host else socket.AF_INET,
            socket.SOCK_STREAM, 6, "",
            (host, port, 0, 0) if ":" in host else (host, port),
        )
        for host, port in places
    ]  # fmt: skip


def named(loop: asyncio.AbstractEventLoop, *places: tuple[str, int]) -> Any:
    """A loop whose resolver gives these addresses for any name."""

    class Named:
        async def getaddrinfo(self, *_: object, **__: object) -> list[tuple[Any, ...]]:
            return answers(*places)

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    return Named()


def test_families_take_turns_and_the_resolvers_first_choice_stays_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        fake = named(
            loop, ("fd00::1", 1), ("fd00::2", 1), ("fd00::2", 1), ("10.0.0.1", 1), ("10.0.0.2", 1)
        )
        with monkeypatch.context() as patch:
            patch.setattr(reach.asyncio, "get_running_loop", lambda: fake)
            places = await reach._resolve("name", 1)
        return [where[0] for _, where in places]

    assert run_on("asyncio", scenario()) == ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2"]


@ON_BOTH_LOOPS
def test_a_dead_address_does_not_hold_up_a_living_one(loop: str) -> None:
    """Happy Eyeballs: the second is tried after a quarter of a second, or at once."""

    async def scenario() -> float:
        with listening() as alive, socket.create_server(("127.0.0.1", 0), backlog=1) as dead:
            waiting = [socket.socket() for _ in range(3)]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(dead.getsockname())
            places = [
                (socket.AF_INET, dead.getsockname()),
                (socket.AF_INET, alive.getsockname()),
            ]
            began = asyncio.get_running_loop().time()
            won = await reach._race(places)
            assert won.getpeername() == alive.getsockname()
            took = asyncio.get_running_loop().time() - began
            for sock in (won, *waiting):
                sock.close()
            # The loser's socket is closed by then.
            await asyncio.sleep(0)
            return took

    assert 0.2 < run_on(loop, scenario()) < 2


@ON_BOTH_LOOPS
def test_when_all_refuse_the_first_ones_reason_is_told_at_once(loop: str) -> None:
    async def scenario() -> float:
        with listening() as one:
            gone = one.getsockname()
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionRefusedError):
            await reach._race([(socket.AF_INET, gone), (socket.AF_INET, gone)])
        return asyncio.get_running_loop().time() - began

    assert run_on(loop, scenario()) < 0.2


@ON_BOTH_LOOPS
def test_a_connect_that_is_cancelled_leaves_no_socket(loop: str) -> None:
    """A warning about one that was left would fail this test."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1) as dead:
            waiting = [socket.socket() for _ in range(3)]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(dead.getsockname())
            target = Target("x", host="127.0.0.1", port=port_of(dead))
            with pytest.raises(NotReached, match=r"no answer within 0\.05 s"):
                await connect(target, asyncio.Protocol, timeout_s=0.05)
            for sock in waiting:
                sock.close()
            await asyncio.sleep(0.01)

    run_on(loop, scenario())
