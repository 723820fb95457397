"""`heim-proxy check`, `init` and `keygen`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path

from heim_config.advice import advice
from heim_config.agents import AgentsCa
from heim_config.files import exposed
from heim_config.layers import combine, read_boot, read_document
from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_config.template import render_init
from heim_proxy.agents.authority import Authority
from heim_proxy.certs.load import CertificateFiles, CertificateProblem
from heim_proxy.certs.load import load as load_certificate
from heim_proxy.cli.complain import complain
from heim_proxy.identity.keys import KeyFileError, KeyRing
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.snapshot import SnapshotError, policy_of, routes_of
from heim_proxy.sources.document import IncompleteError
from heim_proxy.sources.mounted import read_mounted

__all__ = ["check", "init", "keygen"]


def check(args: argparse.Namespace) -> int:
    """Print what is wrong with a configuration, or that nothing is."""
    try:
        config = _both_layers(Path(args.config), args.document)
    except ConfigError as error:
        return complain(error)
    alone = config.source is not None and args.document is None
    try:
        hosts = routes_of(config).hosts()
        policy_of(config)
    except SnapshotError as error:
        print(f"{args.config}: {error}", file=sys.stderr)
        return 2
    unusable = list(_unusable(config))
    # One of our own stands in for those.
    refused = () if config.tls.self_signed else unusable
    problems = [Problem(args.config, None, *found) for found in (*_look_inside(config), *refused)]
    if problems:
        return complain(ConfigError(problems))
    soft = [f"{key}: {reason}" for key, reason in unusable]
    told = (*advice(config), *soft, *exposed(config))
    for line in (*told, *(() if alone else _uncovered(config, hosts))):
        print(f"{args.config}: warning: {line}", file=sys.stderr)
    if alone:
        print(
            f"{args.config}: ok: the boot file alone, with "
            f"{_counted(config.identity.providers, 'identity provider')}; "
            "--document checks the configuration document with it"
        )
        return 0
    print(
        f"{args.config}: ok: {_counted(config.backends, 'backend')} on {_counted(hosts, 'host')}, "
        f"{_counted(config.roles, 'role')}, "
        f"{_counted(config.identity.providers, 'identity provider')}"
    )
    return 0


def _both_layers(path: Path, document: str | None) -> Config:
    """The boot file, with the document in a file or a directory if there is one."""
    boot = read_boot(path)
    if document is None:
        return boot.config
    if boot.source is None:
        hint = "such a file holds all by itself"
        raise ConfigError([Problem(str(path), None, "", "has no source for --document", hint)])
    try:
        whole = Path(document)
        content = read_mounted(whole).content if whole.is_dir() else whole.read_bytes()
    except (OSError, IncompleteError) as error:
        text = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ConfigError([Problem(document, None, "", text)]) from error
    return combine(boot, read_document(content, name=document), name=document)


def _counted(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _uncovered(config: Config, hosts: Sequence[str]) -> Iterator[str]:
    """Hosts that no certificate is for: browsers and heim-tunnel would refuse them."""
    now = time.time()
    names: list[str] = []
    for files in CertificateFiles.listed(config.tls.certificates):
        with contextlib.suppress(CertificateProblem):
            names += load_certificate(files, now=now).shown_for
    if any(certificate.secret is not None for certificate in config.tls.certificates):
        # What they are for is in the cluster.
        return
    for host in (config.login_host, *hosts):
        parent = "*." + host.partition(".")[2]
        if host not in names and parent not in names:
            near = next((name for name in names if _beneath(host, name)), None)
            # The usual surprise with names such as desktop.ssh.x.example.com.
            why = f" ({near} stands for one label: add {parent})" if near is not None else ""
            yield (
                f"tls.certificates: none of them is for {host}{why}; "
                "browsers and heim-tunnel will refuse it"
            )


def _beneath(host: str, name: str) -> bool:
    return name.startswith("*.") and host.endswith(name[1:])


def _look_inside(config: Config) -> Iterator[tuple[str, str]]:
    """Keys and certificates that are there and cannot be used: the key that names them, and why."""
    try:
        if config.session.key_file is not None:
            KeyRing.load(config.session.key_file)
    except KeyFileError as error:
        yield "session.key_file", str(error)
    try:
        if config.assertion is not None and config.assertion.key_file is not None:
            SigningKeys.load(config.assertion.key_file)
    except KeyFileError as error:
        yield "assertion.key_file", str(error)
    if config.agents_ca is not None:
        yield from _look_at_authority(config.agents_ca, config.login_host)


def _unusable(config: Config) -> Iterator[tuple[str, str]]:
    """Certificates that cannot serve: the key that names them, and why."""
    for position, certificate in enumerate(config.tls.certificates):
        for files in CertificateFiles.listed([certificate]):
            try:
                load_certificate(files, now=time.time())
            except CertificateProblem as problem:
                yield f"tls.certificates[{position}]", problem.reason


def _look_at_authority(ca: AgentsCa, login_host: str) -> Iterator[tuple[str, str]]:
    try:
        authority = Authority.load(ca.cert_file, ca.key_file, login_host=login_host)
    except KeyFileError as error:
        yield "agents_ca", str(error)
        return
    if not authority.valid_at(time.time()):
        yield "agents_ca.cert_file", f"{ca.cert_file}: certificate 1 is not valid now"


def init(args: argparse.Namespace) -> int:
    """Print a configuration to start from."""
    try:
        print(render_init(domain=args.domain), end="")
    except ValueError as error:
        print(f"heim-proxy init: --domain: {error}", file=sys.stderr)
        return 2
    print(
        "save it as heim.yaml, make the files it names (heim-proxy keygen session), "
        "then: heim-proxy check --config heim.yaml",
        file=sys.stderr,
    )
    return 0


def keygen(args: argparse.Namespace) -> int:
    """Print new key material."""
    if args.kind == "session":
        print(KeyRing.generate_line())
    elif args.kind == "ca":
        # Certificate and key in one text: agents_ca may name one file twice.
        certificate, key = Authority.generate_pem(now=time.time())
        print((certificate + key).decode("ascii"), end="")
    else:
        print(SigningKeys.generate_pem().decode("ascii"), end="")
    return 0
