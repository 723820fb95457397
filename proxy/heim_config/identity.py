"""Who people are: identity providers, sessions, and the keys that seal and sign."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from heim_config.fields import (
    DomainName,
    Duration,
    EnvName,
    FilePath,
    Flag,
    Issuer,
    Name,
    Section,
    Text,
    base_of,
)
from heim_config.problems import mistake, show

__all__ = ["GOOGLE_ISSUER", "Assertion", "Identity", "Provider", "Session", "State"]

GOOGLE_ISSUER: Final = "https://accounts.google.com"

ProviderType = Literal["google", "okta", "azure", "oidc"]
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}", re.ASCII)


def _drop_issuer_from_required(schema: dict[str, Any]) -> None:
    # For type google the issuer is filled in; JSON Schema cannot say it shorter than a condition.
    schema["required"] = [name for name in schema["required"] if name != "issuer"]


class Provider(Section):
    """One OpenID Connect provider that people sign in with."""

    model_config = ConfigDict(json_schema_extra=_drop_issuer_from_required)

    name: Name
    """How members, logs and the sign-in page's address call it. Required."""

    type: ProviderType
    """google, okta, azure, or oidc for any conforming provider. Required: it decides how e-mail
    addresses and domains are proven."""

    client_id: Text
    """The client's id as registered with the provider. Required. Register
    https://<login_host>/.heim/callback as its only redirect URI."""

    client_secret_file: FilePath | None = None
    """File with the client's secret; one line end at its end is ignored. Re-read when it changes.
    Default: none; exactly one of the file and the environment variable is required."""

    client_secret_env: EnvName | None = None
    """Environment variable with the client's secret. Default: none; a file is better, because it
    can change without a restart."""

    issuer: Issuer
    """The provider's issuer, exactly as its metadata says it. Filled in for google, required for
    the others. https; http only for a literal loopback host."""

    hosted_domains: tuple[DomainName, ...] = ()
    """Organisations whose accounts may sign in: on google the `hd` claim, elsewhere the domain of
    the e-mail. Default: every account of the provider. Required for azure, which proves no e-mail
    addresses by itself."""

    domains: tuple[DomainName, ...] = ()
    """E-mail domains this provider is authoritative for: `user: alice@example.com` is only ever
    somebody from such a provider. Default: every domain; required with several providers, or one
    could sign in as the people of another."""

    ca_file: FilePath | None = None
    """PEM file with the authorities that sign the provider's certificate. Default: the system's."""

    scopes: tuple[Text, ...] = ("openid", "email", "profile")
    """Scopes to ask for; `openid` must be among them. Default: openid, email, profile. Some
    providers give groups only for a `groups` scope."""

    groups_claim: Text | None = "groups"
    """Claim of the ID token that lists a person's groups. Default: groups; null takes none."""

    insecure_skip_email_verified: Flag = False
    """Believe e-mail addresses that the provider does not mark as verified. Default: false, because
    with some providers anyone can then sign in under any address."""

    display_name: Text | None = None
    """What the sign-in page calls it. Default: the name."""

    @model_validator(mode="before")
    @classmethod
    def _fill_issuer(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") == "google" and "issuer" not in data:
            return {**data, "issuer": GOOGLE_ISSUER}
        return data

    @field_validator("scopes")
    @classmethod
    def _check_scopes(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        for scope in scopes:
            if not _SCOPE.fullmatch(scope):
                raise mistake(f"{show(scope)} is not a scope", "write each scope as its own item")
        if "openid" not in scopes:
            raise mistake("must hold openid: without it there is no ID token", "add openid")
        return scopes

    @field_validator("hosted_domains", "domains")
    @classmethod
    def _check_not_empty(cls, domains: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if domains == () and info.context is not None:
            raise mistake(
                "is an empty list, which must not come to mean every domain",
                "name a domain, or remove the key",
            )
        return domains

    @model_validator(mode="after")
    def _check_secret(self) -> Provider:
        if (self.client_secret_file is None) == (self.client_secret_env is None):
            raise mistake(
                "needs exactly one of client_secret_file and client_secret_env",
                "secrets come from a file or the environment, never from this file",
            )
        return self


class Identity(Section):
    """How people sign in."""

    providers: tuple[Provider, ...] = ()
    """The identity providers; with several, the login page lets people pick. Default: none, which
    is enough only while every backend is public."""


class Session(Section):
    """How long a login lasts and what seals its cookies."""

    key_file: FilePath | None = None
    """Key ring that seals cookies: one key per line, `heim-proxy keygen session` prints one. The
    first line seals, all open; re-read when it changes. Default: generated once beside the state,
    mode 0600."""

    lifetime: Duration = Field(default="24h", validate_default=True)
    """How long a session lasts after signing in, however busy it is. Default 24h: once a working
    day, so that people who left are out by the next."""

    idle: Duration = Field(default="8h", validate_default=True)
    """How long a session lasts without a request. Default 8h: a night away ends it. At most
    `lifetime`."""


class State(Section):
    """Where the few facts live that survive a restart: sessions, revocations, pinned subjects."""

    url: str = Field(default="sqlite:///var/lib/heim/state.db", validate_default=True)
    """`sqlite://` and a path; the directory is created when missing. Default
    sqlite:///var/lib/heim/state.db. Changing it needs a restart."""

    @field_validator("url", mode="before")
    @classmethod
    def _check_url(cls, value: object, info: ValidationInfo) -> str:
        if not isinstance(value, str) or not value.startswith("sqlite://"):
            raise mistake(
                f"{show(value)} is not a state URL", "write sqlite:///var/lib/heim/state.db"
            )
        name = value.removeprefix("sqlite://")
        if not name.strip("/") or name.endswith("/") or not name.isprintable():
            raise mistake(f"{show(value)} names no file", "write sqlite:///var/lib/heim/state.db")
        if ":memory:" in name or "?" in name or "#" in name:
            raise mistake(f"{show(value)} is not a plain path", "state must outlive the process")
        # Leading slashes are collapsed (decision 1), so that //// and /// are the same file.
        path = Path("/" + name.lstrip("/")) if name.startswith("/") else Path(name)
        return f"sqlite://{(base_of(info) or Path()) / path}"

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(self.url.removeprefix("sqlite://"))


class Assertion(Section):
    """What signs the identity that upstreams receive."""

    key_file: FilePath | None = None
    """PEM file with EC P-256 private keys: the first signs, all are published. `heim-proxy keygen
    assertion` prints one; re-read when it changes. Default: generated once beside the state, mode
    0600."""
