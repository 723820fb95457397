"""`heim-tunnel ssh-config`: the lines that make `ssh` and its friends go through the tunnel."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from heim_runtime.complaints import FAILED, NO_HOST, OK, Complaint, UsageError
from heim_tunnel.complaints import clean, say
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.listing import ask
from heim_tunnel.login import readable, signed_in_host
from heim_tunnel.loginhost import Backend
from heim_tunnel.sshfile import SshConfigError, effective, write_block

__all__ = ["block", "command", "patterns", "program", "write"]

# What a login host may put behind `Host`: a name, or what is below a name of two labels or more.
_HOST: Final = re.compile(
    r"(\*\.(?=[^.]+\.))?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE
)


def command(args: argparse.Namespace, way: Way) -> int:
    """Print the lines on standard output, or write them to the file."""
    login_host = signed_in_host(args.login_host)
    hosts = args.pattern or patterns(ask(login_host, way)[1], login_host)
    if not hosts:
        raise Complaint(
            f"you may reach no tcp backend at {login_host}; give the hosts you expect, as in: "
            "heim-tunnel ssh-config '*.ssh.x.example.com'",
            NO_HOST,
        )
    text = block(hosts, proxy_command(login_host, way))
    if args.write:
        return write(Path(args.file).expanduser(), text, login_host, hosts)
    sys.stdout.write(text)
    return OK


def patterns(backends: Sequence[Backend], login_host: str) -> list[str]:
    """What stands behind `Host`: a wildcard where everything below a name is tcp, else the hosts.

    A wildcard takes in backends that come later. It is used for a name below the login host's own
    domain only: beside the login host, and in other domains, machines live that have nothing to do
    with Heim.
    """
    tcp = {one.host for one in backends if one.kind == "tcp" and _HOST.fullmatch(one.host)}
    apart = {_parent(one.host) for one in backends if one.kind != "tcp"}
    domain = f".{_parent(Endpoint.parse(login_host).host)}"
    found = {
        f"*.{parent}"
        if (parent := _parent(host)).endswith(domain) and parent not in apart
        else host
        for host in tcp
    }
    # `*.ssh.x.example.com` takes in what is below it.
    return sorted(
        host for host in found if host.startswith("*") or f"*.{_parent(host)}" not in found
    )


def _parent(host: str) -> str:
    return host.partition(".")[2]


def block(hosts: Sequence[str], proxied: str) -> str:
    """The lines for ~/.ssh/config.

    Raises:
        UsageError: A pattern or the command cannot stand in one line.
    """
    for host in hosts:
        if host and not host.strip("!*?."):
            raise UsageError(
                f"{host!r} would send every ssh through Heim, to hosts that it does not serve, "
                "too; give a pattern such as '*.ssh.x.example.com'"
            )
        if not host or host.startswith("-") or not set(host).isdisjoint(" \t\r\n\"'#\\"):
            raise UsageError(f"{clean(host, 100)!r} is no pattern of hosts for ssh")
    if not proxied.isprintable():
        raise UsageError("the path of heim-tunnel cannot be written into a configuration of ssh")
    return f"Host {' '.join(hosts)}\n    ProxyCommand {proxied}\n"


def proxy_command(login_host: str, way: Way) -> str:
    """The command that ssh hands to the shell, with the options that were needed to get here."""
    port = Endpoint.parse(login_host).port
    words = [*program(), "proxy"]
    if detour := os.environ.get("HEIM_PROXY"):
        # Editors start ssh without the environment of this terminal.
        words[:0] = ["env", f"HEIM_PROXY={Endpoint.parse(detour, what='HEIM_PROXY')}"]
        port = 443
    if way.connect_to is not None:
        words += ["--connect-to", str(way.connect_to)]
    if (ca_file := _authorities(login_host, way)) is not None:
        words += ["--ca-file", os.path.abspath(ca_file)]
    # ssh expands `%` tokens before the shell sees the line.
    line = " ".join(shlex.quote(word) for word in words).replace("%", "%%")
    return f"{line} %h" if port == 443 else f"{line} %h:{port}"


def _authorities(login_host: str, way: Way) -> str | None:
    """The file that the person named: `proxy` needs it when nobody is signed in any more."""
    if way.ca_remembered is not None:
        return way.ca_remembered
    login = readable(login_host)
    # One that is gone would only be complained about; the login has a copy.
    known = login is not None and login.ca_file is not None and os.path.exists(login.ca_file)
    return login.ca_file if login is not None and known else None


def program() -> list[str]:
    """How this very program is started again, from any directory and with any PATH."""
    started = sys.argv[0]
    if os.path.basename(started) == "heim-tunnel":
        found = started if os.sep in started else shutil.which(started)
        if found:
            # Not resolved further: a link such as pipx's survives an upgrade, its target may not.
            return [os.path.abspath(found)]
    beside = os.path.join(os.path.dirname(sys.executable), "heim-tunnel")
    if os.access(beside, os.X_OK):
        return [beside]
    return [sys.executable, "-m", "heim_tunnel"]


def write(path: Path, text: str, login_host: str, hosts: Sequence[str]) -> int:
    """Write the block and say what came of it; FAILED when ssh would not use it.

    Raises:
        Complaint: The file cannot be written.
    """
    try:
        changed = write_block(path, text, login_host)
    except SshConfigError as error:
        raise Complaint(str(error), FAILED) from error
    say(
        None, f"{path} {'now sends' if changed else 'already sends'} {' '.join(hosts)} through Heim"
    )
    # What ssh would make of one host that the patterns are for.
    probe = hosts[0].replace("*", "any").replace("?", "x").lstrip("!")
    used = effective(path, probe)
    ours = text.rpartition("ProxyCommand ")[2].strip()
    if used is None or used.replace("%%", "%") == ours.replace("%%", "%"):
        return OK
    instead = f"`{clean(used, 200)}`" if used else "none"
    say(
        None,
        f"but an earlier part of {path} wins: for {probe} ssh uses {instead} as its ProxyCommand; "
        "move that below the heim-tunnel lines or take it out",
    )
    return FAILED
