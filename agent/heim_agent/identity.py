"""Who this agent is: its key, its certificate, and the keys by which it knows the proxy.

Made by `join`, loaded by `run`, kept by the link: certificates are renewed and pins replaced while
streams go on. There is one `Identity` per process, shared by its lanes and by the verifier of
assertions, which therefore see a change at once.

Files: `key.pem` (0600, never leaves), `certificate.pem`, `identity.json` (name, login URL, pins),
`authorities.pem` (what `--ca-file` named, if anything). The two in the middle are written again
while the agent runs, in the state directory; those there count if they belong to the key.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from heim_agent import files
from heim_agent.key import AgentKey
from heim_agent.places import Places
from heim_runtime.complaints import FAILED, Complaint

__all__ = ["AUTHORITIES", "CERTIFICATE", "IDENTITY", "KEY", "Identity", "Jwk"]

log = logging.getLogger(__name__)

Jwk = Mapping[str, str]
"""A public key as RFC 7517 writes it, with its `kid`."""

KEY: Final = "key.pem"
CERTIFICATE: Final = "certificate.pem"
IDENTITY: Final = "identity.json"
AUTHORITIES: Final = "authorities.pem"

_MAX_KEYS: Final = 16
"""Rotation needs two; more is somebody's mistake, or an attempt to fill our memory."""
_MAX_MEMBERS: Final = 16


