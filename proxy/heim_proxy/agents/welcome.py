"""What an agent that was let in is told: READY, the statement in it, and newer certificates."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from heim_proxy.agents.agent_keys import MAX_REQUEST_BYTES, AgentKey, BadRequestError
from heim_proxy.agents.proof import decoded
from heim_proxy.agents.refused import LaneRefused
from heim_wire.agents import MAX_LANES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heim_proxy.agents.authority import Authority, VerifiedAgent
    from heim_proxy.routing import AgentGrant
    from heim_proxy.snapshot import Snapshot

__all__ = ["RenewalRefusedError", "base64url", "check_request", "ready", "renewal"]

# READY has 4 KiB, of which the statement may need 2. An agent goes by its own list of targets; ours
# is for people who look for a difference between the two.
_TARGETS_CHARACTERS: Final = 1_200


class RenewalRefusedError(Exception):
    """No newer certificate; the message says why, to follow a colon."""


def ready(
    grant: AgentGrant,
    snapshot: Snapshot,
    authority: Authority,
    *,
    audience: str,
    nonce: str,
    replica: str,
    expires: float,
    now: float,
) -> dict[str, object]:
    """READY for an agent.

    Args:
        grant: What it may be asked for.
        snapshot: In force.
        authority: Signs the statement.
        audience: Thumbprint of the agent's key, base64url.
        nonce: Of the agent's HELLO.
        replica: Ours.
        expires: When the agent's certificate ends, seconds since the epoch.
        now: Likewise; the agent takes it for the time.
    """
    statement = authority.statement(
        issuer=snapshot.login_url,
        audience=audience,
        nonce=nonce,
        jwks=snapshot.signing_keys.jwks(),
        now=now,
    )
    targets = _some(sorted(grant.targets))
    return {
        "agent": grant.name,
        "targets": targets,
        # Whether that is all of them.
        "targets_whole": len(targets) == len(grant.targets),
        "expires": int(expires),
        "lanes": MAX_LANES,
        "replica": replica,
        "generation": snapshot.generation,
        "statement": statement,
    }


def renewal(certificate: bytes, expires: float) -> dict[str, object]:
    """READY that brings a newer certificate."""
    encoded = base64.b64encode(certificate).decode("ascii")
    return {"certificate": encoded, "expires": int(expires)}


def check_request(message: Mapping[str, object], verified: VerifiedAgent) -> None:
    """Whether AUTH asks for a newer certificate of the key that is enrolled.

    Raises:
        RenewalRefusedError: It is for another key, or no request.
    """
    try:
        key = AgentKey.from_request(decoded(message, "csr", limit=MAX_REQUEST_BYTES))
    except BadRequestError as error:
        raise RenewalRefusedError(str(error)) from None
    except LaneRefused:
        raise RenewalRefusedError("csr is not base64 of a certificate request") from None
    if key.thumbprint != verified.thumbprint:
        raise RenewalRefusedError("it is for another key; a new key has to join")


def base64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _some(names: list[str]) -> list[str]:
    """As many names as there is room for."""
    room = _TARGETS_CHARACTERS
    fitting: list[str] = []
    for name in names:
        room -= len(name) + 3
        if room < 0:
            break
        fitting.append(name)
    return fitting
