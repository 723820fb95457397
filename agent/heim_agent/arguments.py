"""The arguments of `heim-agent` and the commands they lead to.

A command is `command` of its module: it takes the arguments and the places of files, and returns
the exit status or raises Complaint. The documentation is checked against `build_parser`.
"""

from __future__ import annotations

import argparse
import os
from typing import Final

from heim_runtime.commands import Commands, add_command, lazy

__all__ = ["ENVIRONMENT", "build_parser"]

ENVIRONMENT: Final = (
    "HEIM_JOIN_TOKEN",
    "HEIM_AGENT_STATE",
    "HEIM_AGENT_CONFIG",
    "HEIM_CA_FILE",
    "HEIM_LOG_LEVEL",
    "HEIM_WEB_PROXY_HEADER_FILE",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "STATE_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
)
"""What changes the behaviour of heim-agent; a test holds the reference to it."""

_EXAMPLES: Final = """\
first time:
  heim-agent join https://auth.x.example.com --token-file -
  heim-agent run

examples:
  heim-agent join https://auth.x.example.com --name office
                                 without a token: somebody types the code that is shown
  heim-agent targets check       can everything in agent.toml be reached?
  heim-agent install --write     run it as a systemd service
  heim-agent status              is it connected, and if not, why

exit status: 0 done, 1 failed (status: not connected), 2 usage or agent.toml, 68 no such name in
DNS, 69 something on the way does not answer, 70 a bug, 75 try again later, 76 no Heim there, 77 not
let in, 130 Ctrl-C, 143 SIGTERM
"""


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    parser = argparse.ArgumentParser(
        prog="heim-agent",
        description="Makes services of this machine and its network reachable through a Heim "
        "proxy, to which it dials out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_join(commands)
    _add_run(commands)
    _add_status(commands)
    _add_targets(commands)
    _add_install(commands)
    _add_version(commands)
    return parser


def _add_join(commands: Commands[argparse.ArgumentParser]) -> None:
    join = add_command(
        commands,
        "join",
        "become an agent of a proxy",
        "Make a key on this machine and have the proxy take it for an agent. With a join token "
        "(heim-proxy agent token create NAME) at once; the token comes from a file, standard input "
        "or HEIM_JOIN_TOKEN. Without one a code is shown, and somebody who may let agents in types "
        "it at the login host. What was joined before is replaced.",
        "heim-agent join https://auth.x.example.com --token-file -",
        "heim-agent join https://auth.x.example.com --name office",
    )
    join.add_argument("url", metavar="URL", help="the proxy's login host")
    join.add_argument(
        "--name",
        metavar="NAME",
        help="the agent's name in the proxy's configuration, without a token "
        "[default: this machine's name]",
    )
    join.add_argument(
        "--token-file",
        metavar="FILE",
        help="the join token; - for standard input; else HEIM_JOIN_TOKEN holds it",
    )
    join.add_argument(
        "--ca-file",
        metavar="FILE",
        default=os.environ.get("HEIM_CA_FILE") or None,
        help="authorities to trust instead of the system's, PEM; they are kept [HEIM_CA_FILE]",
    )
    _add_connect_to(join)
    _add_config(join)
    _add_state(join)
    join.set_defaults(run=lazy("heim_agent.join"))


def _add_run(commands: Commands[argparse.ArgumentParser]) -> None:
    run = add_command(
        commands,
        "run",
        "stay connected and serve",
        "Keep a connection to the proxy and serve what agent.toml lists, until SIGTERM or Ctrl-C; "
        "streams may end for 10 seconds then. agent.toml is read again within a second of a "
        "change, and at SIGHUP; one with a mistake changes nothing. Logs go to standard error, as "
        "JSON where that is no terminal.",
        "heim-agent run",
        "heim-agent run --config ./agent.toml --state ./state",
    )
    _add_connect_to(run)
    _add_config(run)
    _add_state(run)
    run.add_argument(
        "--log-level",
        metavar="LEVEL",
        choices=("debug", "info", "warning", "error"),
        default=os.environ.get("HEIM_LOG_LEVEL") or "info",
        help="debug, info, warning or error [HEIM_LOG_LEVEL; default: info]",
    )
    run.set_defaults(run=lazy("heim_agent.run"))


def _add_status(commands: Commands[argparse.ArgumentParser]) -> None:
    status = add_command(
        commands,
        "status",
        "is it connected, and if not, why",
        "Show what the running agent says: since when it is connected, until when its certificate "
        "is good, what went wrong last. Asks nobody. Exit status 1 when it is not connected.",
        "heim-agent status",
        "sudo heim-agent status --json",
    )
    status.add_argument("--json", action="store_true", help="for programs")
    _add_state(status)
    status.set_defaults(run=lazy("heim_agent.status"))


def _add_targets(commands: Commands[argparse.ArgumentParser]) -> None:
    targets = add_command(
        commands,
        "targets",
        "what may be reached through this machine",
        "Show the targets of agent.toml, and which names the proxy has otherwise, as far as a "
        "running agent knows. With check connect to each, and say which cannot be reached; exit "
        "status 1 then.",
        "heim-agent targets",
        "heim-agent targets check",
    )
    targets.add_argument(
        "check", metavar="check", nargs="?", choices=("check",), help="connect to each"
    )
    _add_config(targets)
    _add_state(targets)
    targets.set_defaults(run=lazy("heim_agent.allowlist"))


def _add_install(commands: Commands[argparse.ArgumentParser]) -> None:
    install = add_command(
        commands,
        "install",
        "run as a systemd service",
        "Print a systemd unit that runs this agent as a user of its own with no rights beyond "
        "sockets, its key handed over by systemd. With --write it is written to "
        "/etc/systemd/system/heim-agent.service, and what to do next is said.",
        "heim-agent install",
        "sudo heim-agent install --write",
    )
    ways = install.add_mutually_exclusive_group()
    ways.add_argument(
        "--print", dest="write", action="store_false", default=False, help="print it (the default)"
    )
    ways.add_argument("--write", action="store_true", help="write it to /etc/systemd/system")
    _add_config(install)
    _add_state(install)
    install.set_defaults(run=lazy("heim_agent.install"))


def _add_version(commands: Commands[argparse.ArgumentParser]) -> None:
    shown = add_command(
        commands, "version", "print the version", "Print the version.", "heim-agent version"
    )
    shown.set_defaults(run=None)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="what is served [HEIM_AGENT_CONFIG; default: /etc/heim-agent/agent.toml for root, "
        "else ~/.config/heim-agent/agent.toml]",
    )


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="key, certificate and status [HEIM_AGENT_STATE; default: /etc/heim-agent and "
        "/var/lib/heim-agent for root, else ~/.local/state/heim-agent]",
    )


def _add_connect_to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect-to",
        metavar="HOST:PORT",
        help="connect there instead of where the name says; TLS still verifies the name",
    )
