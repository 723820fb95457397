"""`heim-tunnel list`: what I may reach."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from heim_runtime.complaints import OK
from heim_tunnel import credentials, loginhost, tokens
from heim_tunnel.complaints import UNAUTHENTICATED, say, token_refused
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.login import signed_in_host, with_authorities
from heim_tunnel.loginhost import Backend, NotTaken
from heim_wire.problem import Refused

__all__ = ["ask", "columns", "command"]


def command(args: argparse.Namespace, way: Way) -> int:
    """Print a table, or JSON, on standard output."""
    login_host = signed_in_host(args.login_host, token_file=args.token_file)
    user, backends = ask(login_host, way, token_file=args.token_file)
    if args.json:
        listed = [
            {"name": one.name, "kind": one.kind, "host": one.host, "url": one.url}
            for one in backends
        ]
        json.dump(
            {"login_host": login_host, "user": user, "backends": listed}, sys.stdout, indent=2
        )
        sys.stdout.write("\n")
        return OK
    if not backends:
        say(login_host, f"{user} may reach nothing yet; whoever runs the proxy gives out roles")
        return OK
    rows = [("NAME", "KIND", "HOST", "TRY")]
    rows += [(one.name, one.kind, _where(one, login_host), _try(one)) for one in backends]
    sys.stdout.write(columns(rows))
    return OK


def ask(
    login_host: str, way: Way, *, token_file: str | None = None, sign_in: bool = True
) -> tuple[str, list[Backend]]:
    """Who I am at a login host, and what I may reach; signs in when that is needed.

    Raises:
        Complaint: The login host cannot be reached or refuses.
    """
    if token_file is not None:
        return _ask_as_program(login_host, way, token_file)
    login = tokens.current(login_host, way, target=login_host, sign_in=sign_in)
    try:
        return loginhost.backends(login_host, login.access_token, with_authorities(way, login))
    except NotTaken:
        # Its time is not over, but its session is. Once: a new one must do.
        login = tokens.current(
            login_host, way, target=login_host, sign_in=sign_in, refused=login.access_token
        )
        return loginhost.backends(login_host, login.access_token, with_authorities(way, login))


def _ask_as_program(login_host: str, way: Way, token_file: str) -> tuple[str, list[Backend]]:
    bearer = credentials.service_token(token_file, Endpoint.parse(login_host).host)
    try:
        return loginhost.backends(login_host, bearer, way)
    except NotTaken as e:
        raise token_refused(Refused(UNAUTHENTICATED, "", f"asked {login_host}"), token_file) from e


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows with their columns aligned, two blanks between them, none at the end of a line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def _where(backend: Backend, login_host: str) -> str:
    """Its host, with the port of the proxy where that is another than 443."""
    if backend.kind != "tcp":
        return backend.host
    return str(Endpoint(backend.host, backend.served(login_host).port))


def _try(backend: Backend) -> str:
    """What to paste next."""
    if backend.kind == "tcp":
        return f"heim-tunnel forward {backend.example if backend.is_wildcard else backend.name}"
    return backend.url
