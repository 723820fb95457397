"""Ask the proxy at the other end of a link for a tunnel, and wait until it has dialled."""

from __future__ import annotations

import time

from heim_runtime.complaints import Complaint
from heim_runtime.link import Link, Lost
from heim_wire.handshake import Upgrade

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_tunnel.dial import Endpoint

__all__ = ["ANSWER_S", "upgrade"]

ANSWER_S: Final = 30.0
"""The proxy dials before it answers (10 s for it), and may ask an identity provider before that."""


def upgrade(
    link: Link,
    endpoint: Endpoint,
    *,
    token: str,
    backend: str | None = None,
    within_s: float = ANSWER_S,
) -> bytes:
    """Upgrade a link to a tunnel session; what followed the 101.

    Args:
        link: From `dial`.
        endpoint: The host that was dialled; it is the request's Host.
        token: The bearer token; "" asks without one, to be told where to sign in.
        backend: The backend's name or host where `endpoint` is the login host, else None.
        within_s: How long to wait for the answer, seconds.

    Raises:
        Refused: The proxy, or something on the way, answered otherwise.
        Complaint: There was no answer.
    """
    headers = (("Heim-Backend", backend),) if backend is not None else ()
    request = Upgrade(str(endpoint), token=token, headers=headers)
    deadline = time.monotonic() + within_s
    try:
        link.send(request.request, deadline)
        # While the answer travels.
        request.prepare()
        while True:
            data = link.receive(deadline)
            if not data:
                raise request.eof()
            early = request.receive(data)
            if early is not None:
                return early
    except TimeoutError as e:
        raise Complaint(f"{endpoint.host} does not answer within {within_s:.0f} s") from e
    except Lost as e:
        raise Complaint(f"{endpoint.host} broke the connection off: {e}") from e
