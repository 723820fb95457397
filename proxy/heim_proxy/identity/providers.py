"""The identity providers people may sign in with, as the login flow needs them."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heim_config.identity import Provider as ProviderConfig
from heim_proxy.identity.login_errors import ProviderFault

__all__ = [
    "ClientSecret",
    "Provider",
    "ProviderType",
    "from_config",
    "is_loopback_host",
]

# A client secret is some 40 characters; a file that is longer is the wrong file.
MAX_SECRET_BYTES: Final = 4096

_AZURE_ISSUER: Final = re.compile(
    r"https://[a-z0-9.-]+/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:/v2\.0/?|/)?",
    re.IGNORECASE,
)


class ProviderType(enum.Enum):
    """Which provider's peculiarities apply when a token is judged."""

    GOOGLE = "google"
    OKTA = "okta"
    AZURE = "azure"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True, repr=False)
class ClientSecret:
    """Where a client secret lives; it is read when needed, so that a rotated file just works."""

    file: Path | None = None
    variable: str | None = None

    def __repr__(self) -> str:
        return "<sealed>"

    @property
    def configured(self) -> bool:
        """Whether there is one at all; a public client has none."""
        return self.file is not None or self.variable is not None

    def reveal(self) -> str:
        """The secret, without the line end that editors add.

        Raises:
            ProviderFault: The file or variable is missing, empty, too long or not ASCII. The
                message names the place, never the content.
        """
        if self.file is not None:
            place = str(self.file)
            try:
                with self.file.open("rb") as stream:
                    raw = stream.read(MAX_SECRET_BYTES + 1)
            except OSError as error:
                raise ProviderFault(
                    "client secret", f"cannot read {place}: {error.strerror}"
                ) from error
        else:
            place = f"${self.variable}"
            raw = os.environ.get(self.variable or "", "").encode()
        secret = raw.strip(b"\r\n")
        if not secret or len(raw) > MAX_SECRET_BYTES or not secret.isascii():
            raise ProviderFault("client secret", f"{place} does not hold a client secret")
        return secret.decode("ascii")


@dataclass(frozen=True, slots=True)
class Provider:
    """One identity provider.

    `hosted_domains` restricts who may sign in; on Google it is compared with the `hd` claim.
    `domains` are the e-mail domains this provider is believed for, and restrict as well: a verified
    address of another domain proves nothing here. Both are ASCII-lowercased. `groups_claim` names
    the claim that holds the groups; None when there is none.
    """

    name: str
    type: ProviderType
    issuer: str
    client_id: str
    secret: ClientSecret = field(default_factory=ClientSecret)
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    hosted_domains: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    groups_claim: str | None = None
    ca_file: Path | None = None
    insecure_skip_email_verified: bool = False
    display_name: str = ""

    @property
    def title(self) -> str:
        """What people read on buttons and in errors."""
        return self.display_name or self.name

    @property
    def loopback(self) -> bool:
        """Whether the issuer is plain http on this machine, the only place where it may be."""
        host = re.fullmatch(
            r"http://(\[[0-9a-fA-F:.]+\]|[^/:@\[\]]+)(?::[0-9]+)?(?:/.*)?", self.issuer
        )
        return host is not None and is_loopback_host(host[1].strip("[]"))

    @property
    def tenant(self) -> str | None:
        """Azure's tenant id as the issuer names it; None elsewhere or when it is not fixed."""
        if self.type is not ProviderType.AZURE:
            return None
        found = _AZURE_ISSUER.fullmatch(self.issuer)
        return found[1].lower() if found else None


def from_config(configured: Iterable[ProviderConfig]) -> tuple[Provider, ...]:
    """The providers of a validated configuration, in its order."""
    return tuple(
        Provider(
            name=one.name,
            type=ProviderType(one.type),
            issuer=one.issuer,
            client_id=one.client_id,
            secret=ClientSecret(one.client_secret_file, one.client_secret_env),
            scopes=one.scopes,
            hosted_domains=frozenset(domain.lower() for domain in one.hosted_domains or ()),
            domains=frozenset(domain.lower() for domain in one.domains or ()),
            groups_claim=one.groups_claim,
            ca_file=one.ca_file,
            insecure_skip_email_verified=one.insecure_skip_email_verified,
            display_name=one.display_name or "",
        )
        for one in configured
    )


def is_loopback_host(host: str) -> bool:
    """Literal 127/8, ::1 or localhost (decision 11), not names that merely resolve there."""
    if host.lower() in ("localhost", "::1"):
        return True
    parts = host.split(".")
    return (
        len(parts) == 4
        and parts[0] == "127"
        and all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts)
    )
