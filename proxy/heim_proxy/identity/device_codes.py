"""Device codes (RFC 8628): letting a machine in that has no browser, from one that has.

A command line logs in this way, and an agent asks to be enrolled. The device gets a long code that
it polls with and a short one that its person types on the login host, where they see what they
approve. A device that waits is a row in the store, because anybody may ask for one: their number is
bounded, in all and for each client, and they are dropped after ten minutes. When all places are
taken, the network that has most makes room for others.
"""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from heim_config.secrets import Secret
from heim_proxy.identity.authorization_codes import Consent
from heim_proxy.identity.feed import in_time
from heim_proxy.store.base import DeviceRow, Store
from heim_runtime.clock import Clock

__all__ = [
    "INTERVAL_S",
    "LIFETIME_S",
    "MAX_WAITING",
    "MAX_WAITING_PER_CLIENT",
    "CodePurpose",
    "DeviceCodes",
    "DeviceProblem",
    "DeviceStart",
    "SlowDown",
    "user_code_of",
]

LIFETIME_S: Final = 600.0
"""Time to find another machine and sign in on it, with a second factor."""

INTERVAL_S: Final = 5.0

MAX_INTERVAL_S: Final = 60.0

MAX_WAITING: Final = 2000
"""Some 400 KB. More than that at once are not people."""

MAX_WAITING_PER_CLIENT: Final = 50
"""A class room behind one address, or in one IPv6 /64."""

# RFC 8628, 6.1: consonants, so that no words come out, and nothing that looks like something else.
# 20^8 are 34 bits; with MAX_WAITING codes pending, a guess hits one in 10^7.
_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"
_TYPED: Final = re.compile(rf"([{_ALPHABET}]{{4}})([{_ALPHABET}]{{4}})")
_CODE_BYTES: Final = 32
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class CodePurpose(enum.Enum):
    """What is approved; the value begins the long code.

    The codes of one purpose are unknown to the other: whoever types an agent's code where logins
    are approved approves nothing.
    """

    LOGIN = "heim_dc_"
    AGENT = "heim_ac_"


class DeviceProblem(enum.Enum):
    """Why a device gets no login; the value is the error of RFC 8628, 3.5."""

    PENDING = "authorization_pending"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    """Expired, unknown or used: the device must start again in each case."""


@dataclass(frozen=True, slots=True)
class SlowDown:
    """The device polled too soon; `interval` seconds must pass between two polls from now on."""

    interval: float


@dataclass(frozen=True, slots=True)
class DeviceStart:
    """The two codes of a device that begins to wait; `user_code` as ``XXXX-XXXX``."""

    device_code: Secret
    user_code: str

    def __repr__(self) -> str:
        return "<DeviceStart <sealed>>"


def user_code_of(typed: str) -> str | None:
    """A code as somebody typed it, in its one form; None when it cannot be one.

    People write lower case, and leave the hyphen out or put spaces in.
    """
    if len(typed) > 32 or not typed.isascii():
        return None
    found = _TYPED.fullmatch(re.sub(r"[ \t-]", "", typed).upper())
    return None if found is None else f"{found[1]}-{found[2]}"


