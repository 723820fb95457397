"""Challenges of a certificate authority that are answered for a host, one exact token at a time."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, StrictStr

from heim_config.fields import Filled, Host, Section, UpstreamUrl
from heim_config.problems import mistake, show

__all__ = ["AcmeChallenge"]

# Base64url without padding of at least 128 bits (RFC 8555, 8.3).
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise mistake(f"{show(value)} is not the token of a challenge")
    return value


class AcmeChallenge(Section):
    """One ACME HTTP-01 challenge: who answers it, without anybody being asked who they are.

    GET and HEAD of /.well-known/acme-challenge/<token> on the plain listener, for this host, and
    nothing else. Whoever answers gets a certificate for the host.
    """

    host: Host
    """The host that a certificate is wanted for, the login host included. Required."""

    token: Annotated[StrictStr, AfterValidator(_token)]
    """The last segment of the path, 16 to 128 of A-Z, a-z, 0-9, - and _. Required."""

    upstreams: Annotated[tuple[UpstreamUrl, ...], Filled]
    """Where the request goes, by http. Required."""
