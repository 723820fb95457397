"""Why something of an object is not served as asked: every reason, what it means, what to do.

Events and conditions carry the reason; `docs/reference/kubernetes-mapping.md` is generated from
this table.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["REASONS", "Meaning", "Severity"]


class Severity(enum.Enum):
    """How much is lost: INFO nothing, WARNING something that was asked for, ERROR a whole rule.

    After an ERROR the rule answers 503, or is not there where nothing broader could answer in its
    place.
    """

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason stands for and what to do about it, a sentence each.

    `reference` says that what the object points at is missing or unusable, rather than that the
    object itself is wrong: the condition ResolvedRefs instead of Accepted.
    """

    severity: Severity
    means: str
    remedy: str
    reference: bool = False


def _error(means: str, remedy: str) -> Meaning:
    return Meaning(Severity.ERROR, means, remedy)


def _warning(means: str, remedy: str) -> Meaning:
    return Meaning(Severity.WARNING, means, remedy)


def _dangling(means: str, remedy: str, severity: Severity = Severity.ERROR) -> Meaning:
    return Meaning(severity, means, remedy, reference=True)


REASONS: Final[Mapping[str, Meaning]] = {
    # Hosts and paths.
    "HostPathConflict": _error(
        "An older object has the same host and path, or the same host for tcp.",
        "Choose another path or host, or delete the other object, which the message names.",
    ),
    "HostNotOwned": _error(
        "The host belongs to another namespace, whose object named it, or a wildcard over it, "
        "first.",
        "Choose another host, move the object to that namespace, or set the Proxy's "
        "`ingress.hostOwnership: InterNamespaceAllowed`.",
    ),
    "HostNotAllowed": _error(
        "The host ends in none of the suffixes that the object's namespace may use.",
        "Choose a host under one of them, or extend the Proxy's `ingress.hostSuffixes` or the "
        "namespace's annotation `heim.dev/host-suffixes`.",
    ),
    "LoginHostClaimed": _error(
        "The host is the one people sign in on, which is never anybody else's.",
        "Choose another host.",
    ),
    "InvalidHost": _error(
        "The host is not a DNS name, or * is not its whole first label.",
        "Write app.example.com or *.example.com.",
    ),
    "InvalidPath": _error(
        "The path cannot be served: a regular expression, an encoded slash, a dot segment, or "
        "something below /.heim. Requests below the part of it that is clear answer 503.",
        "Write a path with pathType Prefix or Exact.",
    ),
    "CatchAllNotAllowed": _error(
        "A rule without host, or an Ingress with nothing but a default backend, answers for every "
        "host that nobody else has. That needs the Proxy's permission, and nobody can sign in on "
        "such hosts.",
        "Name the hosts; or set the Proxy's `ingress.allowCatchAll: true` and `heim.dev/auth: "
        "none` on the Ingress.",
    ),
    "NoBackend": _error(
        "A rule says neither where requests go nor is there a default backend.",
        "Give the rule a path with a backend, or the Ingress a `defaultBackend`.",
    ),
    # Where requests go.
    "ServiceNotFound": _dangling(
        "There is no such Service in the object's namespace; its requests answer 503.",
        "Create the Service, or correct the name. Services of other namespaces cannot be used.",
    ),
    "PortNotFound": _dangling(
        "The Service has no TCP port of this number or name. Numbers are those of the Service, "
        "not of its pods.",
        "Correct the port.",
    ),
    "NoEndpoints": _dangling(
        "The Service has no endpoint that is ready; its requests answer 503.",
        "See why its pods are not ready: kubectl get pods, kubectl get endpointslices.",
        Severity.WARNING,
    ),
    "EndpointNotAllowed": _dangling(
        "An endpoint of the Service is an address of the proxy's own machine, a link-local or a "
        "multicast one, of a metadata service, of the API server, or of the Proxy's namespace. It "
        "is left out; what goes by the Service's own name answers 503.",
        "Remove the address from the EndpointSlice.",
    ),
    "ExternalNameNotAllowed": _dangling(
        "The Service is an ExternalName, which leads anywhere; or its name leads into the cluster "
        "or to the machine itself.",
        "Use a Service with endpoints, or set the Proxy's `ingress.externalName: Allowed`. Names "
        "of the cluster are refused even then.",
    ),
    "AddressNotAllowed": _error(
        "A Backend outside of the Proxy's namespace names an address; or the address is one of "
        "the proxy's own machine, link-local, or a name of the cluster.",
        "Point at a Service, or let an administrator create the Backend in the Proxy's namespace.",
    ),
    "UnsupportedBackend": _error(
        "The backend is of a kind that is not spoken: a `resource`, HTTP/2 or gRPC only.",
        "Use a Service that speaks HTTP/1.1.",
    ),
    "AgentNotFound": _dangling(
        "There is no such Agent in the Backend's namespace, or it is not accepted.",
        "Create the Agent, or correct the name.",
    ),
    "TargetNotFound": _dangling(
        "The Agent has no such target in its `spec.targets`.",
        "Add the target, or correct the name.",
    ),
    # Certificates.
    "TLSSecretMissing": _dangling(
        "The Secret of a TLS section does not exist, or the controller may not read it. While "
        "cert-manager waits for a certificate this is normal. A certificate of the proxy's own is "
        "served.",
        "Look at the Certificate: kubectl describe certificate. Otherwise check the name, and "
        "`rbac.secrets` of the chart.",
        Severity.WARNING,
    ),
    "TLSSecretInvalid": _dangling(
        "The Secret holds no usable certificate for the host: damaged, expired, of another key, or "
        "for other names. What was last good is served until it expires, else the default.",
        "Renew it; `kubectl get secret NAME -o jsonpath='{.data.tls\\.crt}' | base64 -d | openssl "
        "x509 -noout -text` shows what is in it.",
        Severity.WARNING,
    ),
    "CertificateExpiring": _dangling(
        "The certificate expires within seven days, so whatever should renew it does not.",
        "Look at the Certificate: kubectl describe certificate.",
        Severity.WARNING,
    ),
    "MustStapleUnsupported": _dangling(
        "The certificate demands OCSP stapling, which is not done; browsers may refuse it.",
        "Ask the issuer for one without the extension.",
        Severity.WARNING,
    ),
    "ACMEHostNotOwned": _error(
        "A solver of cert-manager answers for a host of another namespace, so its challenge is not "
        "let through: whoever answers it gets a certificate for the host.",
        "Create the Certificate in the namespace that has the host, or in the Proxy's.",
    ),
    # Who may.
    "NoRoles": _warning(
        "Nobody may use it: it names no role, and the Proxy has no `defaultRoles`. Having signed "
        "in alone would mean any account of the provider.",
        "Add the annotation `heim.dev/roles: NAME`, or set the Proxy's `defaultRoles`.",
    ),
    "RoleNotFound": _dangling(
        "There is no such Role, or the Proxy does not select it; it gives nobody access.",
        "Create the Role, or correct the name; a Role of another namespace is NAMESPACE/NAME.",
        Severity.WARNING,
    ),
    "PublicNotAllowed": _error(
        "`heim.dev/auth: none` (or `auth.mode: None`) needs the Proxy's permission for the "
        "namespace.",
        "Remove it, or let an administrator add the namespace to the Proxy's "
        "`ingress.allowPublic`.",
    ),
    "InvalidSubject": _warning(
        "A subject of a RoleBinding cannot be anybody: it is left out.",
        "Write exactly one of user, group, domain, serviceAccount, as the message says.",
    ),
    "BackendNotFound": _dangling(
        "A Role gives a permission on a Backend that is not there, not accepted, or public.",
        "Create the Backend, or correct the name. A Role gives access to Backends of its own "
        "namespace; those of the Proxy's namespace may write NAMESPACE/NAME.",
        Severity.WARNING,
    ),
    "PermissionNotFound": _dangling(
        "The Backend has no permission of this name, or no tcp.",
        "Add it to the Backend's `spec.permissions`, or correct the name.",
        Severity.WARNING,
    ),
    "CrossNamespaceReference": _warning(
        "Only objects of the Proxy's own namespace may refer to another namespace here; the "
        "reference is ignored.",
        "Refer to an object of the same namespace.",
    ),
    "PrivilegeNotAllowed": _warning(
        "`breakGlass` and `approveAgents` count in the Proxy's own namespace only; here they are "
        "ignored.",
        "Let an administrator create the Role there.",
    ),
    # Annotations and specs.
    "InvalidAnnotation": _error(
        "An annotation of ours is unknown, unreadable or contradicts another one. Everything of "
        "the Ingress answers 503: it may have been meant to protect.",
        "Correct or remove it.",
    ),
    "RestrictionNotKept": _error(
        "An annotation of ingress-nginx restricts who may come, and cannot be kept. Everything of "
        "the Ingress answers 503.",
        "Remove the annotation, and say who may come with roles.",
    ),
    "RoutingNotKept": _error(
        "An annotation of ingress-nginx changes where requests go, and cannot be kept. Everything "
        "of the Ingress answers 503.",
        "Remove the annotation, and write paths with pathType Prefix or Exact.",
    ),
    "UnsupportedAnnotation": _warning(
        "An annotation of ingress-nginx has no effect.",
        "Remove it, or look for what replaces it in the migration guide.",
    ),
    "ReplacedByHeim": Meaning(
        Severity.INFO,
        "An annotation of ingress-nginx asked somebody else to sign people in. That is done here.",
        "Remove it when you do not want to go back.",
    ),
    "InvalidSpec": _error(
        "The object contradicts itself, or a value in it cannot be used.",
        "Correct what the message names.",
    ),
    "InvalidObject": _error(
        "The object is not of the shape that the API promises.",
        "Apply it again; if the API server accepts it, this is a bug of ours.",
    ),
    "TooLarge": _error(
        "The configuration would be larger than can be published, and the object's namespace takes "
        "most of it. Nothing of the namespace is served; its hosts stay its own.",
        "Delete rules, Ingresses or Roles, or spread them over several installations. The message "
        "says how many bytes there are.",
    ),
    "NamespaceLeftOut": _warning(
        "A namespace takes so much of the configuration that the whole could not be published; it "
        "is left out, so that the others are served.",
        "See what the namespace has, and limit it with a ResourceQuota "
        "(`count/ingresses.networking.k8s.io`).",
    ),
    "ProxyNotFound": _warning(
        "The Proxy object that the controller serves does not exist; its defaults are used.",
        "Create it, or correct the controller's `--proxy`.",
    ),
}
