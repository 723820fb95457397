"""What an agent says to be let in: HELLO, and the proof that it holds its key.

The proof is bound to this connection: to the proxy's nonce and to the TLS key that the agent saw,
so that it cannot be used again, nor by somebody in between (security.md, Q).
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

from heim_wire.agents import PROOF_KIND, RENEW_KIND, proof_bytes
from heim_wire.messages import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from heim_agent.identity import Identity
    from heim_wire.messages import Message

__all__ = ["Introduction", "Program", "hello", "proof", "renewal"]

_NONCE_BYTES: Final = 32
_TEXT: Final = 128


@dataclass(frozen=True, slots=True)
class Program:
    """One run of the program.

    Attributes:
        boot: 128 random bits in hex: tells this run from another one with the same key.
        version: Of the program.
        device: What the machine calls itself.
    """

    version: str
    device: str
    boot: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class Introduction:
    """What of the proxy's HELLO is signed.

    Attributes:
        nonce: Its nonce.
        replica: Its name among the proxy's replicas.
    """

    nonce: str
    replica: str

    @classmethod
    def read(cls, message: Mapping[str, object]) -> Introduction:
        """Of a HELLO.

        Raises:
            ValueError: It is not a HELLO for agents.
        """
        nonce, replica = message.get("nonce"), message.get("replica")
        if not isinstance(nonce, str) or not 16 <= len(nonce) <= _TEXT:
            raise ValueError("its HELLO has no nonce")
        if not isinstance(replica, str) or not replica or len(replica) > _TEXT:
            raise ValueError("its HELLO does not name its replica")
        if printable(replica, 4 * _TEXT) != replica:
            raise ValueError("its HELLO names its replica with control characters")
        return cls(nonce, replica)


def hello(agent: str, program: Program, *, lane: int) -> Message:
    """Keys to add to HELLO; `nonce` among them is new, and the statement has to repeat it."""
    return {
        "agent": agent,
        "boot": program.boot,
        "lane": lane,
        "nonce": _b64url(secrets.token_bytes(_NONCE_BYTES)),
        "version": printable(program.version, _TEXT),
        "device": printable(program.device, _TEXT),
    }


def proof(
    identity: Identity, said: Message, introduction: Introduction, *, host: str, spki: bytes
) -> Message:
    """The first AUTH.

    Args:
        identity: Signs.
        said: Our own HELLO.
        introduction: The proxy's.
        host: The login host that was dialled.
        spki: SHA-256 of the key of the TLS certificate that was seen.
    """
    signature = identity.key.sign(
        proof_bytes(
            nonce=introduction.nonce,
            replica=introduction.replica,
            host=host,
            spki=spki,
            agent=identity.agent,
            boot=str(said["boot"]),
            lane=int(str(said["lane"])),
        )
    )
    return {
        "kind": PROOF_KIND,
        "certificate": base64.b64encode(identity.certificate).decode("ascii"),
        "signature": _b64url(signature),
    }


def renewal(identity: Identity) -> Message:
    """An AUTH that asks for a newer certificate of the same key."""
    return {"kind": RENEW_KIND, "csr": base64.b64encode(identity.key.request()).decode("ascii")}


def _b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
