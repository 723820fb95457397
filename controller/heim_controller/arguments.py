"""The arguments of `heim-controller` and the commands they lead to.

A command is `command` of its module: it takes the arguments, and returns the exit status or raises
Complaint. The documentation is checked against `build_parser`.
"""

from __future__ import annotations

import argparse
import os
from typing import Final

from heim_runtime.commands import Commands, add_command, lazy

__all__ = ["ENVIRONMENT", "build_parser"]

ENVIRONMENT: Final = (
    "HEIM_CONTROLLER_CLUSTER_DOMAIN",
    "HEIM_CONTROLLER_CONFIG_MAP",
    "HEIM_CONTROLLER_DOMAIN",
    "HEIM_CONTROLLER_HEALTH_ADDRESS",
    "HEIM_CONTROLLER_INGRESS_WITHOUT_CLASS",
    "HEIM_CONTROLLER_LEASE_DURATION",
    "HEIM_CONTROLLER_LOGIN_HOST",
    "HEIM_CONTROLLER_PROVIDERS",
    "HEIM_CONTROLLER_PROXY",
    "HEIM_CONTROLLER_PROXY_STATUS_URL",
    "HEIM_CONTROLLER_PUBLISH_ADDRESSES",
    "HEIM_CONTROLLER_PUBLISH_SERVICE",
    "HEIM_CONTROLLER_SECRETS",
    "HEIM_CONTROLLER_SECRETS_NAMESPACES",
    "HEIM_CONTROLLER_SERVICE_ACCOUNTS",
    "HEIM_LOG_LEVEL",
    "KUBECONFIG",
    "POD_NAME",
)
"""What changes the behaviour of heim-controller; a test holds the reference to it."""

