"""A slow link between two network namespaces: `python -m bench.tunnel.emulator A B ...`.

Two TUN devices, one in each namespace, joined by this process: every packet waits for the link's
rate, then for the one-way delay; what does not fit into the queue is dropped at its tail, as a
home router does. No netem and no kernel module is needed, only /dev/net/tun and root.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Direction", "main"]

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x0001 | 0x1000
_MTU: Final = 1500
_DEVICE: Final = "heim0"
# Packets taken from a device before the clock is looked at again.
_BATCH: Final = 64


@dataclass(slots=True)
class Direction:
    """One way of the link: what entered, and when each packet may leave."""

    rate: float  # bytes per second
    delay: float  # seconds, one way
    limit: float  # bytes that may wait for the link
    free: float = 0.0
    waiting: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)

    def enter(self, packet: bytes, now: float) -> bool:
        """Queue a packet; False when the queue is full and it was dropped."""
        start = max(self.free, now)
        if (start - now) * self.rate > self.limit:
            return False
        self.free = start + len(packet) / self.rate
        self.waiting.append((self.free + self.delay, packet))
        return True

    def due(self, now: float) -> list[bytes]:
        """The packets that have arrived by now, in order."""
        found = []
        while self.waiting and self.waiting[0][0] <= now:
            found.append(self.waiting.popleft()[1])
        return found

    def next(self, now: float) -> float:
        """Seconds until the next packet arrives, at most 1."""
        return min(1.0, max(0.0, self.waiting[0][0] - now)) if self.waiting else 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Carry packets until killed, `--seconds` at the longest."""
    args = _arguments(argv)
    near = _device(args.near, args.near_address)
    far = _device(args.far, args.far_address)
    rate, delay = args.mbit * 1e6 / 8, args.rtt_ms / 2000
    ways = {
        near: (far, Direction(rate, delay, args.queue_kb * 1000)),
        far: (near, Direction(rate, delay, args.queue_kb * 1000)),
    }
    print("ready", flush=True)
    poll = select.poll()
    for device in ways:
        poll.register(device, select.POLLIN)
    end = time.monotonic() + args.seconds
    while (now := time.monotonic()) < end:
        wait = 1.0
        for out, way in ways.values():
            for packet in way.due(now):
                os.write(out, packet)
            wait = min(wait, way.next(now))
        # poll counts whole milliseconds: what is due sooner is waited for without sleeping.
        for device, _ in poll.poll(wait * 1000 if wait > 0.0005 else 0):
            _take(device, ways[device][1])
    return 0


def _take(device: int, way: Direction) -> None:
    for _ in range(_BATCH):
        try:
            packet = os.read(device, 2048)
        except BlockingIOError:
            return
        way.enter(packet, time.monotonic())


def _device(namespace: str, address: str) -> int:
    """A TUN device inside `namespace`, this process being left there."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
    os.close(descriptor)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN_NO_PI))
    for command in (
        ["ip", "address", "add", f"{address}/24", "dev", _DEVICE],
        ["ip", "link", "set", _DEVICE, "mtu", str(_MTU), "txqueuelen", "1000", "up"],
        ["ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(command, check=True, timeout=10)
    return device


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tunnel.emulator")
    parser.add_argument("near", help="network namespace of one end")
    parser.add_argument("near_address")
    parser.add_argument("far", help="network namespace of the other end")
    parser.add_argument("far_address")
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--rtt-ms", type=float, default=40.0)
    parser.add_argument("--queue-kb", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=600.0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
