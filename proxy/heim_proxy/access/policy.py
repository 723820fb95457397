"""Policy: roles compiled to grants, and the one function that says yes.

`Policy.grants(subject)` is computed once per session and generation; `Grants.decide` is what runs
per request. Everything here is a function of its arguments: no clock, no I/O, no logging.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Allow", "Deny", "DenyReason"]


class DenyReason(enum.Enum):
    """Why a request was refused; the value is what logs and pages show."""

    UNKNOWN_BACKEND = "unknown_backend"
    NO_ROLE = "no_role"
    NO_PERMISSION = "no_permission"
    ORIGIN = "foreign_origin"
    INTERNAL = "internal_error"


@dataclass(frozen=True, slots=True)
class Allow:
    """A positive decision; forwarding functions cannot be called without one.

    `rule` names what decided ("role admin: grafana/all any /"); `roles` are the subject's roles
    that are bound to this backend, sorted.
    """

    backend: str
    rule: str
    roles: tuple[str, ...] = ()
    break_glass: bool = False
    public: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """A negative decision with its reason; `detail` is one sentence for people."""

    backend: str
    reason: DenyReason
    detail: str
