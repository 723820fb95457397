"""Everything by which programs prove who they act for, made and joined in one place."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from heim_proxy.identity.access_tokens import AccessTokens
from heim_proxy.identity.authorization_codes import AuthorizationCodes
from heim_proxy.identity.bearer import Bearers
from heim_proxy.identity.cli_logins import CliLogins
from heim_proxy.identity.device_codes import DeviceCodes
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Sessions
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.store.base import Store
from heim_runtime.clock import Clock

__all__ = ["ProgramIdentity"]


@dataclass(frozen=True, slots=True)
class ProgramIdentity:
    """The parts. One per process; `bearers` is what the tunnel asks, the rest is the portal's."""

    bearers: Bearers
    logins: CliLogins
    codes: AuthorizationCodes
    devices: DeviceCodes

    @classmethod
    def over(
        cls,
        sessions: Sessions,
        store: Store,
        sealer: Sealer,
        *,
        keys: Callable[[], SigningKeys],
        login_url: Callable[[], str],
        accounts: Callable[[], Collection[str]],
        clock: Clock,
    ) -> ProgramIdentity:
        """Join the parts; nothing is read yet.

        Args:
            sessions: What tokens name.
            store: Where refresh tokens and waiting devices are.
            sealer: Seals authorization codes.
            keys: The signing keys of the present configuration.
            login_url: The login host's origin in it.
            accounts: Names of its service accounts.
            clock: Measures the pace of polling.
        """
        access = AccessTokens(keys, login_url)
        return cls(
            bearers=Bearers(sessions, access, accounts=accounts),
            logins=CliLogins(sessions, store, access),
            codes=AuthorizationCodes(sealer, store, login_url),
            devices=DeviceCodes(store, clock),
        )