class DeviceCodes:
    """Devices that wait for one purpose. One per process and purpose.

    The rows are shared, and with them the room for those who wait; the pace of polling is not.
    """

    __slots__ = ("_clock", "_polls", "_purpose", "_store")

    def __init__(
        self, store: Store, clock: Clock, *, purpose: CodePurpose = CodePurpose.LOGIN
    ) -> None:
        """Nothing waits yet; `clock` measures the pace of polling."""
        self._store: Final = store
        self._clock: Final = clock
        self._purpose: Final = purpose
        # By code: when it was asked about, and the seconds that must pass between two questions.
        self._polls: Final[OrderedDict[bytes, tuple[float, float]]] = OrderedDict()

    async def start(
        self,
        label: str,
        client: str,
        now: float,
        *,
        client_key: str,
        network: str,
        agent: str = "",
        key: bytes = b"",
        version: str = "",
    ) -> DeviceStart | None:
        """Let a device wait; None when too many do.

        Args:
            label: What the device calls itself; people see it before they approve.
            client: The address that asks; people see that, too.
            now: Seconds since the epoch.
            client_key: What counts as one client, the same as for rates.
            network: What shares a fair part of the room when it is full.
            agent: The name that an agent would have.
            key: Its public key in DER.
            version: Of its program; people see that, too.

        Raises:
            StoreUnavailable: when it cannot be noted.
        """
        device_code = self._purpose.value + secrets.token_urlsafe(_CODE_BYTES)
        letters = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        user_code = f"{letters[:4]}-{letters[4:]}"
        row = DeviceRow(
            code=_hash(device_code),
            user_code=self._typed(user_code),
            label=label,
            client=client,
            client_key=client_key,
            network=network,
            created=now,
            expires=now + LIFETIME_S,
            agent=agent,
            key=key,
            version=version,
        )
        if not await in_time(
            self._store.add_device(row, limit=MAX_WAITING, limit_per_client=MAX_WAITING_PER_CLIENT)
        ):
            return None
        return DeviceStart(Secret(device_code), user_code)

    async def find(self, user_code: str, now: float) -> DeviceRow | None:
        """The device that waits under a code from `user_code_of`; None when none does.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        row = await in_time(self._store.find_device(self._typed(user_code)))
        return row if row is not None and not row.decided and now < row.expires else None

    async def decide(self, user_code: str, *, sid: str, now: float) -> bool:
        """Approve a device in the name of session `sid`, or deny it with an empty one.

        Returns:
            False when none waits under that code any more.

        Raises:
            StoreUnavailable: when it cannot be written down.
        """
        return await in_time(self._store.decide_device(self._typed(user_code), sid=sid, now=now))

    async def poll(self, device_code: str, now: float) -> Consent | DeviceProblem | SlowDown:
        """What a device is told; an approval is given to one question only.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        taken = await self.take(device_code, now)
        return Consent(taken.sid, taken.label) if isinstance(taken, DeviceRow) else taken

    async def take(self, device_code: str, now: float) -> DeviceRow | DeviceProblem | SlowDown:
        """The device that was approved, as `poll`: `sid` says by whom.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        prefix = self._purpose.value
        secret = device_code.removeprefix(prefix)
        if not device_code.startswith(prefix) or _SECRET.fullmatch(secret) is None:
            return DeviceProblem.EXPIRED
        code = _hash(device_code)
        row = await in_time(self._store.get_device(code))
        if row is None or now >= row.expires:
            self._polls.pop(code, None)
            return DeviceProblem.EXPIRED
        if not row.decided:
            return self._paced(code)
        self._polls.pop(code, None)
        taken = await in_time(self._store.take_device(code))
        if taken is None:
            return DeviceProblem.EXPIRED
        return taken if taken.sid else DeviceProblem.DENIED

    def _typed(self, user_code: str) -> bytes:
        purpose = "" if self._purpose is CodePurpose.LOGIN else f"{self._purpose.name} "
        return _hash(purpose + user_code)

    def _paced(self, code: bytes) -> DeviceProblem | SlowDown:
        """Pending, or slow down: RFC 8628, 3.5 adds five seconds each time a device is too fast."""
        now = self._clock.monotonic()
        asked, interval = self._polls.pop(code, (float("-inf"), INTERVAL_S))
        # A tenth of grace, for a timer that fires early and a network that is faster this time.
        hasty = now - asked < interval * 0.9
        if hasty:
            interval = min(interval + 5.0, MAX_INTERVAL_S)
        self._polls[code] = (now, interval)
        while len(self._polls) > MAX_WAITING:
            self._polls.popitem(last=False)
        return SlowDown(interval) if hasty else DeviceProblem.PENDING


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("ascii")).digest()
