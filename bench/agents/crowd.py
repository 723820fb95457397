"""Ten thousand agents on one proxy: what they cost when nothing happens, and when all come back."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from bench import configuration
from bench.agents import enrolled, fleet, visitor
from bench.agents.pair import LOGIN_HOST
from bench.agents.worker import Worker
from bench.process import Cores, Program, StartError, free_port
from bench.site import PUBLIC_HOST, Site
from bench.tunnel.ground import python
from bench.tunnel.load import percentile
from bench.tunnel.peers import heim
from bench.tunnel.place import Place
from bench.tunnel.stalled import resident_bytes

__all__ = ["Crowd", "IdleSample", "Quality", "StormSample", "gathered", "idle", "names", "storm"]

_GROUP: Final = 50
_PROCESSES: Final = 4
_CONNECT_S: Final = 600.0
_ANSWER_S: Final = 60.0
# For buffers and timers of the handshakes to be gone.
_SETTLE_S: Final = 20.0
_VISITORS: Final = 16
_PACE: Final = 12.5
_STEP_S: Final = 1.0
# A single long wait of an agent (Retry-After, backoff) is 30 s; some need several.
_STORM_S: Final = 400.0


@dataclass(frozen=True, slots=True)
class Quality:
    """What visitors got over some time, in ms."""

    answers: int
    failed: int
    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seen: Sequence[tuple[float, float | None]]) -> Quality:
        """Of what `bench.agents.visitor` says."""
        times = [took * 1e3 for _, took in seen if took is not None]
        failed = len(seen) - len(times)
        if not times:
            return cls(0, failed, math.nan, math.nan, math.nan)
        return cls(len(times), failed, percentile(times, 0.5), percentile(times, 0.99), max(times))


@dataclass(frozen=True, slots=True)
class IdleSample:
    """A proxy with `agents` connected and nothing to do.

    Attributes:
        agents: How many.
        before: Resident bytes of the proxy without any.
        after: With all.
        seconds: How long it was watched.
        cpu_s: What it used meanwhile.
        steps: Part of a core, in each 10 s.
        connect_s: How long they took to come, paced by us; what the proxy used for each is
            `connect_cpu_ms`.
    """

    agents: int
    before: int
    after: int
    seconds: float
    cpu_s: float
    steps: tuple[float, ...]
    connect_s: float
    connect_cpu_ms: float

    @property
    def core(self) -> float:
        """Part of a core."""
        return self.cpu_s / self.seconds

    @property
    def kib(self) -> float:
        """Resident KiB for each agent."""
        return (self.after - self.before) / self.agents / 1024


@dataclass(frozen=True, slots=True)
class StormSample:
    """A proxy that was killed and started again.

    Attributes:
        agents: How many came back.
        start_s: From its start until it listened.
        half_s: From then until half of the agents were ready; `most_s` 99 %, `all_s` all.
        cpu_s: CPU of the proxy until then.
        quiet: Visitors before.
        meanwhile: Visitors from when it listened until all were ready.
        calm: Visitors after.
        other: What became of attempts that did not succeed.
        after: Resident bytes of the proxy at the end.
    """

    agents: int
    start_s: float
    half_s: float
    most_s: float
    all_s: float
    cpu_s: float
    quiet: Quality
    meanwhile: Quality
    calm: Quality
    after: int
    other: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Crowd:
    """A proxy that can be started again, and all its agents."""

    site: Site
    place: Place
    room: Path
    port: int
    proxy: Program
    agents: int
    fleets: list[Worker]
    connect_s: float = 0.0
    connect_cpu_s: float = 0.0
    before: int = 0

    def restart(self) -> float:
        """Kill the proxy as nobody should, start it again; seconds until it listened."""
        self.proxy.kill()
        began = time.monotonic()
        self.proxy = _start(self.place, self.room, self.port)
        return time.monotonic() - began

    def times(self) -> tuple[int, list[float], Counter[str]]:
        """How many are ready, when lanes became ready since last asked, and other attempts."""
        ready, at, other = 0, [], Counter[str]()
        for worker in self.fleets:
            found = worker.ask("times", _ANSWER_S)
            ready += found["ready"]
            at += found["at"]
            other.update(found["other"])
        return ready, at, other


def names(count: int) -> tuple[list[str], list[str], list[str]]:
    """For `count` machines: half have a name each, half share one with 49 others.

    Returns:
        Names of single agents, names of groups, and the name of each machine.
    """
    single = [f"machine-{number:05}" for number in range(count - count // 2)]
    groups = [f"farm-{number:03}" for number in range(-(-(count // 2) // _GROUP))]
    shared = [groups[number // _GROUP] for number in range(count // 2)]
    return single, groups, [*single, *shared]


@contextmanager
def gathered(
    directory: Path, cores: Cores, count: int, *, tell: Callable[[str], None]
) -> Iterator[Crowd]:
    """Everybody connected."""
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        site = Site.open(directory, cores)
        stack.callback(site.upstream.stop)
        room = site.room("crowd")
        single, groups, everybody = names(count)
        tell(f"crowd: {count} machines enrol")
        machines = enrolled.enrol(room / "state", everybody, login_host=LOGIN_HOST)
        kept = room / "machines"
        enrolled.write(machines, kept)
        site.authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        port = free_port()
        document = _document(site, room, port, single, groups)
        (room / "heim.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        place = Place(cores.server)
        proxy = _start(place, room, port)
        crowd = Crowd(site, place, room, port, proxy, count, [])
        stack.callback(lambda: crowd.proxy.kill())
        time.sleep(3)
        crowd.before = resident_bytes(crowd.proxy)
        tell(f"crowd: {count} agents connect")
        _connect(crowd, stack, kept, cores)
        tell(f"crowd: they are there after {crowd.connect_s:.0f} s")
        yield crowd


def _connect(crowd: Crowd, stack: ExitStack, machines: Path, cores: Cores) -> None:
    part = -(-crowd.agents // _PROCESSES)
    authority = str(crowd.site.directory / "ca.pem")
    for begin in range(0, crowd.agents, part):
        job = fleet.Job(
            str(machines), begin, min(begin + part, crowd.agents), crowd.port, authority
        )
        worker = Worker([*python("bench.agents.fleet"), job.dump()], core=cores.load)
        crowd.fleets.append(stack.enter_context(worker))
    used, began = crowd.proxy.cpu_ns(), time.monotonic()
    for worker in crowd.fleets:
        worker.tell("connect")
    for worker in crowd.fleets:
        worker.expect("ready", _CONNECT_S)
    crowd.connect_s = time.monotonic() - began
    crowd.connect_cpu_s = (crowd.proxy.cpu_ns() - used) / 1e9


def idle(crowd: Crowd, *, seconds: float, tell: Callable[[str], None]) -> IdleSample:
    """Look at a proxy whose agents do nothing."""
    time.sleep(_SETTLE_S)
    tell(f"idle: for {seconds:g} s")
    steps = []
    began, first = time.monotonic(), crowd.proxy.cpu_ns()
    used = first
    for _ in range(max(1, round(seconds / 10))):
        time.sleep(10)
        now = crowd.proxy.cpu_ns()
        steps.append((now - used) / 10e9)
        used = now
    ready, _, other = crowd.times()
    if ready != crowd.agents or other:
        raise StartError(f"only {ready} of {crowd.agents} agents stayed: {dict(other)}")
    return IdleSample(
        agents=crowd.agents,
        before=crowd.before,
        after=resident_bytes(crowd.proxy),
        seconds=time.monotonic() - began,
        cpu_s=(used - first) / 1e9,
        steps=tuple(steps),
        connect_s=crowd.connect_s,
        connect_cpu_ms=crowd.connect_cpu_s / crowd.agents * 1e3,
    )


def storm(
    crowd: Crowd, cores: Cores, *, quiet_s: float, tell: Callable[[str], None]
) -> StormSample:
    """Kill the proxy, start it again, and watch until every agent is back."""
    job = visitor.Job(
        crowd.port,
        PUBLIC_HOST,
        "/1k/",
        str(crowd.site.directory / "ca.pem"),
        _VISITORS,
        _PACE,
    )
    command = [*python("bench.agents.visitor"), job.dump()]
    with Worker(command, core=cores.load, nice=-15) as visitors:
        time.sleep(2)
        visitors.ask("", _ANSWER_S)
        time.sleep(quiet_s)
        quiet = Quality.of(visitors.ask("", _ANSWER_S))
        crowd.times()
        tell("storm: the proxy is killed")
        start_s = crowd.restart()
        listens = time.monotonic()
        at, other = _come_back(crowd, tell)
        cpu_s = crowd.proxy.cpu_ns() / 1e9
        seen = visitors.ask("", _ANSWER_S)
        time.sleep(quiet_s)
        calm = Quality.of(visitors.ask("", _ANSWER_S))
    after = sorted(when - listens for when in at)
    return StormSample(
        agents=crowd.agents,
        start_s=start_s,
        half_s=median(after),
        most_s=percentile(after, 0.99),
        all_s=after[-1],
        cpu_s=cpu_s,
        quiet=quiet,
        meanwhile=Quality.of([(due, took) for due, took in seen if due >= listens]),
        calm=calm,
        after=resident_bytes(crowd.proxy),
        other=dict(other),
    )


def _come_back(crowd: Crowd, tell: Callable[[str], None]) -> tuple[list[float], Counter[str]]:
    """When each became ready, and what else happened."""
    at: list[float] = []
    other: Counter[str] = Counter()
    deadline = time.monotonic() + _STORM_S
    said = 0.0
    while True:
        time.sleep(_STEP_S)
        ready, more, failures = crowd.times()
        at += more
        other.update(failures)
        if ready == crowd.agents:
            return at, other
        if time.monotonic() > deadline:
            raise StartError(f"only {ready} of {crowd.agents} agents came back: {dict(other)}")
        if time.monotonic() - said > 10:
            said = time.monotonic()
            tell(f"storm: {ready} are back")


def _start(place: Place, room: Path, port: int) -> Program:
    command = [heim.program("heim-proxy"), "run", "--config", str(room / "heim.yaml")]
    command += ["--access-log", str(room / "access.log")]
    return place.start(command, room / "output", port)


def _document(
    site: Site, room: Path, port: int, single: Sequence[str], groups: Sequence[str]
) -> dict[str, Any]:
    return {
        **configuration.frame(site.directory, room, domain="bench.test", https=f"127.0.0.1:{port}"),
        "agents": [
            *({"name": name, "targets": ["web"]} for name in single),
            *({"name": name, "targets": ["web"], "group": True} for name in groups),
        ],
        "backends": [
            {
                "name": "www",
                "host": PUBLIC_HOST,
                "public": True,
                "http": [{"path": "/", "upstream": f"http://127.0.0.1:{site.upstream_port}"}],
            }
        ],
        "drain": "1s",
    }
