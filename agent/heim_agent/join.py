"""`heim-agent join`: become an agent of a proxy, with a join token or by somebody's approval."""

from __future__ import annotations

import argparse
import base64
import binascii
import getpass
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Mapping
from typing import Final

from heim_agent import files
from heim_agent.approval import ask_to_be_let_in
from heim_agent.complaints import clean, say
from heim_agent.exchange import Host, Reply, post
from heim_agent.identity import Identity
from heim_agent.install import UNIT_FILE
from heim_agent.key import AgentKey
from heim_agent.places import SYSTEM_CONFIG, Places
from heim_agent.targets import is_agent_name, is_name
from heim_runtime.complaints import AUTH, FAILED, OK, Complaint, UsageError
from heim_runtime.version import version
from heim_wire.agents import JOIN_PATH

__all__ = ["command"]

# heim_jt_<id>_<secret>, base64url: anything else is sent to nobody.
_TOKEN: Final = re.compile(r"heim_jt_[A-Za-z0-9_-]{8,200}", re.ASCII)
# The key of an attempt that has not come to its end.
_JOINING: Final = "joining.pem"
_TOKEN_FILE_BYTES: Final = 4096
_AUTHORITIES_BYTES: Final = files.FILE_BYTES
_PEM: Final = b"-----BEGIN CERTIFICATE-----"
_DEVICE_BYTES: Final = 64


def command(args: argparse.Namespace, places: Places) -> int:
    """Join, save, and say what comes next."""
    host = Host(args.url, ca_file=args.ca_file, connect_to=args.connect_to)
    authorities = _authorities(args.ca_file)
    if args.name is not None and not is_agent_name(args.name):
        raise UsageError(
            f"--name: {clean(args.name, 80)!r} cannot be an agent's name, which has lower-case "
            "letters, digits, and inner hyphens and dots"
        )
    token = _token(args.token_file, os.environ)
    files.make_directory(places.seed, mode=places.seed_mode)
    with files.Lock(places.seed):
        key = _key(places)
        if token is not None:
            reply = _with_token(host, token, key)
        else:
            name = args.name or _own_name()
            say(f"this machine's key is {key.fingerprint}")
            reply = ask_to_be_let_in(host, name, key, device=_device())
        identity = _identity(reply, host, key, places)
        identity.save_joined(authorities)
        os.unlink(f"{places.seed}/{_JOINING}")
    if args.name not in (None, identity.agent):
        say(f"the token is for the name {identity.agent}, so that is who this machine is")
    _tell(identity, reply, places)
    return OK


def _device() -> str:
    """What this machine calls itself, for whoever looks at a list of agents."""
    return clean(socket.gethostname(), _DEVICE_BYTES)


def _with_token(host: Host, token: str, key: AgentKey) -> Reply:
    reply = post(
        host,
        JOIN_PATH,
        {
            "token": token,
            "csr": base64.b64encode(key.request()).decode("ascii"),
            "device": _device(),
            "version": version(),
        },
    )
    if reply.status != 200:
        raise reply.refusal()
    return reply


def _identity(reply: Reply, host: Host, key: AgentKey, places: Places) -> Identity:
    """What the login host made of us, if it is that.

    Raises:
        Complaint: It is something else.
    """
    agent, login_url = reply.text("agent"), reply.text("login_url")
    if not is_agent_name(agent):
        raise reply.nonsense("a name that is none")
    # Where the lane goes and who signs is taken from here: not from another host's word.
    if not (host.is_at(login_url) or (host.is_plain and login_url.startswith("https://"))):
        raise Complaint(
            f"{host.name} says that its login host is {clean(login_url, 200)}; if that is right, "
            "join there",
            AUTH,
        )
    try:
        certificate = base64.b64decode(reply.text("certificate"), validate=True)
        return Identity(
            agent=agent,
            login_url=login_url.rstrip("/"),
            key=key,
            certificate=certificate,
            roots=reply.document.get("roots", ()),  # type: ignore[arg-type]  # checked there
            places=places,
        )
    except (ValueError, binascii.Error) as e:
        raise reply.nonsense(str(e)) from e


