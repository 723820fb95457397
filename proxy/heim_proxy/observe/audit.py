"""Security decisions as events: who did what, to what, and why it was allowed or refused.

Audit events go through logging like everything else, on a logger of their own, so that they can
be routed apart by name; but they are never sampled and never below the level that is written.
"""

from __future__ import annotations

import enum
import logging
from typing import Final

__all__ = ["AUDIT_LOGGER", "Audit", "AuditValue"]

AUDIT_LOGGER: Final = "heim.audit"

AuditValue = str | int | float | bool | enum.Enum | tuple[str, ...] | None

# logging refuses `extra` keys that a LogRecord has itself (name, args, module, ...) by raising:
# an event must not be lost to the spelling of a field, so those get a trailing underscore.
_TAKEN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Audit:
    """Writes audit events. One per process."""

    __slots__ = ("_logger",)

    def __init__(self) -> None:
        self._logger = logging.getLogger(AUDIT_LOGGER)
        # Its own level: `--log-level error` quietens the program, not the record of who got in.
        self._logger.setLevel(logging.INFO)

    def emit(self, event: str, /, **fields: AuditValue) -> None:
        """Write one event.

        Args:
            event: What happened, as ``session.created``.
            fields: Facts about it; enums show their value. Nothing secret.
        """
        extra: dict[str, object] = {
            f"{name}_" if name in _TAKEN else name: value.value
            if isinstance(value, enum.Enum)
            else value
            for name, value in fields.items()
        }
        self._logger.info(event, extra=extra)
