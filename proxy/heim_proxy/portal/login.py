"""Starting to sign in, and passing an existing login on to the application that asked for one.

On the login host: `login` (from an application, or from the start page), the picker, and
`login_with` one provider. On a backend's host: `login_here` sends the browser to the login host
with a binding to this browser.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from heim_proxy.identity import handoff
from heim_proxy.identity.cookies import FLOW_PREFIX
from heim_proxy.identity.flow import LoginFlow, keep
from heim_proxy.identity.login_errors import LoginError, LoginRejected, ProviderDown
from heim_proxy.identity.providers import Provider
from heim_proxy.identity.session import Session
from heim_proxy.portal.destination import Goal, goal_of, own_page
from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.limits import LoopGuard
from heim_proxy.portal.pages import Pages
from heim_proxy.portal.visit import Visit, redirect

__all__ = ["LoginPages", "fresh_enough", "login_failed", "login_here", "parameters", "url_of"]

HANDOFF_PATH: Final = "/.heim/handoff"


class LoginPages:
    """The handlers that start a sign-in or pass one on. Keeps nothing but the loop guard."""

    __slots__ = ("_loops", "_pages")

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._loops = LoopGuard()

    async def login(self, visit: Visit) -> web.StreamResponse:
        """GET /.heim/login?host&rd&h on the login host."""
        visit.refuse_speculation()
        goal = _goal(visit)
        session = await visit.session()
        if session is not None and fresh_enough(visit, session, goal):
            return await self.send_on(visit, session, goal)
        providers = visit.settings.providers
        # Whoever only has to prove it again does so where they did before.
        known = visit.settings.provider(session.provider) if session is not None else None
        if known is None and len(providers) == 1:
            known = providers[0]
        if known is not None:
            return await self._start(visit, known, goal, again=session is not None)
        if not providers:
            raise PortalError(
                503,
                "Nobody can sign in here: no identity provider is configured.",
                "Tell the operator of this site.",
            )
        query = urlencode(parameters(goal))
        choices = [
            (one.title, f"/.heim/login/{one.name}{'?' if query else ''}{query}")
            for one in providers
        ]
        return self._pages.page("picker", host=goal.host, choices=choices)

    async def login_with(self, visit: Visit) -> web.StreamResponse:
        """GET /.heim/login/<provider> on the login host: a choice was made.

        With `again`, the provider asks who it is: for people who need another account.
        """
        visit.refuse_speculation()
        provider = visit.settings.provider(visit.path.rpartition("/")[2])
        if provider is None:
            raise PortalError(
                404,
                "There is no such identity provider.",
                "Choose one of the providers on the sign-in page.",
                link=TryAgain("/.heim/login", "Sign in"),
            )
        again = "again" in visit.query()
        return await self._start(visit, provider, _goal(visit), again=again)

    async def send_on(
        self, visit: Visit, session: Session, goal: Goal, set_cookies: tuple[str, ...] = ()
    ) -> web.StreamResponse:
        """Send a signed-in browser to its goal: with a ticket when an app host asked for one."""
        settings = visit.settings
        # Asked again: a goal that was sealed into a flow may have left the configuration since.
        origin = None if goal.host is None else settings.origin_of(goal.host)
        if goal.host is None or origin is None:
            page = own_page(goal.path) if goal.host is None else None
            return redirect(f"{settings.login_url}{page or '/'}", set_cookies)
        if goal.binding is None:
            # The wish did not come from there, so nothing on that host could redeem a ticket. If
            # the session is needed, the host asks for it itself.
            return redirect(f"{origin}{goal.path}", set_cookies)
        if self._loops.looping(session.sid, goal.host, goal.path, visit.ctx.clock.monotonic()):
            raise PortalError(
                400,
                "You are signed in, but the application does not keep the session.",
                f"Allow cookies for {goal.host}, then try again.",
                step="passing the session on",
                link=TryAgain(f"{origin}{goal.path}"),
                set_cookies=set_cookies,
            )
        ticket = visit.ctx.tickets.issue(session, goal.host, goal.path, goal.binding, visit.now)
        return redirect(f"{origin}{HANDOFF_PATH}?{urlencode({'t': ticket})}", set_cookies)

    async def _start(
        self, visit: Visit, provider: Provider, goal: Goal, *, again: bool
    ) -> web.StreamResponse:
        flow = LoginFlow.begin(
            provider.name,
            now=visit.now,
            host=goal.host,
            path=goal.path,
            binding=goal.binding,
            max_age_s=visit.settings.age_limit(goal.host),
        )
        try:
            url = await visit.ctx.login.authorization_url(provider, flow, again=again)
        except LoginError as error:
            raise login_failed(visit, provider, error, goal) from error
        cookies = keep(visit.cookies, flow, visit.ctx.sealer, visit.settings.login_host)
        return redirect(url, cookies)


async def login_here(visit: Visit) -> web.StreamResponse:
    """GET /.heim/login?rd on a backend's host: go to the login host, and come back."""
    visit.refuse_speculation()
    host, settings = visit.facts.host, visit.settings
    goal = goal_of(host, visit.query().get("rd"), None, origin_of=settings.origin_of)
    # Only to a page of this very host: a backend does not get to send people to another one.
    path = goal.path if goal.host == host else "/"
    session = await visit.session()
    if session is not None and fresh_enough(visit, session, Goal(host)):
        return redirect(f"{settings.public_url(host)}{path}")
    start = handoff.start(
        host,
        path,
        login_url=settings.login_url,
        cookies=[name for name, _ in visit.cookies if name.startswith(FLOW_PREFIX)],
        now=visit.now,
    )
    return redirect(start.location, start.set_cookies)