def _token(path: str | None, environ: Mapping[str, str]) -> str | None:
    """The join token that a file, standard input or the environment holds; None without one.

    Raises:
        UsageError: There is no token in it. What is there is not repeated.
    """
    if path is None:
        text, where = environ.get("HEIM_JOIN_TOKEN", ""), "HEIM_JOIN_TOKEN"
        if not text:
            return None
    elif path == "-":
        text, where = _typed(), "standard input"
    else:
        where = f"the file {path}"
        try:
            with open(os.path.expanduser(path), "rb") as file:
                text = file.read(_TOKEN_FILE_BYTES).decode("latin-1")
        except OSError as e:
            raise UsageError(f"cannot read {where}: {e.strerror}") from e
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"{where} holds no join token (heim_jt_...); whoever runs the proxy makes one with: "
            "heim-proxy agent token create NAME"
        )
    return token


def _typed() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        return getpass.getpass("join token: ", sys.stderr)
    return sys.stdin.read(_TOKEN_FILE_BYTES)


def _authorities(path: str | None) -> bytes | None:
    """The authorities of `--ca-file`, to be kept beside the identity: the file may move."""
    if path is None:
        return None
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(_AUTHORITIES_BYTES + 1)
    except OSError as e:
        raise UsageError(f"cannot read the CA file {path}: {e.strerror}") from e
    if _PEM not in data or len(data) > _AUTHORITIES_BYTES:
        raise UsageError(f"{path} holds no PEM certificate, or is longer than 256 KiB")
    return data


def _key(places: Places) -> AgentKey:
    """The key to join with, written down before it is used.

    If the answer is lost, or cannot be kept, the proxy has enrolled a key that this machine still
    has: the next attempt uses it again, and another token is enough.

    Raises:
        Complaint: It cannot be written; nothing was sent.
    """
    path = f"{places.seed}/{_JOINING}"
    pem = files.read(path, secret=True)
    if pem is not None:
        try:
            return AgentKey.from_pem(pem)
        except ValueError:
            # Half of one, of a machine that lost its power.
            os.unlink(path)
    key = AgentKey.generate()
    try:
        files.write((path, key.to_pem(), 0o600))
    except OSError as e:
        text = f"cannot write to {places.seed}: {e.strerror}; nothing was sent"
        raise Complaint(text, FAILED) from e
    return key


def _own_name() -> str:
    """The name to ask for: what this machine is called, up to the first dot."""
    name = socket.gethostname().partition(".")[0].lower().replace("_", "-")
    if not is_name(name):
        raise UsageError("give the agent's name with --name, as the proxy's configuration has it")
    return name


def _given(places: Places) -> str:
    """The options that `run` needs to find what was joined here; empty for the usual places."""
    usual = Places.find(os.environ)
    options = []
    if places.config != usual.config:
        options.append(f" --config {shlex.quote(places.config)}")
    if places.state != usual.state:
        options.append(f" --state {shlex.quote(places.state)}")
    return "".join(options)


def _tell(identity: Identity, reply: Reply, places: Places) -> None:
    """Say who we are now, and what to do next."""
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(identity.expires))
    say(f"joined {identity.login_url} as agent {identity.agent}; key {identity.key.fingerprint}")
    say(f"its certificate is good until {until} and is renewed by itself")
    told = reply.document.get("targets")
    named = [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
    targets = [one for one in named if is_name(one)][:20]
    given = _given(places)
    run = f"heim-agent run{given}, or as a service: heim-agent install --write{given}"
    if places.seed == SYSTEM_CONFIG and os.path.exists(UNIT_FILE):
        run = "systemctl restart heim-agent"
    if os.path.exists(places.config):
        say(f"next: {run}")
        return
    say(
        f"next: write into {places.config} where the targets are that the proxy knows of "
        f"({', '.join(targets) or 'none yet'}), such as"
    )
    example = "\n".join(
        f'    [targets.{one}]\n    address = "127.0.0.1:{22 if "ssh" in one else 8080}"\n'
        for one in targets[:3] or ["ssh"]
    )
    sys.stderr.write(f"\n{example}\n")
    sys.stderr.flush()
    say(f"then: {run}")
