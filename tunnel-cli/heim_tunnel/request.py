"""One HTTPS request to the login host, for logging in and refreshing tokens.

Not on the path of an established `proxy`: only what talks to the login host imports it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_tunnel.dial import Way

__all__ = ["Reply", "get", "post"]


class Reply:
    """An answer: `status`, `fields` (lower-case names), `body`; `json()` is a dict or a Complaint."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, fields: dict[str, str], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    def json(self) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            Complaint: It is something else, as a captive portal's page is.
        """
        raise NotImplementedError


def get(url: str, way: Way, *, bearer: str | None = None) -> Reply:
    """GET an https URL; redirects are not followed. Raises Complaint."""
    raise NotImplementedError


def post(url: str, form: dict[str, str], way: Way, *, bearer: str | None = None) -> Reply:
    """POST a form (x-www-form-urlencoded) to an https URL; redirects are not followed.

    Raises:
        Complaint: The host could not be reached or did not answer HTTP within 15 s.
    """
    raise NotImplementedError
