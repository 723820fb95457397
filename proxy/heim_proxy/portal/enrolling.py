"""What machines that want to be agents ask the login host: to join with a token, or to be let in.

No cookies, no pages, and nothing for scripts of other sites. Whoever asks is a stranger, so answers
do not tell which agents there are: only who holds a token for a name learns about it.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from heim_proxy.agents.enrolment import Enrolled, EnrolProblem, JoinRefused, Refusal
from heim_proxy.identity.device_codes import SlowDown
from heim_proxy.portal.agents import PATH as AGENTS_PATH
from heim_proxy.portal.authorize import device_label
from heim_proxy.portal.limits import NetworkRate, RateLimit, client_key, network_key
from heim_proxy.portal.oauth import Handler
from heim_proxy.portal.problems import Document, ProblemError, document_of, for_agents, text_of
from heim_proxy.portal.visit import Visit

__all__ = ["EnrolmentEndpoints"]

_STATUS: Final[Mapping[Refusal, int]] = {
    Refusal.TOKEN_UNKNOWN: 403,
    Refusal.TOKEN_USED: 403,
    Refusal.TOKEN_EXPIRED: 403,
    Refusal.NAME_TAKEN: 409,
    Refusal.NOT_CONFIGURED: 403,
    Refusal.BAD_CSR: 400,
    Refusal.BUSY: 503,
}
# Places are free again when those who wait have given up.
_BUSY_RETRY_S: Final = 60

_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,31}", re.ASCII)

_AGAIN: Final = "run heim-agent join again"


class EnrolmentEndpoints:
    """The handlers, each within its rate: `join`, `enrol` and `enrolled`."""

    def __init__(self) -> None:
        # A rack that is set up at once from behind one address; a token has nothing to guess.
        joins = NetworkRate(
            client=RateLimit(burst=60.0, per_second=1.0),
            network=RateLimit(burst=240.0, per_second=4.0),
        )
        seldom = NetworkRate(
            client=RateLimit(burst=20.0, per_second=0.2),
            network=RateLimit(burst=80.0, per_second=0.8),
        )
        # Every one that waits asks each five seconds; the pace of each is kept beside its code.
        polls = NetworkRate(client=RateLimit(), network=RateLimit(burst=1200.0, per_second=40.0))
        self.join: Handler = for_agents(_join, rate=joins)
        self.enrol: Handler = for_agents(_enrol, rate=seldom)
        self.enrolled: Handler = for_agents(_enrolled, rate=polls)


async def _join(visit: Visit) -> web.Response:
    """POST JOIN_PATH: a join token for a certificate."""
    asked = await document_of(visit)
    token, csr = text_of(asked, "token"), _csr_of(asked)
    device = text_of(asked, "device", optional=True)
    try:
        enrolled = await visit.ctx.enrolments.join(token, csr, device=device, now=visit.now)
    except JoinRefused as refused:
        visit.audit("agent.join_refused", reason=refused.code.value)
        raise _refused(refused) from refused
    return _let_in(visit, enrolled, via="token", version=_version_of(asked))


async def _enrol(visit: Visit) -> web.Response:
    """POST ENROL_PATH: begin to wait for somebody who types the code."""
    asked = await document_of(visit)
    name, csr = text_of(asked, "name"), _csr_of(asked)
    device, version = text_of(asked, "device", optional=True), _version_of(asked)
    client = visit.facts.client
    try:
        waiting = await visit.ctx.enrolments.ask(
            name,
            csr,
            device=device,
            client=client,
            client_key=client_key(client),
            network=network_key(client),
            now=visit.now,
            version=version,
        )
    except JoinRefused as refused:
        raise _refused(refused) from refused
    visit.audit(
        "agent.enrolment_asked",
        agent=name,
        fingerprint=waiting.fingerprint,
        device=device_label(device),
        version=version,
    )
    return web.json_response(
        {
            "device_code": waiting.device_code.reveal(),
            "user_code": waiting.user_code,
            "verification_uri": f"{visit.settings.login_url}{AGENTS_PATH}",
            "expires_in": math.floor(waiting.expires_in),
            "interval": math.ceil(waiting.interval),
            "fingerprint": waiting.fingerprint,
        }
    )


async def _enrolled(visit: Visit) -> web.Response:
    """POST ENROLLED_PATH: whether somebody typed the code, and what they said."""
    asked = await document_of(visit)
    device_code = text_of(asked, "device_code")
    try:
        outcome = await visit.ctx.enrolments.take(device_code, visit.now)
    except JoinRefused as refused:
        visit.audit("agent.join_refused", reason=refused.code.value)
        raise _refused(refused) from refused
    if isinstance(outcome, Enrolled):
        return _let_in(visit, outcome, via="code", version=_version_of(asked))
    if isinstance(outcome, SlowDown):
        wait = math.ceil(outcome.interval)
        raise ProblemError(
            429, "slow_down", "asked too soon", f"ask every {wait} seconds", retry_after=wait
        )
    if outcome is EnrolProblem.PENDING:
        return web.json_response({"status": "pending"}, status=202)
    if outcome is EnrolProblem.DENIED:
        raise ProblemError(403, "denied", "somebody refused to let this machine in", _AGAIN)
    raise ProblemError(410, "expired", "the code has expired or was used", _AGAIN)


def _let_in(visit: Visit, enrolled: Enrolled, *, via: str, version: str) -> web.Response:
    """Tell an agent who it is from now on. What it replaces ends with the next look at the feed."""
    visit.audit(
        "agent.joined",
        agent=enrolled.agent,
        sid=enrolled.row.sid,
        fingerprint=enrolled.fingerprint,
        device=enrolled.row.label,
        version=version,
        via=via,
        replaced=len(enrolled.replaced),
    )
    return web.json_response(
        {
            "agent": enrolled.agent,
            "certificate": base64.b64encode(enrolled.certificate).decode("ascii"),
            "expires": math.floor(enrolled.expires),
            "roots": visit.ctx.authority().roots(),
            "login_url": visit.settings.login_url,
            "targets": sorted(enrolled.permitted.targets),
            "group": enrolled.permitted.group,
        }
    )


def _csr_of(asked: Document) -> bytes:
    text = text_of(asked, "csr")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError(
            400, Refusal.BAD_CSR.value, "the certificate request is not base64", "update heim-agent"
        ) from error


def _version_of(asked: Document) -> str:
    """What the program says it is, fit for logs; it is its own word."""
    found = asked.get("version")
    return found if isinstance(found, str) and _VERSION.fullmatch(found) else "unknown"


def _refused(refused: JoinRefused) -> ProblemError:
    retry_after = _BUSY_RETRY_S if refused.code is Refusal.BUSY else 0
    return ProblemError(
        _STATUS[refused.code],
        refused.code.value,
        refused.detail,
        refused.hint,
        retry_after=retry_after,
    )
