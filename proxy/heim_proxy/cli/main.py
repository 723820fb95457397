"""The arguments of `heim-proxy` and the commands they lead to.

stdout is data, stderr is talk. Exit status 0 is done, 1 failed (for `explain`: refused), 2 wrong
usage or an unusable configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from heim_proxy.cli.agent_arguments import add_agent
from heim_proxy.cli.arguments import add_action, add_config
from heim_runtime.commands import Commands, add_command, lazy
from heim_runtime.extras import MissingExtraError, require
from heim_runtime.version import version

__all__ = ["build_parser", "main"]

_EXAMPLES: Final = """\
examples:
  heim-proxy demo                        look at it: no configuration, no Google, no root
  heim-proxy init --domain x.example.com > heim.yaml
  heim-proxy keygen session > session.keys
  heim-proxy check --config heim.yaml
  heim-proxy run --config heim.yaml
  heim-proxy certs check --config heim.yaml wiki.x.example.com
  heim-proxy explain --config heim.yaml --as alice@example.com GET https://grafana.x.example.com/
  heim-proxy session list --config heim.yaml
  heim-proxy token create backup --config heim.yaml > backup.token
  heim-proxy agent token create office --config heim.yaml
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = build_parser().parse_args(argv)
    try:
        require("heim-proxy", "proxy", "aiohttp", "httptools", "pydantic", "yaml", "cryptography")
    except MissingExtraError as error:
        print(error, file=sys.stderr)
        return 1
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except BrokenPipeError:
        # `heim-proxy explain … | head`: the reader has seen enough. Python would complain again
        # when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Every command with its flags; documentation is checked against it."""
    parser = argparse.ArgumentParser(
        prog="heim-proxy",
        description="An identity-aware proxy: single sign-on and policy in front of what you run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"heim-proxy {version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_check(commands)
    _add_certs(commands)
    _add_init(commands)
    _add_keygen(commands)
    _add_explain(commands)
    _add_session(commands)
    _add_subject(commands)
    _add_token(commands)
    add_agent(commands)
    _add_demo(commands)
    return parser


def _add_run(commands: Commands[argparse.ArgumentParser]) -> None:
    run = add_command(
        commands,
        "run",
        "serve, in the foreground",
        "Serve in the foreground. SIGTERM drains, SIGHUP reloads the configuration and reopens the "
        "access log. Logs go to stderr, the access log to stdout, both as JSON.",
        "heim-proxy run --config heim.yaml",
    )
    add_config(run)
    run.add_argument(
        "--access-log",
        metavar="FILE",
        default=os.environ.get("HEIM_ACCESS_LOG", "-"),
        help="file of the access log, or - for stdout [HEIM_ACCESS_LOG; -]",
    )
    run.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=os.environ.get("HEIM_LOG_LEVEL", "info"),
        help="what is logged [HEIM_LOG_LEVEL; info]",
    )
    run.set_defaults(run=lazy("heim_proxy.cli.serve", "run"))


def _add_check(commands: Commands[argparse.ArgumentParser]) -> None:
    check = add_command(
        commands,
        "check",
        "say what is wrong with a configuration",
        "Report every mistake of a configuration at once, each with file, line and what to do. "
        "Files it names are looked at, nothing is contacted. Of a configuration with a source, the "
        "boot file alone is checked, or both layers with --document.",
        "heim-proxy check --config heim.yaml",
        "heim-proxy check --config boot.yaml --document document.json",
    )
    add_config(check)
    check.add_argument(
        "--document",
        metavar="FILE",
        help="the configuration document: a JSON file, or the directory where it is mounted",
    )
    check.set_defaults(run=lazy("heim_proxy.cli.configure", "check"))


def _add_certs(commands: Commands[argparse.ArgumentParser]) -> None:
    certs = add_command(
        commands,
        "certs",
        "say which certificate is served",
        "Say which certificate is served for a host, and whether it is the right one.",
    )
    actions = certs.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = add_command(
        actions,
        "check",
        "compare what is served for a host with the configuration",
        "Shake hands with a proxy and look at the certificate that it shows for a host: its names, "
        "when it ends, and whether it is the one in the files that the configuration names. Exit "
        "status 0 when all is well, 1 when not.",
        "heim-proxy certs check --config heim.yaml wiki.x.example.com",
        "heim-proxy certs check --config heim.yaml wiki.x.example.com --connect 192.0.2.7:443",
    )
    add_config(check)
    check.add_argument("host", metavar="HOST", help="the name to ask for")
    check.add_argument(
        "--connect",
        metavar="HOST:PORT",
        help="where to ask; default: the https listener of the configuration, on this machine",
    )
    check.set_defaults(run=lazy("heim_proxy.cli.certs", "check_certificate"))


def _add_init(commands: Commands[argparse.ArgumentParser]) -> None:
    init = add_command(
        commands,
        "init",
        "print a commented configuration to start from",
        "Print a commented configuration for a domain.",
        "heim-proxy init --domain x.example.com > heim.yaml",
    )
    init.add_argument(
        "--domain",
        default=os.environ.get("HEIM_DOMAIN", "x.example.com"),
        help="the domain your backends live under [HEIM_DOMAIN; x.example.com]",
    )
    init.set_defaults(run=lazy("heim_proxy.cli.configure", "init"))


def _add_keygen(commands: Commands[argparse.ArgumentParser]) -> None:
    keygen = add_command(
        commands,
        "keygen",
        "print new key material",
        "Print new key material on stdout. session: one line for session.key_file (put a new one "
        "first, keep the old ones below while cookies live). assertion: a PEM key for "
        "assertion.key_file. ca: an authority for agents, certificate and key in PEM, for both "
        "files of agents_ca.",
        "(umask 077; heim-proxy keygen session > session.keys)",
    )
    keygen.add_argument("kind", choices=("session", "assertion", "ca"))
    keygen.set_defaults(run=lazy("heim_proxy.cli.configure", "keygen"))


def _add_explain(commands: Commands[argparse.ArgumentParser]) -> None:
    explain = add_command(
        commands,
        "explain",
        "say who may do what, and why",
        "Say what the policy decides about a request, which rule decides and what would change it. "
        "Exit status 0 when it is allowed, 1 when refused.",
        "heim-proxy explain --as bob@example.com POST https://wiki.x.example.com/page",
        "heim-proxy explain --as service:backup CONNECT desktop.ssh.x.example.com",
    )
    add_config(explain)
    explain.add_argument(
        "--as",
        dest="who",
        metavar="WHO",
        required=True,
        help="an e-mail address, or service:NAME for a service account",
    )
    explain.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME",
        help="a group the person is in; may be given several times",
    )
    explain.add_argument("--provider", metavar="NAME", help="who vouches for the person")
    explain.add_argument("method", metavar="METHOD", help="GET, POST, …; CONNECT for tcp")
    explain.add_argument(
        "url",
        metavar="URL",
        help="the address, such as https://app.example.com/; for CONNECT a host",
    )
    explain.set_defaults(run=lazy("heim_proxy.cli.explain", "explain"))


