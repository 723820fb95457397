"""`heim-agent install`: run as a service, with no more rights than an agent needs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from heim_agent import files
from heim_agent.complaints import say
from heim_agent.places import SYSTEM_CONFIG, Places
from heim_runtime.complaints import FAILED, OK, Complaint, UsageError

__all__ = ["UNIT_FILE", "at_home", "command", "hidden", "program", "unit"]

UNIT_FILE: Final = "/etc/systemd/system/heim-agent.service"

_KEY: Final = "key.pem"
_AUTHORITIES: Final = "authorities.pem"
_HOMES: Final = ("/home/", "/root/", "/run/user/")
_BETTER: Final = (
    "better have heim-agent in /opt, with the system's Python (/usr/bin/python3 -m venv "
    f"/opt/heim), and agent.toml in {SYSTEM_CONFIG}"
)
_CREDENTIALS: Final = (_KEY, "certificate.pem", "identity.json")

_UNIT: Final = """\
# Written by heim-agent install. Changes belong into: systemctl edit heim-agent
[Unit]
Description=Heim agent: makes local services reachable through a Heim proxy
Wants=network-online.target
After=network-online.target
# The way back to this machine may be this service: it is never given up.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} run --config {config}
ExecReload=kill -HUP $MAINPID
Restart=always
RestartSec=5
# It says that it lives every few seconds; 60 s without is a program that hangs.
WatchdogSec=60
# Streams may end for 10 s.
TimeoutStopSec=20
# HTTPS_PROXY and the like.
EnvironmentFile=-/etc/default/heim-agent

# A user that exists while it runs. The key stays root's: it is handed over at each start, and the
# service cannot change or remove it. Newer certificates go to /var/lib/heim-agent.
DynamicUser=yes
User=heim-agent
StateDirectory=heim-agent
StateDirectoryMode=0700
{credentials}
UMask=0077

# Nothing but sockets and its own files.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
{home}
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
KeyringMode=private
LimitNOFILE=65536
# The key is in memory.
LimitCORE=0

[Install]
WantedBy=multi-user.target
"""


def command(args: argparse.Namespace, places: Places) -> int:
    """Print the unit, or write it and say how to start it.

    Raises:
        Complaint: This machine has not joined, or the unit cannot be written.
    """
    started = program(sys.argv[0])
    if not (args.state or args.config or os.environ.get("HEIM_AGENT_STATE")):
        # A service is root's to make: whoever prints it gets what root would.
        places = Places.find(os.environ, root=True)
    # What the interpreter reads, too: a link in /usr/local/bin may lead into a home.
    homely = at_home(started, places.config, sys.prefix, sys.base_prefix)
    text = unit(started, places, homely=homely)
    if not args.write:
        sys.stdout.write(text)
        return OK
    if os.geteuid() != 0:
        raise UsageError(f"writing {UNIT_FILE} takes root; run: sudo {started} install --write")
    if not os.path.exists(f"{places.seed}/{_KEY}"):
        raise Complaint(
            f"this machine has not joined: there is no {places.seed}/{_KEY}; run: heim-agent join "
            "https://LOGIN_HOST",
            FAILED,
        )
    try:
        files.write((UNIT_FILE, text.encode(), 0o644))
    except OSError as e:
        hint = "" if os.path.isdir(os.path.dirname(UNIT_FILE)) else "; is this a systemd machine?"
        raise Complaint(f"cannot write {UNIT_FILE}: {e.strerror}{hint}", FAILED) from e
    say(f"wrote {UNIT_FILE}")
    if homely:
        say(
            f"in a home directory: {', '.join(homely)}; the unit has ProtectHome=read-only for "
            f"that, and the service's user must be able to get there; {_BETTER}"
        )
    for trouble in hidden(started, sys.executable, places.config):
        say(trouble)
    if not os.path.exists(places.config):
        say(f"next: write what to serve into {places.config}; heim-agent targets check tries it")
    say("then: systemctl daemon-reload && systemctl enable --now heim-agent")
    say("and look: heim-agent status, or journalctl -u heim-agent")
    return OK


def unit(started: str, places: Places, *, homely: Sequence[str] = ()) -> str:
    """The unit's text.

    Args:
        started: What to start, an absolute path.
        places: Where root joined, and the configuration.
        homely: What the service has to read in home directories.

    Raises:
        UsageError: A path cannot be written into a unit.
    """
    names = list(_CREDENTIALS)
    if os.path.exists(f"{places.seed}/{_AUTHORITIES}"):
        names.append(_AUTHORITIES)
    seed = os.path.abspath(places.seed)
    if ":" in seed:
        raise UsageError(f"{seed}: systemd takes no colon in the directory of a credential")
    lines = (f"LoadCredential={name}:{_escaped(f'{seed}/{name}')}" for name in names)
    config = os.path.abspath(places.config)
    return _UNIT.format(
        program=_quoted(started),
        config=_quoted(config),
        credentials="\n".join(lines),
        home=f"# For {_escaped(', '.join(homely))}: {_BETTER}.\nProtectHome=read-only"
        if homely
        else "ProtectHome=yes",
    )


def at_home(*paths: str) -> list[str]:
    """Those that are in somebody's home, or lead there: `ProtectHome=yes` would hide them."""
    ways = {path: (f"{os.path.abspath(path)}/", f"{os.path.realpath(path)}/") for path in paths}
    return [path for path, both in ways.items() if any(map(_is_home, both))]


def _is_home(path: str) -> bool:
    return path.startswith(_HOMES)


def hidden(*paths: str) -> Iterator[str]:
    """What the service would not find or may not read, of files that are there: a line each.

    A user that exists while it runs owns nothing, and is in no group that has a say.
    """
    for path in paths:
        real = os.path.realpath(path)
        if real.startswith(("/tmp/", "/var/tmp/")):  # noqa: S108 - it is not written to
            yield f"the service has a /tmp of its own, without {real}; put it elsewhere (/opt)"
            continue
        above = real
        while above != "/" and os.path.exists(real):
            mode = os.stat(above).st_mode
            if not mode & (0o004 if above == real else 0o001):
                yield (
                    f"the service's user cannot read {real}; run: chmod o+r {above}"
                    if above == real
                    else f"the service's user cannot reach {real}: {above} is closed to others; "
                    "put it elsewhere (/opt)"
                )
                break
            above = os.path.dirname(above)


def program(argv0: str) -> str:
    """The absolute path of the running heim-agent, for a service to start."""
    found = argv0 if os.path.sep in argv0 else shutil.which(argv0) or ""
    if not found or os.path.basename(found) == "__main__.py":
        # `python -m heim_agent`: the script of the same environment.
        found = os.path.join(os.path.dirname(sys.executable), "heim-agent")
    return os.path.abspath(found)


def _quoted(path: str) -> str:
    """A path as an argument of a command (systemd.service(5), "Command lines")."""
    text = _escaped(path).replace("$", "$$")
    if not set(text) & set(" \t'\"\\;"):
        return text
    backslashed = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{backslashed}"'


def _escaped(path: str) -> str:
    """A path as a value: specifiers are spelled out (systemd.unit(5))."""
    if not path.isprintable():
        raise UsageError(f"{path!r} cannot be written into a unit")
    return path.replace("%", "%%")
