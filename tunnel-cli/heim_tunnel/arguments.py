"""The arguments of `heim-tunnel` and the commands they lead to.

A command is `command` of its module: it takes the arguments and the way to hosts, and returns the
exit status or raises Complaint. The documentation is checked against `build_parser`.
"""

from __future__ import annotations

import argparse
import os
from typing import Final

from heim_runtime.commands import Commands, add_command, lazy
from heim_runtime.version import version

__all__ = ["build_parser"]

_EXAMPLES: Final = """\
first time:
  heim-tunnel init auth.x.example.com    sign in, set up ssh, see what you may reach
  ssh desktop.ssh.x.example.com          and that is all

examples:
  heim-tunnel login auth.x.example.com   sign in with a browser (--device: on another machine)
  heim-tunnel list                       what you may reach
  heim-tunnel ssh-config --write         teach ssh, scp, rsync and git the way
  heim-tunnel forward 5432:db            then: psql -h 127.0.0.1
  heim-tunnel doctor                     something does not work: what, and what to do

exit status: 0 done, 1 failed, 2 usage, 68 no such host or backend, 69 something on the way does
not answer, 70 a bug, 75 try again later, 76 no Heim there, 77 not signed in or not allowed,
130 Ctrl-C, 143 SIGTERM
"""


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    parser = argparse.ArgumentParser(
        prog="heim-tunnel",
        description="Any TCP over HTTPS: ssh, git, psql and the rest, through a Heim proxy, with "
        "the sign-in of your browser.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"heim-tunnel {version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_init(commands)
    _add_login(commands)
    _add_logout(commands)
    _add_status(commands)
    _add_list(commands)
    _add_ssh_config(commands)
    _add_forward(commands)
    _add_proxy(commands)
    _add_doctor(commands)
    return parser


def _add_init(commands: Commands[argparse.ArgumentParser]) -> None:
    init = add_command(
        commands,
        "init",
        "set up this machine, step by step",
        "Check that LOGIN_HOST is one, sign in, show what you may reach and offer to set up ssh. "
        "Without a terminal nothing is asked: give LOGIN_HOST, and --ssh-config to set up ssh.",
        "heim-tunnel init auth.x.example.com",
    )
    _add_login_host(init)
    _add_sign_in(init)
    writes = init.add_mutually_exclusive_group()
    writes.add_argument(
        "--ssh-config",
        action="store_true",
        default=None,
        help="write ~/.ssh/config without asking",
    )
    writes.add_argument(
        "--no-ssh-config",
        dest="ssh_config",
        action="store_false",
        help="leave ~/.ssh/config alone",
    )
    _add_way(init)
    init.set_defaults(run=lazy("heim_tunnel.init"))


def _add_login(commands: Commands[argparse.ArgumentParser]) -> None:
    login = add_command(
        commands,
        "login",
        "sign in",
        "Sign in with a browser, which brings the answer to a port on 127.0.0.1. On a machine "
        "without one use --device: it shows a code to type on any other. The address is printed at "
        "once; commands that need a sign-in start it by themselves.",
        "heim-tunnel login auth.x.example.com",
        "heim-tunnel login --device auth.x.example.com",
    )
    _add_login_host(login)
    _add_sign_in(login)
    _add_way(login)
    login.set_defaults(run=lazy("heim_tunnel.login"))


def _add_logout(commands: Commands[argparse.ArgumentParser]) -> None:
    logout = add_command(
        commands,
        "logout",
        "sign out",
        "End the session at the login host, which ends its tunnels too, and remove the tokens from "
        "this machine. They are removed even if the login host cannot be reached.",
        "heim-tunnel logout",
    )
    which = logout.add_mutually_exclusive_group()
    _add_login_host(which)
    which.add_argument("--all", action="store_true", help="every login on this machine")
    _add_way(logout)
    logout.set_defaults(run=lazy("heim_tunnel.logout"))


def _add_status(commands: Commands[argparse.ArgumentParser]) -> None:
    status = add_command(
        commands,
        "status",
        "who you are, until when, and what is in effect",
        "Show the logins on this machine, where their tokens may be sent, and the environment that "
        "heim-tunnel heeds. Asks nobody and shows no secret. Exit status 1 when nobody is signed "
        "in.",
        "heim-tunnel status",
    )
    status.set_defaults(run=lazy("heim_tunnel.status"))


def _add_list(commands: Commands[argparse.ArgumentParser]) -> None:
    listing = add_command(
        commands,
        "list",
        "what you may reach",
        "Ask the login host what you may reach: tcp backends for ssh-config, proxy and forward, "
        "http ones for the browser.",
        "heim-tunnel list",
        "heim-tunnel list --json",
    )
    _add_login_host(listing)
    listing.add_argument("--json", action="store_true", help="for programs")
    _add_token_file(listing)
    _add_way(listing)
    listing.set_defaults(run=lazy("heim_tunnel.listing"))


def _add_ssh_config(commands: Commands[argparse.ArgumentParser]) -> None:
    config = add_command(
        commands,
        "ssh-config",
        "set up ssh",
        "Print the lines that teach ssh (and scp, sftp, rsync, git) the way to your backends, or "
        "write them to ~/.ssh/config between two marks. Writing again replaces them.",
        "heim-tunnel ssh-config",
        "heim-tunnel ssh-config --write '*.ssh.x.example.com'",
    )
    config.add_argument(
        "pattern",
        metavar="PATTERN",
        nargs="*",
        help="hosts as ssh writes them [default: from what you may reach]",
    )
    config.add_argument("--write", action="store_true", help="write them to the file")
    config.add_argument(
        "--file", metavar="FILE", default="~/.ssh/config", help="the file [default: ~/.ssh/config]"
    )
    config.add_argument(
        "--login-host",
        metavar="LOGIN_HOST",
        help="host[:port] to sign in at [HEIM_LOGIN; default: the one you are signed in to]",
    )
    _add_way(config)
    config.set_defaults(run=lazy("heim_tunnel.sshconfig"))


def _add_forward(commands: Commands[argparse.ArgumentParser]) -> None:
    forward = add_command(
        commands,
        "forward",
        "listen on a local port for a backend",
        "Listen locally; every connection becomes a tunnel of its own to BACKEND. LOCAL is PORT, "
        "ADDRESS:PORT or unix:PATH; without it a free port of 127.0.0.1 is taken, and printed. "
        "Whoever reaches LOCAL acts as you, so that is this machine only unless ADDRESS says "
        "otherwise. Ends with Ctrl-C.",
        "heim-tunnel forward 5432:db.x.example.com",
        "heim-tunnel forward unix:/run/user/1000/db.sock:db",
    )
    forward.add_argument(
        "forward",
        metavar="[LOCAL:]BACKEND",
        help="a backend's name as `list` shows it, or its host[:port of the proxy]",
    )
    _add_token_file(forward)
    _add_way(forward)
    forward.set_defaults(run=lazy("heim_tunnel.forward"))


def _add_proxy(commands: Commands[argparse.ArgumentParser]) -> None:
    proxy = add_command(
        commands,
        "proxy",
        "join standard input and output with a backend, for ssh's ProxyCommand",
        "Join standard input and output with HOST. This is what ssh runs; ssh-config writes it.",
        "ssh -o ProxyCommand='heim-tunnel proxy %h' desktop.ssh.x.example.com",
    )
    proxy.add_argument(
        "host", metavar="HOST[:PORT]", help="the backend's host, and the proxy's port if not 443"
    )
    _add_token_file(proxy)
    _add_way(proxy)
    proxy.set_defaults(run=lazy("heim_tunnel.proxy"))


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    doctor = add_command(
        commands,
        "doctor",
        "find out what does not work, and what to do",
        "Look at every step to a backend (or to the login host): clock, names, web proxy, TCP, "
        "TLS, HTTP, the upgrade, who you are and what you may. Shows no token. Exit status 1 when "
        "a step failed.",
        "heim-tunnel doctor desktop.ssh.x.example.com",
        "heim-tunnel doctor --idle 90 desktop.ssh.x.example.com",
    )
    doctor.add_argument(
        "host",
        metavar="BACKEND",
        nargs="?",
        help="a backend's name as `list` shows it, or its host[:port of the proxy] "
        "[default: the login host alone]",
    )
    doctor.add_argument(
        "--idle",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="keep a tunnel idle so long and see who cuts it [default: 0]",
    )
    _add_token_file(doctor)
    _add_way(doctor)
    doctor.set_defaults(run=lazy("heim_tunnel.doctor"))


def _add_login_host(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "login_host",
        metavar="LOGIN_HOST",
        nargs="?",
        help="host[:port] to sign in at [HEIM_LOGIN; default: the one you are signed in to]",
    )


def _add_sign_in(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", action="store_true", help="show a code to type on another machine"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, open no browser"
    )


def _add_token_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        default=os.environ.get("HEIM_TOKEN_FILE") or None,
        help="a service token; nobody is asked to sign in then [HEIM_TOKEN_FILE]",
    )


def _add_way(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        default=os.environ.get("HEIM_CA_FILE") or None,
        help="authorities to trust instead of the system's, PEM [HEIM_CA_FILE]",
    )
    parser.add_argument(
        "--connect-to",
        metavar="HOST:PORT",
        help="connect there instead of where the name says; TLS still verifies the name",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="tell every step on standard error"
    )


def _seconds(text: str) -> float:
    if text.isascii() and text.isdigit() and int(text) <= 24 * 3600:
        return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds up to a day")
