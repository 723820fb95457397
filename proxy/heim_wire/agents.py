"""What agents and the proxy agree on beyond frames: addresses, types of tokens, what is signed.

The agent proves that it holds its key, bound to this very connection: it signs `proof_bytes` over
the proxy's nonce and the TLS key that it saw. The proxy proves that it is the one the agent joined:
READY carries a statement that the agents' authority signed over the agent's nonce (docs/reference,
"The wire protocol").
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "AGENT_PATH",
    "ANOTHER_AUTHORITY",
    "ENROLLED_PATH",
    "ENROL_PATH",
    "JOIN_PATH",
    "MAX_ASSERTION_S",
    "MAX_LANES",
    "PROOF_KIND",
    "RENEW_KIND",
    "STATEMENT_TYPE",
    "STREAM_TYPE",
    "proof_bytes",
]

AGENT_PATH: Final = "/.heim/tunnel/agent"
"""Where agents open a lane; on the login host only."""

ANOTHER_AUTHORITY: Final = "the certificate is of another authority"
"""Reason of the GOAWAY to an agent that joined before the proxy's authority was another one."""

JOIN_PATH: Final = "/.heim/agent/join"
"""POST: a join token for a certificate."""

ENROL_PATH: Final = "/.heim/agent/enrol"
"""POST: ask to be let in; somebody types the code that is answered."""

ENROLLED_PATH: Final = "/.heim/agent/enrolled"
"""POST: whether that was done, and then the certificate."""

STREAM_TYPE: Final = "heim-stream+jwt"
"""`typ` of the assertion in OPEN: who the stream is for."""

STATEMENT_TYPE: Final = "heim-agent-statement+jwt"
"""`typ` of the statement in READY: which keys sign assertions now."""

PROOF_KIND: Final = "agent-proof"
"""`kind` of the first AUTH."""

RENEW_KIND: Final = "agent-renew"
"""`kind` of an AUTH that asks for a newer certificate."""

MAX_ASSERTION_S: Final = 60
"""How long an assertion may be good for, in seconds."""

MAX_LANES: Final = 4
"""Connections one agent may have to one replica."""

_CONTEXT: Final = "heim-agent-proof-v1"


def proof_bytes(
    *, nonce: str, replica: str, host: str, spki: bytes, agent: str, boot: str, lane: int
) -> bytes:
    """What an agent signs (ECDSA, P-256, SHA-256). Every field has its length in front.

    Args:
        nonce: Of the proxy's HELLO.
        replica: Of the proxy's HELLO.
        host: The login host that was dialled.
        spki: SHA-256 of the SubjectPublicKeyInfo of the TLS certificate that the agent saw.
        agent: The agent's name.
        boot: Of the agent's HELLO: one run of the program.
        lane: Of the agent's HELLO.
    """
    fields = (_CONTEXT, nonce, replica, host, spki.hex(), agent, boot, str(lane))
    return b"".join(
        len(encoded).to_bytes(4) + encoded for encoded in (field.encode() for field in fields)
    )
