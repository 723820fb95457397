"""The host that is meant by what people call a backend: its name in the list, or a host."""

from __future__ import annotations

from collections.abc import Sequence

from heim_runtime.complaints import AUTH, NO_HOST, Complaint, UsageError
from heim_tunnel.complaints import clean
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.listing import ask
from heim_tunnel.login import signed_in_host
from heim_tunnel.loginhost import Backend

__all__ = ["host_of"]


def host_of(backend: str, way: Way, *, token_file: str | None = None, sign_in: bool = True) -> str:
    """The backend's host[:port]: as typed when it has a dot, else looked up by its name.

    Args:
        backend: `host[:port]`, or `name[:port]` as `list` shows it.
        way: How the login host is reached.
        token_file: The file of a service token to ask with, instead of a login's.
        sign_in: False to complain instead of signing in.

    Raises:
        Complaint: No backend that I may reach has this name, or nobody can be asked.
    """
    if "." in backend or backend.startswith("["):
        return backend
    login_host = signed_in_host(None, token_file=token_file)
    name, _, port = backend.partition(":")
    user, backends = ask(login_host, way, token_file=token_file, sign_in=sign_in)
    found = _named(name, backends, user)
    served = found.served(login_host)
    return str(Endpoint(found.host, int(port) if port.isdigit() else served.port))


def _named(name: str, backends: Sequence[Backend], user: str) -> Backend:
    tcp = [one for one in backends if one.kind == "tcp"]
    found = next((one for one in tcp if one.name == name), None)
    if found is None:
        http = next((one for one in backends if one.name == name), None)
        if http is not None:
            raise Complaint(f"{name} is for the browser: {http.url or http.host}", AUTH)
        names = ", ".join(sorted(one.name for one in tcp))
        known = f"; there is {clean(names, 200)}" if names else ""
        raise Complaint(f"{user} may reach no backend called {clean(name, 100)}{known}", NO_HOST)
    if found.is_wildcard:
        raise UsageError(f"{name} is {found.host}: give one of its hosts, as in {found.example}")
    return found
