"""Times as Kubernetes writes them: RFC 3339 in UTC, to the second or to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["micro_time", "time_of"]


def micro_time(epoch_s: float) -> str:
    """A `MicroTime`: always six digits, since the API server refuses other counts."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_of(epoch_s: float) -> str:
    """A `Time`, to the second."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
