"""The page on which somebody types the code of a machine that wants to be an agent, and sees them.

Who may is what a role says (`approve_agents`), or break-glass. The code is typed and never comes
with a link, and nothing is decided before the page has shown whose key it is, where it asked from
and what it would be asked for (decision 31).
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from heim_proxy.access.policy import Approver
from heim_proxy.agents.enrolment import Waiting
from heim_proxy.agents.presence import Presence
from heim_proxy.identity.device_codes import user_code_of
from heim_proxy.identity.feed import in_time
from heim_proxy.identity.session import Session
from heim_proxy.portal.attempts import Attempts
from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.forms import csrf_token, is_ours, read_form
from heim_proxy.portal.pages import Pages
from heim_proxy.portal.visit import Visit, redirect
from heim_proxy.store.base import SessionKind, SessionRow

__all__ = ["PATH", "AgentPages"]

PATH: Final = "/.heim/agents"

MAX_SHOWN: Final = 200
"""More than that are read with `heim-proxy agent list`."""

_ACTION: Final = "agents"
_SIGN_IN: Final = "/.heim/login?rd=%2F.heim%2Fagents"
_NO_SUCH: Final = "There is no such code, or it was used or has expired. Look at it again."


@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine that is an agent: connected since and from, or last seen; None when never."""

    device: str
    joined: float
    since: float | None
    address: str
    last_seen: float | None


@dataclass(frozen=True, slots=True)
class _Agent:
    """A configured agent, with the machines that are it."""

    name: str
    group: bool
    targets: Sequence[str]
    machines: Sequence[_Machine]


class AgentPages:
    """The handlers of `PATH` on the login host."""

    __slots__ = ("_attempts", "_pages")

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._attempts = Attempts()

    async def ask(self, visit: Visit) -> web.StreamResponse:
        """GET: the form and the list; sign in first when nobody is. Nothing in the address counts.

        Raises:
            PortalError: 403 for people who may not let agents in.
        """
        visit.refuse_speculation()
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return redirect(_SIGN_IN)
        _approver(visit, session)
        return await self._form(visit, session, cookie)

    async def answer(self, visit: Visit) -> web.StreamResponse:
        """POST: a code was typed, or a decision made about it.

        Raises:
            PortalError: 403 for people who may not let agents in, and for forms that are not ours.
        """
        form = await read_form(visit.request)
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return redirect(_SIGN_IN)
        approver = _approver(visit, session)
        if form is None or not is_ours(visit, form, session_cookie=cookie, action=_ACTION):
            raise PortalError(
                403,
                "This code did not come from our page.",
                "Open the page where agents are let in, and type it there.",
                link=TryAgain(PATH, "Agents"),
            )
        self._attempts.count(visit, session)
        code = user_code_of(form.get("code", ""))
        waiting = None if code is None else await visit.ctx.enrolments.find(code, visit.now)
        if code is None or waiting is None:
            return await self._form(visit, session, cookie, problem=_NO_SUCH)
        if "decision" not in form:
            return self._asked(waiting, code, session, cookie)
        approved = form["decision"] == "approve"
        if approved and waiting.refusal is not None:
            # It became impossible since the page was shown; the page says why.
            return self._asked(waiting, code, session, cookie, status=409)
        sid = session.sid if approved else ""
        if not await visit.ctx.enrolments.decide(code, sid=sid, now=visit.now):
            return await self._form(visit, session, cookie, problem=_NO_SUCH)
        _record(visit, session, approver, waiting, approved=approved)
        return self._pages.page("agent_decided", approved=approved, action=PATH)

    def _asked(
        self, waiting: Waiting, code: str, session: Session, cookie: str, *, status: int = 200
    ) -> web.Response:
        return self._pages.form(
            "agent_asked",
            status=status,
            session=session,
            waiting=waiting,
            code=code,
            action=PATH,
            csrf=csrf_token(cookie, _ACTION),
        )

    async def _form(
        self, visit: Visit, session: Session, cookie: str, *, problem: str = ""
    ) -> web.Response:
        agents, more = await _configured(visit)
        return self._pages.form(
            "agents",
            status=400 if problem else 200,
            session=session,
            problem=problem,
            agents=agents,
            more=more,
            action=PATH,
            csrf=csrf_token(cookie, _ACTION),
        )


def _approver(visit: Visit, session: Session) -> Approver:
    """By what right somebody is here; asked anew with every request.

    Raises:
        PortalError: 403, by none.
    """
    found = visit.settings.approver(session.subject)
    if found is None:
        visit.audit("agent.approval_refused", user=session.subject.name)
        raise PortalError(
            403,
            "You may not let agents in.",
            "Ask an administrator of this site for a role with approve_agents.",
            account=session.subject.name,
            link=TryAgain("/", "Overview"),
        )
    return found


def _record(
    visit: Visit, session: Session, approver: Approver, waiting: Waiting, *, approved: bool
) -> None:
    facts = {
        "agent": waiting.name,
        "fingerprint": waiting.fingerprint,
        "device": waiting.label,
        "device_client": waiting.client,
        "subject": session.subject.subject,
        "email": session.subject.email,
        "role": approver.role,
    }
    if approved:
        visit.audit("agent.enrolment_approved", **facts)
    else:
        visit.audit("agent.enrolment_denied", **facts)
    if approver.break_glass:
        visit.audit(
            "access.break_glass",
            user=session.subject.name,
            agent=waiting.name,
            rule=f"role {approver.role}: break-glass",
        )


async def _configured(visit: Visit) -> tuple[list[_Agent], int]:
    """What the list shows: agents by name, and how many there are besides."""
    rows = await in_time(visit.ctx.store.list_sessions(kind=SessionKind.AGENT))
    enrolled: dict[str, list[SessionRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.label, row.created)):
        enrolled[row.subject].append(row)
    here = {(one.name, one.thumbprint): one for one in visit.ctx.agents()}
    agents = sorted(visit.settings.agents.values(), key=lambda one: one.name)
    shown = [
        _Agent(
            one.name,
            one.group,
            sorted(one.targets),
            [_machine(row, here) for row in enrolled[one.name][:MAX_SHOWN]],
        )
        for one in agents[:MAX_SHOWN]
    ]
    return shown, len(agents) - len(shown)


def _machine(row: SessionRow, here: Mapping[tuple[str, str], Presence]) -> _Machine:
    thumbprint = base64.urlsafe_b64encode(row.secret_hash).rstrip(b"=").decode("ascii")
    present = here.get((row.subject, thumbprint))
    return _Machine(
        device=row.label,
        joined=row.created,
        since=None if present is None else present.since,
        # Lanes of one machine may come by several ways; the oldest stands for it.
        address="" if present is None else min(present.lanes, key=lambda one: one.since).address,
        last_seen=row.last_seen if row.last_seen > row.created else None,
    )
