"""Why a stream or a session ended: one number, one slug, one HTTP status, one exit status each.

The numbers travel in RESET and GOAWAY frames, the slugs in problem documents of refused requests,
and the exit statuses (sysexits.h) are what `heim-tunnel` ends with.

    Exception
     ├── WireError      the peer broke the protocol; the session must end
     └── OpenRefused    a stream cannot be opened just now; carries the code to tell
"""

from __future__ import annotations

__all__ = ["FAILURES", "Code", "Failure", "OpenRefused", "WireError", "by_slug"]


class Code:
    """Numbers of failures on the wire. Plain integers: enum would cost the CLI's start-up."""

    PROTOCOL = 1
    UNAUTHENTICATED = 2
    FORBIDDEN = 3
    NO_SUCH_TARGET = 4
    AGENT_OFFLINE = 5
    DIAL_REFUSED = 6
    DIAL_TIMEOUT = 7
    DNS = 8
    BUSY = 9
    REVOKED = 10
    EXPIRED = 11
    GOING_AWAY = 12
    IDLE = 13
    MAX_DURATION = 14
    AGENT_LOST = 15
    PEER_LOST = 16
    FLOW = 17
    INTERNAL = 18
    CONNECTION_RESET = 19
    SUPERSEDED = 20


class Failure:
    """What one code means to a machine and to a person.

    Attributes:
        code: Number on the wire, u16.
        slug: Word in problem documents and logs.
        http_status: Status of an answer instead of a 101.
        exit_status: What `heim-tunnel` exits with (sysexits.h).
        meaning: One sentence for the reference.
    """

    __slots__ = ("code", "exit_status", "http_status", "meaning", "slug")

    def __init__(
        self, code: int, slug: str, *, http_status: int, exit_status: int, meaning: str
    ) -> None:
        self.code = code
        self.slug = slug
        self.http_status = http_status
        self.exit_status = exit_status
        self.meaning = meaning

    def __repr__(self) -> str:
        return f"<Failure {self.code} {self.slug}>"


_TABLE = (
    (Code.PROTOCOL, "protocol", 400, 76, "the peer broke the protocol, or speaks another one"),
    (Code.UNAUTHENTICATED, "unauthenticated", 401, 77, "not signed in, or the token is over"),
    (Code.FORBIDDEN, "forbidden", 403, 77, "signed in, and not allowed to use the target"),
    (Code.NO_SUCH_TARGET, "no_such_target", 404, 68, "no backend of that name, or not TCP"),
    (Code.AGENT_OFFLINE, "agent_offline", 503, 69, "no replica has a session of the agent"),
    (Code.DIAL_REFUSED, "dial_refused", 502, 69, "the upstream refused the connection"),
    (Code.DIAL_TIMEOUT, "dial_timeout", 504, 69, "the upstream did not answer in time"),
    (Code.DNS, "dns", 502, 69, "the upstream's name does not resolve"),
    (Code.BUSY, "busy", 503, 75, "a limit is reached; try again later"),
    (Code.REVOKED, "revoked", 403, 77, "access was withdrawn while the stream was open"),
    (Code.EXPIRED, "expired", 401, 77, "the user's session ended while the stream was open"),
    (Code.GOING_AWAY, "going_away", 503, 75, "the proxy is restarting; connect again"),
    (Code.IDLE, "idle", 504, 75, "nothing was sent for as long as policy allows"),
    (Code.MAX_DURATION, "max_duration", 504, 75, "the stream is as old as policy allows"),
    (Code.AGENT_LOST, "agent_lost", 503, 69, "the agent's session ended under the stream"),
    (Code.PEER_LOST, "peer_lost", 503, 69, "another replica of the proxy was lost"),
    (Code.FLOW, "flow", 500, 70, "more was sent than the window allowed"),
    (Code.INTERNAL, "internal", 500, 70, "a fault of our own; the log has the request id"),
    (Code.CONNECTION_RESET, "connection_reset", 502, 69, "the connection behind was reset"),
    (Code.SUPERSEDED, "superseded", 409, 75, "the agent's key is in use by a newer connection"),
)  # fmt: skip
FAILURES: dict[int, Failure] = {
    code: Failure(code, slug, http_status=http_status, exit_status=exit_status, meaning=meaning)
    for code, slug, http_status, exit_status, meaning in _TABLE
}
_SLUGS = {failure.slug: failure for failure in FAILURES.values()}


def by_slug(slug: str) -> Failure | None:
    """The failure of a problem document's `code`; None when this version does not know it."""
    return _SLUGS.get(slug)


class WireError(Exception):
    """The peer broke the protocol: tell it GOAWAY if possible, and end the session.

    Attributes:
        code: A number of `Code`, nearly always PROTOCOL.
        reason: One line for logs and for the peer; holds nothing secret and no peer's text.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class OpenRefused(Exception):  # noqa: N818  (not an error: a limit, or the peer is going away)
    """`Session.open` cannot take another stream: BUSY or GOING_AWAY.

    Attributes:
        code: A number of `Code`.
        reason: One line for whoever asked for the stream.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
