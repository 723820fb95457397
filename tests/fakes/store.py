"""A store in memory that can be told to fail; it passes the contract suite like the real one."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from heim_proxy.store.base import (
    AGENT_ISSUER,
    DeviceRow,
    EnrolFailure,
    Enrolment,
    JoinTokenRow,
    PinResult,
    RefreshRow,
    Revocation,
    SessionKind,
    SessionRow,
    StoreUnavailable,
)

__all__ = ["MemoryStore"]


class MemoryStore:
    """`down`: every call fails with that text. `full`: writes fail. `delay_s`: every call takes it.

    `calls` counts calls by method name.
    """

    def __init__(self) -> None:
        self.down: str | None = None
        self.full = False
        self.delay_s = 0.0
        self.calls: dict[str, int] = {}
        self.sessions: dict[str, SessionRow] = {}
        self.feed: list[Revocation] = []
        self.burned: dict[str, float] = {}
        self.pins: dict[str, tuple[str, str, float]] = {}
        self.refresh: dict[str, RefreshRow] = {}
        self.devices: dict[bytes, DeviceRow] = {}
        self.join_tokens: dict[str, JoinTokenRow] = {}
        self._seq = 0
        self._open = False

    @property
    def write_problem(self) -> str | None:
        return "memory: database or disk is full" if self.full else None

    async def open(self) -> None:
        self._open = True
        await self._answer("open")

    async def close(self) -> None:
        self._open = False

    async def create_session(self, row: SessionRow, *, refresh: RefreshRow | None = None) -> None:
        await self._answer("create_session", write=True)
        if row.sid in self.sessions or (refresh is not None and refresh.sid in self.refresh):
            raise StoreUnavailable("memory: UNIQUE constraint failed: sessions.sid")
        self.sessions[row.sid] = row
        if refresh is not None:
            self.refresh[refresh.sid] = refresh

    async def get_session(self, sid: str) -> SessionRow | None:
        await self._answer("get_session")
        return self.sessions.get(sid)

    async def list_sessions(
        self,
        *,
        email: str | None = None,
        kind: SessionKind | None = None,
        include_ended: bool = False,
    ) -> Sequence[SessionRow]:
        await self._answer("list_sessions")
        found = [
            row
            for row in self.sessions.values()
            if (email is None or row.email == email)
            and (kind is None or row.kind is kind)
            and (include_ended or row.ended is None)
        ]
        return sorted(found, key=lambda row: (-row.created, row.sid))

    async def list_cli_logins(
        self, *, issuer: str, subject: str, now: float, limit: int
    ) -> Sequence[SessionRow]:
        await self._answer("list_cli_logins")
        found = [
            row
            for row in self.sessions.values()
            if (row.issuer, row.subject, row.kind) == (issuer, subject, SessionKind.CLI)
            and row.ended is None
            and row.expires > now
        ]
        return sorted(found, key=lambda row: (-row.last_seen, row.sid))[:limit]

    async def touch_sessions(self, seen: Mapping[str, float]) -> None:
        await self._answer("touch_sessions", write=True)
        for sid, when in seen.items():
            row = self.sessions.get(sid)
            if row is not None and when > row.last_seen:
                self.sessions[sid] = dataclasses.replace(row, last_seen=when)

    async def end_session(self, sid: str, *, reason: str, now: float) -> bool:
        await self._answer("end_session", write=True)
        return self._end(sid, reason, now)

    async def end_sessions_of(
        self, *, now: float, reason: str, email: str | None = None, before: float | None = None
    ) -> int:
        await self._answer("end_sessions_of", write=True)
        doomed = [
            row.sid
            for row in self.sessions.values()
            if (email is None or row.email == email) and (before is None or row.created < before)
        ]
        return sum(self._end(sid, reason, now) for sid in doomed)

    async def revocations(self, after: int) -> Sequence[Revocation]:
        await self._answer("revocations")
        return [entry for entry in self.feed if entry.seq > after]

    async def last_revocation(self) -> int:
        await self._answer("last_revocation")
        return self._seq

    async def burn(self, jti: str, *, expires: float) -> bool:
        await self._answer("burn", write=True)
        if jti in self.burned:
            return False
        self.burned[jti] = expires
        return True

    async def get_refresh(self, sid: str) -> RefreshRow | None:
        await self._answer("get_refresh")
        return self.refresh.get(sid)

    async def rotate_refresh(
        self, sid: str, *, current: bytes, successor: bytes, salt: bytes, now: float
    ) -> bool:
        await self._answer("rotate_refresh", write=True)
        row = self.refresh.get(sid)
        if row is None or row.current != current:
            return False
        self.refresh[sid] = dataclasses.replace(
            row, previous=row.current, current=successor, salt=salt, rotated=now
        )
        return True

    async def add_device(self, row: DeviceRow, *, limit: int, limit_per_client: int) -> bool:
        await self._answer("add_device", write=True)
        waiting = {code: one for code, one in self.devices.items() if one.expires > row.created}
        self.devices = waiting
        of_client = sum(one.client_key == row.client_key for one in waiting.values())
        if of_client >= limit_per_client:
            return False
        if len(waiting) >= limit and not self._make_room(row.network):
            return False
        if row.code in waiting or any(row.user_code == one.user_code for one in waiting.values()):
            raise StoreUnavailable("memory: UNIQUE constraint failed: devices")
        waiting[row.code] = row
        return True

    async def get_device(self, code: bytes) -> DeviceRow | None:
        await self._answer("get_device")
        return self.devices.get(code)

    async def find_device(self, user_code: bytes) -> DeviceRow | None:
        await self._answer("find_device")
        return self._typed(user_code)

    async def decide_device(self, user_code: bytes, *, sid: str, now: float) -> bool:
        await self._answer("decide_device", write=True)
        row = self._typed(user_code)
        if row is None or row.decided or row.expires <= now:
            return False
        self.devices[row.code] = dataclasses.replace(row, decided=True, sid=sid)
        return True

    async def take_device(self, code: bytes) -> DeviceRow | None:
        await self._answer("take_device", write=True)
        row = self.devices.get(code)
        return self.devices.pop(code) if row is not None and row.decided else None

    def _make_room(self, network: str) -> bool:
        held = Counter(one.network for one in self.devices.values())
        ((largest, most),) = held.most_common(1)
        if most < held[network] + 2:
            return False
        of_largest = [one for one in self.devices.values() if one.network == largest]
        del self.devices[min(of_largest, key=lambda one: (one.decided, one.created)).code]
        return True

    def _typed(self, user_code: bytes) -> DeviceRow | None:
        return next((row for row in self.devices.values() if row.user_code == user_code), None)

    async def add_join_token(self, row: JoinTokenRow) -> None:
        await self._answer("add_join_token", write=True)
        if row.id in self.join_tokens:
            raise StoreUnavailable("memory: UNIQUE constraint failed: join_tokens.id")
        self.join_tokens[row.id] = row

    async def get_join_token(self, token_id: str) -> JoinTokenRow | None:
        await self._answer("get_join_token")
        return self.join_tokens.get(token_id)

    async def list_join_tokens(self) -> Sequence[JoinTokenRow]:
        await self._answer("list_join_tokens")
        return sorted(self.join_tokens.values(), key=lambda row: (-row.created, row.id))

    async def drop_join_token(self, token_id: str) -> bool:
        await self._answer("drop_join_token", write=True)
        row = self.join_tokens.get(token_id)
        if row is None or row.used is not None:
            return False
        del self.join_tokens[token_id]
        return True

    async def enrol(
        self, row: SessionRow, *, group: bool, replace: bool, token: str = ""
    ) -> Enrolment | EnrolFailure:
        await self._answer("enrol", write=True)
        live = self._enrolled(row.subject)
        same = next((one for one in live if one.secret_hash == row.secret_hash), None)
        if live and same is None and not group and not replace:
            return EnrolFailure.NAME_TAKEN
        if same is None and row.sid in self.sessions:
            raise StoreUnavailable("memory: UNIQUE constraint failed: sessions.sid")
        holds = row if same is None else dataclasses.replace(same, label=row.label)
        if token:
            found = self.join_tokens.get(token)
            if found is None or found.used is not None or found.name != row.subject:
                return EnrolFailure.TOKEN_OVER
            if found.expires <= row.created:
                return EnrolFailure.TOKEN_OVER
            self.join_tokens[token] = dataclasses.replace(found, used=row.created, sid=holds.sid)
        others = [one.sid for one in live if one is not same]
        ended = others if replace and not group else []
        for sid in ended:
            self._end(sid, "replaced", row.created)
        self.sessions[holds.sid] = holds
        return Enrolment(holds, tuple(ended))

    async def list_enrolments(self, name: str, *, key: bytes | None = None) -> Sequence[SessionRow]:
        await self._answer("list_enrolments")
        return [row for row in self._enrolled(name) if key in (None, row.secret_hash)]

    def _enrolled(self, name: str) -> list[SessionRow]:
        found = [
            row
            for row in self.sessions.values()
            if (row.issuer, row.subject, row.kind) == (AGENT_ISSUER, name, SessionKind.AGENT)
            and row.ended is None
        ]
        return sorted(found, key=lambda row: (-row.created, row.sid))

    async def pin(self, email: str, *, issuer: str, subject: str, now: float) -> PinResult:
        await self._answer("pin", write=True)
        bound = self.pins.get(email)
        if bound is None:
            self.pins[email] = (issuer, subject, now)
            return PinResult.NEW
        return PinResult.SAME if bound[:2] == (issuer, subject) else PinResult.CONFLICT

    async def unpin(self, email: str) -> bool:
        await self._answer("unpin", write=True)
        return self.pins.pop(email, None) is not None

    async def list_pins(self) -> Sequence[tuple[str, str, str, float]]:
        await self._answer("list_pins")
        return [(email, *bound) for email, bound in sorted(self.pins.items())]

    async def purge(self, *, now: float, keep_ended: float) -> int:
        await self._answer("purge", write=True)
        before = self._rows()
        old = now - keep_ended
        self.burned = {jti: expires for jti, expires in self.burned.items() if expires >= now}
        self.feed = [entry for entry in self.feed if entry.at >= old]
        self.sessions = {
            sid: row
            for sid, row in self.sessions.items()
            if row.expires >= old and (row.ended is None or row.ended >= old)
        }
        self.devices = {code: row for code, row in self.devices.items() if row.expires >= now}
        self.refresh = {sid: row for sid, row in self.refresh.items() if sid in self.sessions}
        self.join_tokens = {
            name: row for name, row in self.join_tokens.items() if row.expires >= old
        }
        return before - self._rows()

    def _rows(self) -> int:
        stored = (self.burned, self.feed, self.sessions, self.devices, self.refresh)
        return sum(len(table) for table in stored) + len(self.join_tokens)

    def _end(self, sid: str, reason: str, now: float) -> bool:
        row = self.sessions.get(sid)
        if row is None or row.ended is not None:
            return False
        self.sessions[sid] = dataclasses.replace(row, ended=now, end_reason=reason)
        self._seq += 1
        self.feed.append(Revocation(self._seq, sid, reason, now))
        return True

    async def _answer(self, call: str, *, write: bool = False) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1
        # Always a turn of the loop, as with a real one.
        await asyncio.sleep(self.delay_s)
        if not self._open:
            raise StoreUnavailable("memory: the store is not open")
        if self.down is not None:
            raise StoreUnavailable(f"memory: {self.down}")
        if write and self.full:
            raise StoreUnavailable("memory: database or disk is full")