def fresh_enough(visit: Visit, session: Session, goal: Goal) -> bool:
    """Whether the person proved who they are recently enough for where they want to go."""
    limit = visit.settings.age_limit(goal.host)
    return limit is None or visit.now - session.auth_time < limit


def url_of(visit: Visit, goal: Goal) -> str:
    """The address of a goal, for a link that starts over there."""
    if goal.host is None:
        query = urlencode(parameters(goal))
        return f"/.heim/login{'?' if query else ''}{query}"
    origin = visit.settings.origin_of(goal.host)
    return "/.heim/login" if origin is None else f"{origin}{goal.path}"


def login_failed(
    visit: Visit,
    provider: Provider,
    error: LoginError,
    goal: Goal,
    set_cookies: tuple[str, ...] = (),
) -> PortalError:
    """Audit a failed sign-in; the page says the step and never quotes the provider."""
    visit.audit("login.failed", provider=provider.name, step=error.step, detail=error.detail)
    if isinstance(error, LoginRejected):
        status, title = 400, f"{provider.title} did not confirm who you are."
        todo = "Start again; if it happens twice, tell the operator the request id."
    elif isinstance(error, ProviderDown) or error.step == "discovery":
        status, title = 503, f"Sign-in with {provider.title} is unavailable."
        todo = "Try again in a minute. Whoever is signed in already is not affected."
    else:
        status, title = 502, f"{provider.title} gave an answer that cannot be used."
        todo = "Tell the operator the request id: the log says what was wrong."
    return PortalError(
        status,
        title,
        todo,
        step=error.step,
        link=TryAgain(url_of(visit, goal)),
        headers={"Retry-After": "10"} if status == 503 else {},
        set_cookies=set_cookies,
    )


def _goal(visit: Visit) -> Goal:
    query = visit.query()
    return goal_of(
        query.get("host"), query.get("rd"), query.get("h"), origin_of=visit.settings.origin_of
    )


def parameters(goal: Goal) -> dict[str, str]:
    """The parameters of a login request that names `goal`."""
    if goal.host is None:
        return {} if own_page(goal.path) is None else {"rd": goal.path}
    found = {"host": goal.host, "rd": goal.path}
    return found if goal.binding is None else {**found, "h": goal.binding}
