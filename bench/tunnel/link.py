"""The emulated link of a run: two namespaces of our own, joined by the emulator, then gone."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process import Cores, Program, StartError
from bench.tunnel.ground import Ground, python
from bench.tunnel.place import Place

__all__ = ["LINK", "Link", "link", "reason_not"]

_NEAR_ADDRESS: Final = "10.78.0.1"
_FAR_ADDRESS: Final = "10.78.0.2"
_READY_S: Final = 10.0
_SETTING: Final = "net.ipv4.tcp_congestion_control"
# The emulator ends by itself, should the harness be killed.
_LONGEST_S: Final = 900


@dataclass(frozen=True, slots=True)
class Link:
    """Rate each way in Mbit/s, round trip in ms, queue each way in kB, and TCP's control.

    Reno fills the queue until it overflows, as CUBIC does, which most machines have; namespaces may
    not choose CUBIC everywhere. BBR keeps the queue short and would hide what is measured.
    """

    mbit: float = 100.0
    rtt_ms: float = 40.0
    queue_kb: float = 500.0
    congestion: str = "reno"


LINK: Final = Link()


def reason_not() -> str:
    """Why there can be no emulated link here, or ""."""
    if os.geteuid() != 0:
        return "network namespaces and TUN devices need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    return ""


@contextlib.contextmanager
def link(directory: Path, cores: Cores, settings: Link = LINK) -> Iterator[Ground]:
    """A ground with the load at one end of the link, servers and target at the other.

    Raises:
        StartError: No namespaces, no TUN device.
    """
    directory.mkdir(parents=True)
    tag = secrets.token_hex(3)
    near, far = f"heim-near-{tag}", f"heim-far-{tag}"
    with contextlib.ExitStack() as stack:
        for namespace in (near, far):
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "delete", namespace)
            _ip(
                "netns",
                "exec",
                namespace,
                "sysctl",
                "-q",
                "-w",
                f"{_SETTING}={settings.congestion}",
            )
        command = [*python("bench.tunnel.emulator"), near, _NEAR_ADDRESS, far, _FAR_ADDRESS]
        command += ["--mbit", str(settings.mbit), "--rtt-ms", str(settings.rtt_ms)]
        command += ["--queue-kb", str(settings.queue_kb), "--seconds", str(_LONGEST_S)]
        # The load and the clients have one core, the servers and the link's packets the other.
        emulator = Program(command, core=cores.server, output=directory / "emulator.output")
        stack.callback(emulator.stop)
        _wait_ready(emulator)
        ground = Ground.open(
            directory,
            Place(cores.load, _NEAR_ADDRESS, near),
            Place(cores.server, _FAR_ADDRESS, far),
            Place(cores.server, "127.0.0.1", far),
        )
        stack.callback(ground.target.stop)
        yield ground


def _wait_ready(emulator: Program) -> None:
    deadline = time.monotonic() + _READY_S
    while "ready" not in emulator.output.read_text():
        if emulator.ended or time.monotonic() > deadline:
            raise StartError(f"the link's emulator did not start: {emulator.tail()}")
        time.sleep(0.02)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        raise StartError(f"ip {' '.join(words)}: {done.stderr.strip()}")
