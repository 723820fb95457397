"""The kind Proxy: what an installation permits to those who write Ingresses and Backends."""

from __future__ import annotations

from typing import Final

from heim_controller.crds.definition import READY, Column, Kind
from heim_controller.crds.schema import (
    HOST,
    LABEL,
    NAME_CHARS,
    SELECTOR,
    Schema,
    flag,
    listing,
    reference,
    section,
    selector,
    text,
    whole,
    words,
)
from heim_controller.kube.resources import PROXIES

__all__ = ["PROXY"]

# Let's Encrypt puts no more into one certificate.
_MAX_NAMES: Final = 100
_MAX_SUFFIX_RULES: Final = 128
_MAX_CERTIFICATES: Final = 256
_MAX_ROLES: Final = 64

_OBJECT: Final = LABEL.removeprefix("^").removesuffix("$")
_SECRET: Final = rf"^({_OBJECT}/)?[a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?$"
_WILDCARD: Final = rf"^(\*\.)?{HOST.removeprefix('^')}"
_SUFFIX: Final = rf"^(\*?\.)?{HOST.removeprefix('^')}"


def _choice(what: str) -> Schema:
    return section(
        f"Which {what} are served. Default: all.",
        {
            "namespaceSelector": selector("Labels of the namespace they are in."),
            **SELECTOR,
        },
    )


_ISSUER: Final = section(
    "The issuer of cert-manager that a certificate of the Proxy is asked of, for the login host "
    "and for `hosts`. Default: none; then `certificates` names one.",
    {
        "name": text("The issuer's name.", most=NAME_CHARS, least=1, pattern=HOST),
        "kind": text(
            "Its kind. Default: ClusterIssuer.",
            most=63,
            least=1,
            pattern="^[A-Za-z][A-Za-z0-9]*$",
        ),
        "group": text(
            "The API group of its kind. Default: cert-manager.io.",
            most=NAME_CHARS,
            least=1,
            pattern=HOST,
        ),
        "hosts": listing(
            "Further names of the certificate. Wildcards such as *.x.example.com need an issuer "
            "that answers DNS-01.",
            text("A host, or a wildcard.", most=NAME_CHARS, least=1, pattern=_WILDCARD),
            most=_MAX_NAMES - 1,
            unique=True,
        ),
    },
    required=("name",),
)

_SUFFIXES: Final = section(
    "Suffixes for some namespaces.",
    {
        "namespaceSelector": selector("Which namespaces. Default: all."),
        "suffixes": listing(
            "Suffixes that their hosts may have. Borders are dots: example.com is for "
            "example.com and for what is below it.",
            text("A suffix.", most=NAME_CHARS + 2, least=1, pattern=_SUFFIX),
            most=_MAX_NAMES,
            unique=True,
        ),
    },
    required=("suffixes",),
)

_INGRESS: Final = section(
    "What Ingresses and Backends may do.",
    {
        "allowPublic": selector(
            "The namespaces that may do without a login, by their labels; {} is all. Default: none."
        ),
        "allowCatchAll": flag(
            "Permit rules without a host, for what needs no login. Default: false."
        ),
        "hostOwnership": words(
            "Strict: a host belongs to the namespace that named it first. InterNamespaceAllowed: "
            "namespaces share hosts. Default: Strict.",
            "Strict",
            "InterNamespaceAllowed",
        ),
        "hostSuffixes": listing(
            "Which hosts a namespace may name. Once there is an entry, a namespace that none "
            "selects may name no host. Default: any host.",
            _SUFFIXES,
            most=_MAX_SUFFIX_RULES,
        ),
        "externalName": words(
            "Allowed: ExternalName Services, and addresses in Backends of any namespace, are "
            "dialled. Default: Refused.",
            "Refused",
            "Allowed",
        ),
    },
)

PROXY: Final = Kind(
    resource=PROXIES,
    short="hproxy",
    means="An installation of Heim: what it serves, and what it permits.",
    spec=section(
        "What the Proxy serves and permits.",
        {
            "domain": text(
                "The domain that Backends live under. Default: that of the chart.",
                most=NAME_CHARS,
                least=1,
                pattern=HOST,
            ),
            "loginHost": text(
                "The host people sign in on. No object may use it. Default: that of the chart.",
                most=NAME_CHARS,
                least=1,
                pattern=HOST,
            ),
            "certificates": listing(
                "TLS Secrets for all namespaces, as NAMESPACE/NAME or NAME; the first one is for "
                "clients that ask for no name we have. The controller must be allowed to read "
                "them.",
                text("A Secret.", most=2 * NAME_CHARS, least=1, pattern=_SECRET),
                most=_MAX_CERTIFICATES,
                unique=True,
            ),
            "certificateIssuer": _ISSUER,
            "defaultAuth": words(
                "Whether Ingresses without the annotation heim.dev/auth need a login. None is only "
                "for the namespaces of ingress.allowPublic. Default: Required.",
                "Required",
                "None",
            ),
            "defaultRoles": listing(
                "Roles whose members may use an Ingress that names none. Default: nobody.",
                reference("A Role of the Proxy's namespace, or NAMESPACE/NAME."),
                most=_MAX_ROLES,
                unique=True,
            ),
            "maxRouteDropPercent": whole(
                "How many of the routes in force one change may take away. More is not published "
                "until somebody raises this: a mistake in automation would look the same. "
                "Default: no limit.",
                most=100,
            ),
            "backendSelector": _choice("Backends"),
            "roleSelector": _choice("Roles"),
            "ingress": _INGRESS,
        },
    ),
    conditions=(READY, "Accepted", "ResolvedRefs"),
    status={
        "documentHash": text("SHA-256 of the configuration that is published.", most=64),
        "ingresses": whole("How many Ingresses are served."),
        "backends": whole("How many Backends are served."),
        "agents": whole("How many Agents are permitted."),
        "routes": whole("How many routes the proxy has."),
    },
    columns=(
        Column("Domain", ".spec.domain"),
        Column.condition(READY),
        Column("Routes", ".status.routes", kind="integer"),
        Column.reason(READY),
    ),
)
