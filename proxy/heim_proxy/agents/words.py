"""What people are told when something through an agent does not work: truly, and without addresses.

Names of agents and targets are configuration's. Agents name no addresses either: where one says why
it could not connect, that is passed on, within a bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from heim_proxy.edge.dial import AgentDialError
from heim_wire.errors import FAILURES, Code

if TYPE_CHECKING:
    from heim_proxy.agents.opening import Unanswered
    from heim_proxy.agents.presence import Offline
    from heim_proxy.edge.dial import Errand
    from heim_proxy.routing import Endpoint
    from heim_wire.errors import OpenRefused

__all__ = [
    "closed_at_once",
    "ended",
    "given_up",
    "not_configured",
    "not_taken",
    "offline",
    "refused",
    "too_long",
    "too_many",
]

# Agents come back within seconds when they can; a machine that is off is worth no haste.
_BACK_S: Final = 10
_BUSY_S: Final = 5
_SERVICE: Final = "is the service running there? the agent's log has the request id, too"
_DIALS: Final = {
    Code.DIAL_REFUSED: "connection refused",
    Code.DIAL_TIMEOUT: "no answer",
    Code.DNS: "its name does not resolve",
}
# Of an agent's words, which are ours where the agent is: enough for any of them.
_SAID: Final = 120
_RESETS: Final = {
    Code.FLOW: "agent {agent} sent more than it was allowed to",
    Code.PROTOCOL: "agent {agent} broke the protocol",
    Code.INTERNAL: "agent {agent} failed to serve this connection",
    Code.GOING_AWAY: "agent {agent} is stopping; connect again",
}


def offline(endpoint: Endpoint, known: Offline, now: float) -> AgentDialError:
    """The agent has no lane. `now` is in seconds since the epoch."""
    name = endpoint.host
    if not known.joined:
        return AgentDialError(
            Code.AGENT_OFFLINE,
            f"agent {name} is offline: no machine has joined as {name} yet",
            hint="on that machine, run: heim-agent join",
        )
    if known.revoked:
        when = "" if known.since is None else f" {_ago(now - known.since)}"
        return AgentDialError(
            Code.AGENT_OFFLINE,
            f"agent {name} is offline: it was revoked{when}",
            hint="if it shall come back, its machine has to join again: heim-agent join",
        )
    seen = "" if known.since is None else f", last seen {_ago(now - known.since)}"
    return AgentDialError(
        Code.AGENT_OFFLINE,
        f"agent {name} is offline{seen}",
        hint="is its machine on, and online? it says more there: heim-agent status",
        retry_after=_BACK_S,
    )


def not_configured(endpoint: Endpoint) -> AgentDialError:
    """The configuration in force does not know the agent or the target."""
    return AgentDialError(
        Code.NO_SUCH_TARGET,
        f"agent {endpoint.host} serves no target {endpoint.target} any more",
        hint="the configuration has changed; try again",
    )


def given_up(endpoint: Endpoint) -> AgentDialError:
    """Whoever asked has gone, or may not any more: only the log reads it."""
    return AgentDialError(
        Code.GOING_AWAY, f"nobody waits for {endpoint.words} any more: it was not asked for"
    )


def not_taken(endpoint: Endpoint, error: OpenRefused) -> AgentDialError:
    """No lane takes another stream."""
    if error.code == Code.BUSY:
        return _busy(endpoint, error.reason)
    return _lost(endpoint)


def too_long(endpoint: Endpoint, errand: Errand) -> AgentDialError:
    """What is to be said about the person does not fit into a frame."""
    session = errand.session
    name = "public" if session is None else session.subject.name
    groups = 0 if session is None else len(session.subject.groups)
    return AgentDialError(
        Code.FORBIDDEN,
        f"{name} is in too many groups ({groups}) for agent {endpoint.host} to be told of",
        hint="name fewer groups in roles: only those that are named there are told",
    )


def too_many(endpoint: Endpoint, errand: Errand, limit: int) -> AgentDialError:
    """They have their share of the agent's connection."""
    session = errand.session
    who = "the public" if session is None else session.subject.name
    return AgentDialError(
        Code.BUSY,
        f"{who} has {limit} connections through agent {endpoint.host} already",
        hint=f"close some of them, or try again in {_BUSY_S} s",
        retry_after=_BUSY_S,
    )


def closed_at_once(endpoint: Endpoint) -> AgentDialError:
    """It was accepted and ended before anybody could use it."""
    return AgentDialError(
        Code.DIAL_REFUSED, f"{endpoint.words} closed the connection at once", hint=_SERVICE
    )


def refused(endpoint: Endpoint, answer: Unanswered) -> AgentDialError:
    """The agent did not accept a stream."""
    code, said = answer.code, answer.reason
    if code == Code.AGENT_LOST or code == Code.GOING_AWAY:
        return _lost(endpoint)
    if code == Code.BUSY:
        return _busy(endpoint, said)
    if code == Code.FORBIDDEN:
        why = f": {said[:_SAID]}" if said else ""
        return AgentDialError(
            code,
            f"agent {endpoint.host} does not allow this{why}",
            hint="its own agent.toml says who may use its targets",
        )
    if code == Code.NO_SUCH_TARGET:
        return AgentDialError(
            code,
            f"agent {endpoint.host} has no target {endpoint.target}",
            hint=f"add [targets.{endpoint.target}] to agent.toml on that machine",
            said=said,
        )
    if code in _DIALS:
        detail = f"{endpoint.words} cannot be reached: {said[:_SAID] or _DIALS[code]}"
        return AgentDialError(code, detail, hint=_SERVICE)
    slug = FAILURES[code].slug if code in FAILURES else str(code)
    return AgentDialError(
        Code.INTERNAL,
        f"agent {endpoint.host} failed to open the connection",
        hint="tell an administrator the request id",
        said=f"{slug}: {said}",
    )


def ended(endpoint: Endpoint, code: int, *, lost: bool) -> tuple[int, str]:
    """What a reset after ACCEPT means. `lost`: the whole lane has ended.

    An agent may send any number; it must not make anybody believe that access was withdrawn.
    """
    if lost:
        return Code.AGENT_LOST, f"the connection to agent {endpoint.host} was lost"
    words = _RESETS.get(code)
    if words is None:
        return Code.CONNECTION_RESET, f"{endpoint.words} reset the connection"
    code = Code.AGENT_LOST if code == Code.GOING_AWAY else code
    return code, words.format(agent=endpoint.host)


def _lost(endpoint: Endpoint) -> AgentDialError:
    return AgentDialError(
        Code.AGENT_LOST,
        f"the connection to agent {endpoint.host} was lost",
        hint="it comes back by itself if it can; try again",
        retry_after=_BUSY_S,
    )


def _busy(endpoint: Endpoint, said: str) -> AgentDialError:
    why = f": {said[:_SAID]}" if said else ""
    return AgentDialError(
        Code.BUSY,
        f"agent {endpoint.host} is busy{why}",
        hint=f"try again in {_BUSY_S} s",
        retry_after=_BUSY_S,
    )


def _ago(seconds: float) -> str:
    minutes = int(max(seconds, 0.0) // 60)
    if minutes < 1:
        return "less than a minute ago"
    if minutes < 120:
        return f"{minutes} min ago"
    hours = minutes // 60
    return f"{hours} h ago" if hours < 48 else f"{hours // 24} days ago"
