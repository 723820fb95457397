"""How often codes may be typed: a person who guesses must not find somebody else's."""

from __future__ import annotations

from heim_proxy.identity.session import Session
from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.limits import RateLimit, client_key
from heim_proxy.portal.visit import Visit

__all__ = ["Attempts"]


class Attempts:
    """Counts what is typed on one page, by person and by address; too many of either stop both.

    Typing and deciding take one each: ten codes in a row, then one in forty seconds. With 2000
    codes pending, a thousand accounts that guess all day find one in a year.
    """

    __slots__ = ("_limit",)

    def __init__(self) -> None:
        self._limit = RateLimit(burst=20.0, per_second=0.05)

    def count(self, visit: Visit, session: Session) -> None:
        """Count one.

        Raises:
            PortalError: 429.
        """
        now = visit.ctx.clock.monotonic()
        person = f"{session.subject.issuer}\n{session.subject.subject}"
        address = client_key(visit.facts.client)
        wait = max(self._limit.wait(key, now) for key in (person, address))
        if wait > 0:
            raise PortalError(
                429,
                "Too many codes were typed.",
                "Wait a minute, then type the code that is shown now.",
                headers={"Retry-After": str(int(wait) + 1)},
            )
