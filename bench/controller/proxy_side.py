"""What the proxy makes of a large cluster's document: configuration, snapshot, and look-ups in it.

Each sample is a process of its own, because memory is counted:
`python -m bench.controller.proxy_side` reads the document from a file and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.controller.translate import SETTINGS, held_kib, highest_kib, objects
from heim_config.layers import Boot, Remembered, combine, read_boot, read_document
from heim_config.model import Config
from heim_controller.translation.document import canonical, digest
from heim_controller.translation.translate import translate
from heim_proxy.identity.providers import from_config
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.pieces import Pieces
from heim_proxy.snapshot import Snapshot, build
from heim_proxy.sources.document import Sheet, assemble
from heim_runtime.collector import without_collecting

__all__ = ["Part", "ProxySample", "lookup_us", "measure"]

# Look-ups of one round; the hosts are visited in random order, as people do.
_LOOKUPS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Part:
    """Milliseconds of one step."""

    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class ProxySample:
    """One process.

    Attributes:
        first: The steps when the process does them for the first time.
        again: The steps of a later document, which differs in one host; medians of the rounds.
        first_high_mib: How much more memory than before at the highest, after the first.
        high_mib: The same after all rounds.
        kept_mib: How much more is held then, with one snapshot alive.
        lookup_us: Of an exact host, in random order.
        match_us: The same with the match of a path.
        unknown_us: Of a host that nobody has.
    """

    hosts: int
    first: dict[str, Part]
    again: dict[str, Part]
    first_high_mib: float
    high_mib: float
    kept_mib: float
    lookup_us: float
    match_us: float
    unknown_us: float


class _Steps:
    """Takes the time of steps, one after the other."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def ended(self, name: str) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        self.parts[name] = Part((cpu - self._cpu) * 1000, (wall - self._wall) * 1000)
        self._cpu, self._wall = cpu, wall


def measure(count: int, *, rounds: int) -> ProxySample:
    """A process that takes a document of `count` Ingresses, and then `rounds` later ones."""
    made = objects(count)
    content = canonical(translate(made, SETTINGS).document)
    with tempfile.TemporaryDirectory(prefix="heim-bench-") as directory:
        path = Path(directory) / "document.json"
        path.write_bytes(content)
        command = [sys.executable, "-m", "bench.controller.proxy_side", str(path), str(rounds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    told: dict[str, Any] = json.loads(done.stdout)
    for key in ("first", "again"):
        told[key] = {name: Part(**part) for name, part in told[key].items()}
    return ProxySample(**told)


def lookup_us(ask: Callable[[Any], object], things: list[Any]) -> float:
    """Microseconds for one call, the loop itself taken off."""
    began = time.process_time()
    for thing in things:
        ask(thing)
    middle = time.process_time()
    for thing in things:  # noqa: B007 - what the loop costs by itself
        pass
    ended = time.process_time()
    return max(0.0, (middle - began) - (ended - middle)) / len(things) * 1e6


def _boot(directory: Path) -> Boot:
    """A boot file like the chart's."""
    (directory / "client-secret").write_text("not-a-secret")
    provider = {
        "name": "idp", "type": "oidc", "issuer": "https://idp.example.test",
        "client_id": "heim", "client_secret_file": "client-secret",
    }  # fmt: skip
    path = directory / "boot.yaml"
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "domain": "example.test",
                "source": {"kubernetes": {"config_map": "heim-configuration"}},
                "state": {"url": f"sqlite://{directory}/state/state.db"},
                "identity": {"providers": [provider]},
            }
        )
    )
    return read_boot(path)


def _snapshot(
    pieces: dict[str, bytes], boot: Boot, keys: SigningKeys, memory: tuple[Remembered, Pieces]
) -> tuple[Snapshot, dict[str, Part]]:
    """What the source and the reloader do with pieces of a document."""
    remembered, known = memory
    steps = _Steps()
    sheet: Sheet = assemble(pieces)
    with without_collecting():
        document = read_document(sheet.content, name="document", lines=remembered.lines)
        steps.ended("read JSON, check its hash")
        config: Config = combine(boot, document, name="document", remembered=remembered)
        steps.ended("validate and cross-check")
        made = build(
            config,
            generation=1,
            signing_keys=keys,
            providers=from_config(config.identity.providers),
            pieces=known,
        )
        steps.ended("snapshot: routes, policy")
    return made, steps.parts


def _pieces(content: bytes) -> dict[str, bytes]:
    index = {"version": 1, "sha256": digest(content), "shards": ["document"]}
    return {"index.json": json.dumps(index).encode(), "document": content}


def _later(content: bytes, rounds: int) -> Iterator[bytes]:
    """The document after a change of one host each."""
    for number in range(rounds):
        yield content.replace(b"app7.example.com", f"changed{number}.example.com".encode())


def _middle(found: list[dict[str, Part]]) -> dict[str, Part]:
    def half(values: list[float]) -> float:
        return sorted(values)[len(values) // 2]

    return {
        name: Part(half([one[name].cpu for one in found]), half([one[name].wall for one in found]))
        for name in found[0]
    }


def _lookups(snapshot: Snapshot) -> tuple[float, float, float]:
    dice = random.Random(5)
    hosts = [host for host in snapshot.routes.hosts() if "*" not in host]
    # Equal and not identical: a Host header is new with every request.
    asked = ["".join(dice.choice(hosts)) for _ in range(_LOOKUPS)]
    asked = [f"{host[:3]}{host[3:]}" for host in asked]
    unknown = [f"nobody{number}.example.com" for number in range(_LOOKUPS)]
    routes = snapshot.routes

    def match(host: str) -> object:
        found = routes.lookup(host)
        return None if found is None else found.match(b"/api/v1/things/17")

    def best(ask: Callable[[Any], object], things: list[str]) -> float:
        return sorted(lookup_us(ask, things) for _ in range(5))[2]

    return best(routes.lookup, asked), best(match, asked), best(routes.lookup, unknown)


def main() -> int:
    """The process that is measured."""
    parser = argparse.ArgumentParser(description="What the proxy makes of a document.")
    parser.add_argument("document", type=Path)
    parser.add_argument("rounds", type=int)
    options = parser.parse_args()
    content = options.document.read_bytes()
    with tempfile.TemporaryDirectory(prefix="heim-bench-") as name:
        boot = _boot(Path(name))
        keys = SigningKeys.load_or_create(Path(name) / "assertion.pem")
        # Pages of code and of allocators that any document takes.
        small = canonical(translate(objects(10), SETTINGS).document)
        memory = (Remembered(), Pieces())
        _snapshot(_pieces(small), boot, keys, memory)
        gc.collect()
        before = held_kib()
        snapshot, first = _snapshot(_pieces(content), boot, keys, memory)
        first_high = highest_kib()
        again = []
        for later in _later(content, options.rounds):
            # The one in force lives until the new one is there.
            snapshot, parts = _snapshot(_pieces(later), boot, keys, memory)
            again.append(parts)
        high = highest_kib()
        gc.collect()
        kept = held_kib()
    plain, with_path, unknown = _lookups(snapshot)
    sample = ProxySample(
        hosts=len(snapshot.routes.hosts()),
        first=first,
        again=_middle(again),
        first_high_mib=(first_high - before) / 1024,
        high_mib=(high - before) / 1024,
        kept_mib=(kept - before) / 1024,
        lookup_us=plain,
        match_us=with_path,
        unknown_us=unknown,
    )
    print(json.dumps(asdict(sample)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
