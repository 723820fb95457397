"""What can go wrong between us and the API server, by what a caller does about it.

KubeError
├── Unconfigured       no kubeconfig, no service account: tell the operator
├── Unreachable        no answer: connection, TLS, deadline, cut in the middle; try again
├── Garbled            an answer that is not the API's: try again, and log it
├── LeadershipLost     somebody else may lead now: stop writing, exit
└── ApiError           the API server said no, with a status
    ├── Invalid        400, 422: our object is wrong; trying again changes nothing
    ├── Unauthorized   401: the token was refused even after it was read again
    ├── Forbidden      403: RBAC; an operator must act
    ├── NotFound       404: the object, or the whole resource (its CRD is not installed)
    ├── Conflict       409: somebody else wrote first, or owns the field: read again
    │   └── AlreadyExists  409 on create
    ├── Gone           410: the version asked for is compacted: list again
    └── Busy           429, 500, 502, 503, 504: try again, not before `retry_after_s`
"""

# ruff: noqa: N818 - the names say what happened, and a caller reads them as that

from __future__ import annotations

import json
from typing import Final

__all__ = [
    "AlreadyExists",
    "ApiError",
    "Busy",
    "Conflict",
    "Forbidden",
    "Garbled",
    "Gone",
    "Invalid",
    "KubeError",
    "LeadershipLost",
    "NotFound",
    "Unauthorized",
    "Unconfigured",
    "Unreachable",
    "error_for",
]

# Messages of the API server may quote a whole object; logs and Events want a sentence.
MAX_MESSAGE: Final = 500

# A server that asks for more than this is taken to mean this: we look again every few minutes.
MAX_RETRY_AFTER_S: Final = 300.0


class KubeError(Exception):
    """Anything that keeps us from talking to the Kubernetes API."""


class Unconfigured(KubeError):
    """There is no usable configuration to reach an API server with."""


class Unreachable(KubeError):
    """The API server did not answer, or stopped in the middle of an answer."""


class Garbled(KubeError):
    """The answer is not what the Kubernetes API sends: not JSON, too long, not an object."""


class LeadershipLost(KubeError):
    """The lease could not be renewed in time, or another holder has it."""


class ApiError(KubeError):
    """The API server answered with an error.

    Attributes:
        status: HTTP status.
        reason: Kubernetes' word for it ("Conflict", "Expired"), or "".
        message: What the server said, shortened.
        retry_after_s: Seconds that the server wants us to wait, or None.
    """

    def __init__(
        self, status: int, message: str, *, reason: str = "", retry_after_s: float | None = None
    ) -> None:
        """Keep what the server said."""
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class Invalid(ApiError):
    """400, 405, 413, 415, 422: the request is wrong and stays wrong."""


class Unauthorized(ApiError):
    """401: who we are was not accepted, although the credentials were read again."""


class Forbidden(ApiError):
    """403: RBAC or admission says no."""


class NotFound(ApiError):
    """404: no such object, or no such resource."""


class Conflict(ApiError):
    """409: the object changed since it was read, or another manager owns a field."""


class AlreadyExists(Conflict):
    """409 on create: the name is taken."""


class Gone(ApiError):
    """410: the resource version is too old to continue from."""


class Busy(ApiError):
    """429 and 5xx: not now."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    429: Busy,
}


def error_for(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """Make the error that an answer stands for.

    Args:
        status: HTTP status, or the `code` of a Status object in a watch.
        body: The answer: a Status object as JSON, or whatever a proxy in between wrote.
        retry_after: The header of that name; seconds only, as the API server writes it.
    """
    message, reason, details = _said(body)
    kind = _BY_STATUS.get(status) or (Busy if status >= 500 else Invalid)
    if kind is Conflict and reason == "AlreadyExists":
        kind = AlreadyExists
    wait = _seconds(retry_after) if retry_after else _seconds(details.get("retryAfterSeconds"))
    return kind(status, message, reason=reason, retry_after_s=wait)


def _said(body: bytes) -> tuple[str, str, dict[str, object]]:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        text = body[:MAX_MESSAGE].decode("utf-8", "replace")
        return " ".join(text.split()) or "no message", "", {}
    details = told.get("details")
    return (
        str(told.get("message") or "no message")[:MAX_MESSAGE],
        str(told.get("reason") or ""),
        details if isinstance(details, dict) else {},
    )


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    # NaN fails both comparisons.
    return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else None
