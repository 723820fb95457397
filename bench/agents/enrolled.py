"""Machines that are agents already: keys, certificates and rows of the store, made ahead of a run.

As joining leaves them (`heim_proxy.agents.enrolment`), without ten thousand joins. The proxy must
not run yet: it reads at its start which agents ever joined.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from heim_agent.identity import Identity
from heim_agent.key import AgentKey
from heim_agent.places import Places
from heim_proxy.agents.authority import Authority
from heim_proxy.identity.session_cookie import new_sid
from heim_proxy.store import sessions
from heim_proxy.store.base import SessionKind, SessionRow
from heim_proxy.store.sqlite import SqliteStore

__all__ = ["Machine", "enrol", "install", "read", "write"]


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine: the agent's name, its key in PKCS #8 and its certificate in DER (base64)."""

    name: str
    key: str
    certificate: str

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        found = load_der_private_key(base64.b64decode(self.key), password=None)
        assert isinstance(found, ec.EllipticCurvePrivateKey)
        return found

    @property
    def certificate_der(self) -> bytes:
        return base64.b64decode(self.certificate)


def enrol(state: Path, names: Iterable[str], *, login_host: str) -> list[Machine]:
    """Enrol one new machine for each name (a group's name may come many times).

    Args:
        state: The directory of the proxy's store, where its authority is made as well.
        names: As configured under `agents`.
        login_host: The trust domain of the names in certificates.
    """
    state.mkdir(parents=True, exist_ok=True)
    authority = Authority.load_or_create(state, login_host=login_host)
    database = state / "state.db"
    asyncio.run(_create(database))
    now = time.time()
    made = []
    # All in one transaction: each of its own is synced, and takes 3 ms.
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        for number, name in enumerate(names):
            key = ec.generate_private_key(ec.SECP256R1())
            sessions.insert(db, _row(name, AgentKey(key), f"machine-{number}", now))
            issued = authority.issue(key.public_key(), name=name, now=now)
            private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            made.append(Machine(name, _base64(private), _base64(issued)))
    return made


async def _create(database: Path) -> None:
    store = SqliteStore(database)
    await store.open()
    await store.close()


def _row(name: str, key: AgentKey, device: str, now: float) -> SessionRow:
    return SessionRow(
        sid=new_sid(),
        issuer="heim",
        subject=name,
        email=None,
        domain=None,
        groups=(),
        provider="heim",
        auth_time=now,
        created=now,
        expires=float("inf"),
        last_seen=now,
        kind=SessionKind.AGENT,
        label=device,
        secret_hash=base64.urlsafe_b64decode(key.thumbprint + "="),
    )


def install(machine: Machine, directory: Path, *, state: Path, login_host: str, ca: Path) -> Places:
    """Write what `heim-agent join` leaves in a machine's state directory.

    Args:
        machine: Whose.
        directory: To be the state directory of heim-agent, agent.toml in it.
        state: The proxy's, for the authority to be pinned.
        login_host: Of the proxy.
        ca: Authorities to trust for TLS.
    """
    places = Places(config=str(directory / "agent.toml"), state=str(directory))
    identity = Identity(
        agent=machine.name,
        login_url=f"https://{login_host}",
        key=AgentKey(machine.private),
        certificate=machine.certificate_der,
        roots=Authority.load_or_create(state, login_host=login_host).roots(),
        keys=(),
        places=places,
    )
    identity.save_joined(ca.read_bytes())
    return places


def write(machines: Iterable[Machine], path: Path) -> None:
    """Keep machines for another process; one JSON object in each line."""
    with path.open("w") as file:
        path.chmod(0o600)
        for machine in machines:
            file.write(json.dumps(asdict(machine)) + "\n")


def read(path: Path) -> list[Machine]:
    """What `write` kept."""
    lines: Iterable[dict[str, Any]] = map(json.loads, path.read_text().splitlines())
    return [Machine(**line) for line in lines]


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