class Identity:
    """One agent's identity. `repr` shows no key.

    Attributes:
        agent: Its name, as configured at the proxy.
        login_url: Origin of the login host it joined: `https://auth.x.example.com`.
        key: Its private key: `key.sign(…)`, `key.request()`, `key.thumbprint`.
        certificate: DER of the certificate in force.
        not_before: Seconds since the epoch at which that began.
        expires: Seconds since the epoch at which that ends.
        roots: Public keys of the agents' authority, pinned: they sign statements.
        keys: Public keys that sign assertions, from the last statement; empty before the first.
        ca_file: File of authorities to verify TLS by instead of the system's, or None.
        places: Where it is kept; `places.state` is the directory to write to.
        unsaved: Why the last change is not on the disk (one line), or None.
    """

    __slots__ = (
        "agent",
        "ca_file",
        "certificate",
        "expires",
        "key",
        "keys",
        "login_url",
        "not_before",
        "places",
        "roots",
        "unsaved",
    )

    def __init__(
        self,
        *,
        agent: str,
        login_url: str,
        key: AgentKey,
        certificate: bytes,
        roots: Sequence[Jwk],
        places: Places,
        keys: Sequence[Jwk] = (),
        ca_file: str | None = None,
    ) -> None:
        """Take over what was joined or loaded.

        Raises:
            ValueError: The certificate is none or another key's; no roots; too many keys.
        """
        self.agent: Final = agent
        self.login_url: Final = login_url
        self.key: Final = key
        self.places: Final = places
        self.ca_file: Final = ca_file
        self.unsaved: str | None = None
        self.roots, self.keys = _roots(roots), _keys(keys)
        self.certificate, self.not_before, self.expires = self._checked(certificate)

    def __repr__(self) -> str:
        return f"<Identity {self.agent!r} at {self.login_url} {self.key.fingerprint}>"

    @classmethod
    def load(cls, places: Places) -> Identity:
        """What `join` and the link saved.

        Raises:
            Complaint: There is none, it is damaged, or its files are not private.
        """
        secret = f"{places.seed}/{KEY}"
        pem = files.read(secret, secret=True, mounted=places.seed_is_mounted)
        if pem is None:
            raise Complaint(
                f"this machine has not joined: there is no {secret}; run: heim-agent join "
                "https://LOGIN_HOST",
                FAILED,
            )
        try:
            key = AgentKey.from_pem(pem)
        except ValueError as e:
            raise _damaged(secret, e) from e
        problem: Complaint | None = None
        for directory in dict.fromkeys((places.state, places.seed)):
            try:
                found = cls._kept(directory, key, places)
            except Complaint as complaint:
                problem = problem or complaint
            else:
                if found is not None:
                    return found
        raise problem or Complaint(
            f"{places.seed} holds a key and no identity for it; run: heim-agent join", FAILED
        )

    @classmethod
    def _kept(cls, directory: str, key: AgentKey, places: Places) -> Identity | None:
        """What a directory holds for a key; None when that is nothing, or another key's."""
        mounted = places.seed_is_mounted and directory == places.seed
        path = f"{directory}/{IDENTITY}"
        text = files.read(path, mounted=mounted)
        pem = files.read(f"{directory}/{CERTIFICATE}", mounted=mounted)
        if text is None or pem is None:
            return None
        try:
            found = json.loads(text)
            if not isinstance(found, dict):
                raise ValueError("it holds no object")  # noqa: TRY004 - of a file's text
            if found.get("thumbprint") != key.thumbprint:
                # Of an earlier join.
                return None
            authorities = f"{places.seed}/{AUTHORITIES}"
            return cls(
                agent=_text(found, "agent"),
                login_url=_text(found, "login_url"),
                key=key,
                certificate=x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER),
                roots=found.get("roots", ()),
                keys=found.get("keys", ()),
                places=places,
                ca_file=authorities if os.path.exists(authorities) else None,
            )
        except (ValueError, RecursionError) as e:
            raise _damaged(path, e) from e

    def renew(self, certificate: bytes) -> None:
        """Take a newer certificate (DER) into force and save it.

        A full disk changes nothing about that: it is logged, and `unsaved` says so.

        Raises:
            ValueError: It is no certificate, or not for our key.
        """
        self.certificate, self.not_before, self.expires = self._checked(certificate)
        self.save()

    def pin(self, *, roots: Sequence[Jwk], keys: Sequence[Jwk]) -> None:
        """Replace the pins by those of a statement that was verified; saved if they are others.

        Raises:
            ValueError: There is no root, or there are too many keys.
        """
        fresh = (_roots(roots), _keys(keys))
        if fresh != (self.roots, self.keys):
            self.roots, self.keys = fresh
            self.save()

    def save(self) -> bool:
        """Write certificate and pins to the state directory; False when that failed (logged)."""
        try:
            files.make_directory(self.places.state)
            files.write(*self._files(self.places.state))
        except (OSError, Complaint) as error:
            reason = error.text if isinstance(error, Complaint) else (error.strerror or str(error))
            self.unsaved = f"cannot save to {self.places.state}: {reason}"
            effect = "the old files are as they were"
            log.error("identity.unsaved", extra={"reason": self.unsaved, "effect": effect})  # noqa: TRY400
            return False
        self.unsaved = None
        return True

    def save_joined(self, authorities: bytes | None) -> None:
        """Write everything, the key included, where `join` puts it.

        Args:
            authorities: PEM of `--ca-file`; None removes an earlier one.

        Raises:
            Complaint: It cannot be written; what was there before is as it was.
        """
        seed = self.places.seed
        replacements = [*self._files(seed), (f"{seed}/{KEY}", self.key.to_pem(), 0o600)]
        if authorities is not None:
            replacements.append((f"{seed}/{AUTHORITIES}", authorities, 0o644))
        try:
            files.make_directory(seed, mode=self.places.seed_mode)
            files.write(*replacements)
            if authorities is None and os.path.lexists(f"{seed}/{AUTHORITIES}"):
                os.unlink(f"{seed}/{AUTHORITIES}")
        except OSError as e:
            raise Complaint(
                f"cannot write to {seed}: {e.strerror}; nothing was changed", FAILED
            ) from e

    def _files(self, directory: str) -> list[tuple[str, bytes, int]]:
        kept = {
            "agent": self.agent,
            "login_url": self.login_url,
            "thumbprint": self.key.thumbprint,
            "roots": self.roots,
            "keys": self.keys,
        }
        certificate = x509.load_der_x509_certificate(self.certificate).public_bytes(Encoding.PEM)
        return [
            (f"{directory}/{IDENTITY}", json.dumps(kept, indent=1).encode(), 0o644),
            (f"{directory}/{CERTIFICATE}", certificate, 0o644),
        ]

    def _checked(self, der: bytes) -> tuple[bytes, float, float]:
        """The certificate and its times. Raises ValueError when it is not one of ours."""
        found = x509.load_der_x509_certificate(der)
        if not self.key.holds(found):
            raise ValueError("the certificate is for another key")
        return (
            der,
            found.not_valid_before_utc.timestamp(),
            found.not_valid_after_utc.timestamp(),
        )


def _damaged(path: str, error: Exception) -> Complaint:
    return Complaint(f"{path} is damaged ({error}); run: heim-agent join", FAILED)


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"no {name}")
    return value


def _roots(found: object) -> tuple[Jwk, ...]:
    roots = _keys(found)
    if not roots:
        raise ValueError("without a root nothing could be verified")
    return roots


def _keys(found: object) -> tuple[Jwk, ...]:
    """Public keys that came from a file or the network, each a flat object of text.

    Raises:
        ValueError: They are something else.
    """
    if not isinstance(found, list | tuple) or len(found) > _MAX_KEYS:
        raise ValueError("no list of keys, or too long")
    keys = []
    for one in found:
        if not isinstance(one, Mapping) or len(one) > _MAX_MEMBERS or "d" in one:
            raise ValueError("a key that is no public JWK")
        keys.append({str(name): value for name, value in one.items() if isinstance(value, str)})
    return tuple(keys)
