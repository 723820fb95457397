"""Tell systemd how a service is doing (sd_notify(3)); without systemd nothing is sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from heim_runtime.tasks import cancel, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Final

__all__ = ["ServiceManager", "reporting"]

# How old the line that `systemctl status` shows may be, in seconds.
_STATUS_S: Final = 1.0


class ServiceManager:
    """Whoever started us with NOTIFY_SOCKET.

    Attributes:
        watchdog_s: How often it wants WATCHDOG=1, in seconds; None when it does not.
    """

    __slots__ = ("_address", "watchdog_s")

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A path, or (with an @ in the place of its NUL) an abstract name.
        self._address = address if address.startswith(("/", "@")) else ""
        self.watchdog_s = _watchdog(environ) if self._address else None

    def notify(self, *assignments: str) -> bool:
        """Send `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1`; False when nobody took it."""
        if not self._address:
            return False
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        message = "\n".join(assignment.replace("\n", " ") for assignment in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                # A manager that does not read must not stop the service.
                sock.setblocking(False)
                sock.sendto(message.encode(), address)
        except OSError:
            return False
        return True


@contextlib.asynccontextmanager
async def reporting(manager: ServiceManager, condition: Callable[[], str]) -> AsyncIterator[None]:
    """Say that the service is ready; then, while the block lasts, that its loop runs.

    Args:
        manager: Whom to tell.
        condition: What the service is doing, in one line.
    """
    if not manager.notify("READY=1", f"STATUS={condition()}"):
        yield
        return
    task = spawn("service-report", _report(manager, condition))
    try:
        yield
    finally:
        manager.notify("STOPPING=1")
        await cancel([task])


async def _report(manager: ServiceManager, condition: Callable[[], str]) -> None:
    while True:
        await asyncio.sleep(min(manager.watchdog_s or _STATUS_S, _STATUS_S))
        manager.notify("WATCHDOG=1", f"STATUS={condition()}")


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Half of WatchdogSec=, as sd_watchdog_enabled(3) advises."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not microseconds.isdecimal() or not int(microseconds):
        return None
    return int(microseconds) / 2_000_000