_EXAMPLES: Final = """\
examples:
  heim-controller run --proxy heim/heim --domain x.example.com
  heim-controller translate --domain x.example.com --from ingress.yaml service.yaml

exit status: 0 done, 1 failed (run: leadership lost; translate: something would not be served),
2 usage, 69 no API server to speak to, 70 a bug, 130 Ctrl-C
"""


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    parser = argparse.ArgumentParser(
        prog="heim-controller",
        description="Turns Ingresses and the kinds of heim.dev into the configuration of a Heim "
        "proxy in the same cluster.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_run(commands)
    _add_translate(commands)
    _add_version(commands)
    return parser


def _add_run(commands: Commands[argparse.ArgumentParser]) -> None:
    run = add_command(
        commands,
        "run",
        "follow the cluster and keep the proxy's configuration up to date",
        "Follow Ingresses, Services, Secrets and our own kinds, and write what follows from them: "
        "the configuration document, copies of TLS Secrets, status and Events. Of several "
        "replicas one writes. Until SIGTERM or Ctrl-C. Logs go to standard error, as JSON where "
        "that is no terminal.",
        "heim-controller run --proxy heim/heim --domain x.example.com",
    )
    _add_installation(run, required=True)
    run.add_argument(
        "--config-map",
        metavar="NAME",
        help="the ConfigMap to write, in the Proxy's namespace [HEIM_CONTROLLER_CONFIG_MAP; "
        "default: heim-configuration]",
    )
    run.add_argument(
        "--proxy-status-url",
        metavar="URL",
        help="the proxy's /status, to see what it has in force [HEIM_CONTROLLER_PROXY_STATUS_URL]",
    )
    _add_publishing(run)
    run.add_argument(
        "--lease-duration",
        metavar="SECONDS",
        help="how long another replica waits for a leader that is silent "
        "[HEIM_CONTROLLER_LEASE_DURATION; default: 15]",
    )
    run.add_argument(
        "--health-address",
        metavar="HOST:PORT",
        help="where /livez, /readyz and /metrics are served "
        "[HEIM_CONTROLLER_HEALTH_ADDRESS; default: 127.0.0.1:9441]",
    )
    run.add_argument(
        "--log-level",
        metavar="LEVEL",
        choices=("debug", "info", "warning", "error"),
        default=os.environ.get("HEIM_LOG_LEVEL") or "info",
        help="debug, info, warning or error [HEIM_LOG_LEVEL; default: info]",
    )
    run.set_defaults(run=lazy("heim_controller.run"))


def _add_publishing(run: argparse.ArgumentParser) -> None:
    """What is written into Ingresses, and which Secrets are read for them."""
    run.add_argument(
        "--publish-service",
        metavar="NAMESPACE/NAME",
        help="the Service whose addresses are written into the status of Ingresses "
        "[HEIM_CONTROLLER_PUBLISH_SERVICE]",
    )
    run.add_argument(
        "--publish-address",
        metavar="ADDRESS",
        action="append",
        help="an address or host name to write instead; may be repeated "
        "[HEIM_CONTROLLER_PUBLISH_ADDRESSES]",
    )
    run.add_argument(
        "--secrets",
        metavar="MODE",
        choices=("namespaces", "cluster", "none"),
        help="where TLS Secrets may be read, beside the Proxy's own namespace "
        "[HEIM_CONTROLLER_SECRETS; default: namespaces]",
    )
    run.add_argument(
        "--secrets-namespace",
        metavar="NAMESPACE",
        action="append",
        help="one of those namespaces; may be repeated [HEIM_CONTROLLER_SECRETS_NAMESPACES]",
    )


def _add_translate(commands: Commands[argparse.ArgumentParser]) -> None:
    translate = add_command(
        commands,
        "translate",
        "show what manifests would become, without a cluster",
        "Read Kubernetes manifests (YAML or JSON, lists too) and print the configuration document "
        "that would be made of them; what cannot be served, and what to do about it, goes to "
        "standard error. Nothing is sent anywhere. Without an IngressClass of ours among them, "
        "every class that the Ingresses name is taken for ours: to see what Ingresses of another "
        "controller would become. Exit status 1 when something would not be served.",
        "kubectl get ingress,service,endpointslice -A -o yaml | \\\n"
        "    heim-controller translate --domain x.example.com --from -",
    )
    translate.add_argument(
        "--from",
        dest="files",
        metavar="FILE",
        nargs="+",
        required=True,
        help="manifests; - for standard input",
    )
    translate.add_argument(
        "--ingress-class",
        metavar="NAME",
        action="append",
        help="take this class for ours instead; may be repeated",
    )
    translate.add_argument(
        "--json", action="store_true", help="document and diagnostics as one JSON object"
    )
    _add_installation(translate, required=False)
    translate.set_defaults(run=lazy("heim_controller.offline"))


def _add_version(commands: Commands[argparse.ArgumentParser]) -> None:
    shown = add_command(
        commands, "version", "print the version", "Print the version.", "heim-controller version"
    )
    shown.set_defaults(run=None)


def _add_installation(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """What the proxy's boot configuration says, and a translation needs to know."""
    mark = "" if required else "; default: heim/heim"
    parser.add_argument(
        "--proxy",
        metavar="NAMESPACE/NAME",
        help=f"the Proxy object to serve [HEIM_CONTROLLER_PROXY{mark}]",
    )
    parser.add_argument(
        "--domain",
        metavar="DOMAIN",
        help="the domain that backends live under [HEIM_CONTROLLER_DOMAIN]",
    )
    parser.add_argument(
        "--login-host",
        metavar="HOST",
        help="the host people sign in on [HEIM_CONTROLLER_LOGIN_HOST; default: auth.<domain>]",
    )
    parser.add_argument(
        "--provider",
        metavar="NAME[=DOMAIN,…]",
        action="append",
        help="an identity provider, with the domains it is authoritative for; may be repeated, "
        "in the environment with spaces [HEIM_CONTROLLER_PROVIDERS]",
    )
    parser.add_argument(
        "--service-account",
        metavar="NAME",
        action="append",
        help="a service account of the boot file; may be repeated "
        "[HEIM_CONTROLLER_SERVICE_ACCOUNTS]",
    )
    parser.add_argument(
        "--cluster-domain",
        metavar="DOMAIN",
        help="what the cluster's own names end in [HEIM_CONTROLLER_CLUSTER_DOMAIN; "
        "default: cluster.local]",
    )
    parser.add_argument(
        "--no-ingress-without-class",
        dest="without_class",
        action="store_false",
        default=None,
        help="leave Ingresses alone that name no class, even if one of ours is the default "
        "[HEIM_CONTROLLER_INGRESS_WITHOUT_CLASS; default: true]",
    )