def _add_session(commands: Commands[argparse.ArgumentParser]) -> None:
    session = add_command(
        commands,
        "session",
        "list or revoke sessions",
        "List or revoke sessions in the state of a configuration. A running proxy notices a "
        "revocation within 2 seconds and ends its streams.",
        "heim-proxy session list --config heim.yaml",
        "heim-proxy session revoke --config heim.yaml --user bob@example.com",
    )
    actions = session.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_action(
        actions, "list", "who is signed in", lazy("heim_proxy.cli.state", "list_sessions")
    )
    listing.add_argument("--user", metavar="EMAIL", help="only this person's")
    listing.add_argument("--all", action="store_true", help="those that have ended, too")
    revoke = add_action(
        actions, "revoke", "end sessions", lazy("heim_proxy.cli.state", "revoke_sessions")
    )
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", metavar="ID", help="a session's id, as `list` shows it")
    which.add_argument("--user", metavar="EMAIL", help="every session of this person")
    which.add_argument(
        "--everybody",
        action="store_true",
        help="every session there is, those of programs and agents too",
    )


def _add_subject(commands: Commands[argparse.ArgumentParser]) -> None:
    subject = add_command(
        commands,
        "subject",
        "list or unpin the accounts behind e-mail addresses",
        "The first account seen with an e-mail address is pinned to it; another one with the same "
        "address is refused until it is unpinned here.",
        "heim-proxy subject unpin --config heim.yaml bob@example.com",
    )
    actions = subject.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_action(
        actions,
        "list",
        "which account each address is pinned to",
        lazy("heim_proxy.cli.state", "list_subjects"),
    )
    unpin = add_action(
        actions,
        "unpin",
        "let the next account with the address in",
        lazy("heim_proxy.cli.state", "unpin_subject"),
    )
    unpin.add_argument("email", metavar="EMAIL")


def _add_token(commands: Commands[argparse.ArgumentParser]) -> None:
    token = add_command(
        commands,
        "token",
        "create, list or revoke the tokens of service accounts",
        "Tokens by which programs prove that they act for a service account of the configuration. "
        "A running proxy notices within 2 seconds.",
        "heim-proxy token create backup --config heim.yaml > backup.token",
        "heim-proxy token revoke --config heim.yaml --account backup",
    )
    actions = token.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = add_action(
        actions, "create", "print a new token, once", lazy("heim_proxy.cli.token", "create_token")
    )
    create.add_argument("account", metavar="NAME", help="a name under service_accounts")
    create.add_argument(
        "--expires",
        metavar="TIME",
        default="90d",
        help="how long it is good, such as 12h or 365d, or never [; 90d]",
    )
    listing = add_action(
        actions,
        "list",
        "which tokens there are, and when they were used",
        lazy("heim_proxy.cli.token", "list_tokens"),
    )
    listing.add_argument("--all", action="store_true", help="those that have ended, too")
    revoke = add_action(
        actions, "revoke", "end tokens", lazy("heim_proxy.cli.token", "revoke_tokens")
    )
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", metavar="ID", help="a token's id, as `list` shows it")
    which.add_argument("--account", metavar="NAME", help="every token of this service account")


def _add_demo(commands: Commands[argparse.ArgumentParser]) -> None:
    demo = add_command(
        commands,
        "demo",
        "look at Heim on this machine, without any configuration",
        "Serve a demo on loopback with its own identity provider and application. Ends with Ctrl-C "
        "and leaves nothing behind.",
        "heim-proxy demo",
    )
    demo.add_argument(
        "--port",
        type=_port,
        default=os.environ.get("HEIM_DEMO_PORT", "8443"),
        help="the https port people would like [HEIM_DEMO_PORT; 8443]",
    )
    demo.add_argument(
        "--dir",
        metavar="DIR",
        default=os.environ.get("HEIM_DEMO_DIR"),
        help="keep configuration, keys and certificates here [HEIM_DEMO_DIR]",
    )
    demo.add_argument(
        "--ssh",
        action="store_true",
        help="let alice reach this machine's own sshd (127.0.0.1:22) through the tunnel",
    )
    demo.set_defaults(run=lazy("heim_proxy.cli.serve", "demo"))


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port")
