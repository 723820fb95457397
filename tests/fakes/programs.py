"""One process that knows programs: sessions over a fake store, tokens, and a clock to move."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from heim_proxy.identity import service_tokens
from heim_proxy.identity.access_tokens import AccessTokens
from heim_proxy.identity.authorization_codes import Consent
from heim_proxy.identity.cli_logins import CliLogin
from heim_proxy.identity.programs import ProgramIdentity
from heim_proxy.identity.session import Session
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.sessions import Stage
from tests.fakes.snapshots import signing_keys

__all__ = ["LOGIN_URL", "VERIFIER", "Desk", "challenge_of"]

LOGIN_URL = "https://auth.example.test:8443"
VERIFIER = "v" * 43


def challenge_of(verifier: str = VERIFIER) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass
class Desk:
    """`keys`, `login_url` and `accounts` stand for the configuration; change them to reload."""

    stage: Stage
    programs: ProgramIdentity
    keys: SigningKeys
    login_url: str = LOGIN_URL
    accounts: list[str] = field(default_factory=lambda: ["backup"])

    @classmethod
    async def up(cls, stage: Stage | None = None, **options: float) -> Desk:
        stage = stage or await Stage.up(**options)
        desk: Desk
        programs = ProgramIdentity.over(
            stage.sessions,
            stage.store,
            stage.sealer,
            keys=lambda: desk.keys,
            login_url=lambda: desk.login_url,
            accounts=lambda: desk.accounts,
            clock=stage.clock,
        )
        desk = cls(stage, programs, signing_keys())
        return desk

    async def restarted(self) -> Desk:
        """Another process over the same store and keys."""
        return await Desk.up(await self.stage.restarted())

    @property
    def access(self) -> AccessTokens:
        return AccessTokens(lambda: self.keys, lambda: self.login_url)

    @property
    def now(self) -> float:
        return self.stage.now

    def wait(self, seconds: float) -> None:
        self.stage.clock.time += seconds

    async def log_in(self, person: Session | None = None, label: str = "laptop") -> CliLogin:
        """A CLI login that `person` (else alice, who signs in for it) consented to."""
        person = person or await self.stage.sign_in()
        login = await self.programs.logins.begin(Consent(person.sid, label), self.now)
        assert login is not None
        return login

    async def service_token(
        self, account: str = "backup", *, lifetime: float = float("inf")
    ) -> tuple[str, str]:
        """The id and the text of a new service token, as `heim-proxy token create` makes one."""
        row, token = service_tokens.issue(account, now=self.now, expires=self.now + lifetime)
        await self.stage.store.create_session(row)
        return row.sid, token.reveal()
