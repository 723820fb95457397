"""`heim-proxy check`, `init` and `keygen`."""

from __future__ import annotations

import argparse
import sys

from heim_config.template import render_init
from heim_proxy.cli.complain import load_or_complain
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.snapshot import SnapshotError, policy_of, routes_of

__all__ = ["check", "init", "keygen"]


def check(args: argparse.Namespace) -> int:
    """Print what is wrong with a configuration, or that nothing is."""
    config = load_or_complain(args.config)
    if isinstance(config, int):
        return config
    try:
        hosts = routes_of(config).hosts()
        policy_of(config)
    except SnapshotError as error:
        print(f"{args.config}: {error}", file=sys.stderr)
        return 2
    print(
        f"{args.config}: ok: {len(config.backends)} backends on {len(hosts)} hosts, "
        f"{len(config.roles)} roles, {len(config.identity.providers)} identity providers"
    )
    return 0


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
    else:
        print(SigningKeys.generate_pem().decode("ascii"), end="")
    return 0
