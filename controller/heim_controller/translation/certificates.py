"""TLS sections to certificates of the document: which Secret is shown for which name.

A Secret comes from the namespace of the Ingress that names it, and is shown only for hosts that
this namespace may answer on, whatever other names the certificate has: a certificate somebody made
for another's host must never be served for it. A wildcard is for everybody's hosts below it, so one
that the Proxy has a certificate for is always shown from the Proxy's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from heim_controller.translation.context import Context
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.hosts import Owners, parent_wildcard
from heim_controller.translation.merging import Merged, Share
from heim_controller.translation.objects import CertificateFacts, Key, Ref, listed, mapping
from heim_controller.translation.sites import TlsEntry

__all__ = ["Certificates", "choose", "hosts_shown", "mirror_name"]

# Renewal begins at two thirds of the lifetime; with a week left it did not happen.
_EXPIRING_S: Final = 7 * 86400.0
_MAX_NAME_CHARS: Final = 253


@dataclass(slots=True)
class Certificates:
    """What was chosen: entries of `tls.certificates`, the Secrets they need, hosts with TLS."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    secrets: set[Key] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)


def mirror_name(secret: Key) -> str:
    """What a Secret's copy in the Proxy's namespace is called; no two Secrets share one."""
    whole = f"{secret[0]}.{secret[1]}"
    if len(whole) <= _MAX_NAME_CHARS:
        return whole
    # No name that is written out is without a dot.
    return f"long-{hashlib.sha256(whole.encode()).hexdigest()}"


def hosts_shown(document: Mapping[str, Any]) -> frozenset[str]:
    """Hosts that a document has a certificate of their own for."""
    entries = listed(mapping(document.get("tls")).get("certificates"))
    return frozenset(host for entry in entries for host in listed(mapping(entry).get("hosts")))


def choose(merged: Merged, context: Context, now: float | None) -> Certificates:
    """The certificates of a document: those of the Proxy first, the first one being the default."""
    chooser = _Chooser(merged.owners, context, now)
    proxy = context.policy.ref
    for position, secret in enumerate(context.policy.certificates):
        facts = chooser.usable(proxy, secret, f"spec.certificates[{position}]")
        if facts is not None:
            chooser.shared(secret, facts)
    for share in merged.shares:
        for entry in share.site.tls:
            chooser.entry(share, entry)
    return chooser.finish()


class _Chooser:
    """Goes through TLS entries in order of seniority: the first usable Secret of a host stays."""

    def __init__(self, owners: Owners, context: Context, now: float | None) -> None:
        self.found = Certificates()
        self._owners = owners
        self._context = context
        self._now = now
        self._by_host: dict[str, Key] = {}
        # Wildcards that certificates of the Proxy are for.
        self._shared: set[str] = set()

    def shared(self, secret: Key, facts: CertificateFacts) -> None:
        """Take a certificate of the Proxy, for all the names in it."""
        self.found.secrets.add(secret)
        self.found.entries.append({"secret": mirror_name(secret)})
        self._shared.update(name.lower() for name in facts.names if name.startswith("*."))

    def usable(self, ref: Ref, secret: Key, field: str) -> CertificateFacts | None:
        """What is known of a Secret, if it can be served; whatever is wrong with it is said."""
        say = self._context.findings.add
        facts = self._context.objects.certificates.get(secret)
        if facts is None:
            say(ref, "TLSSecretMissing", f"there is no {_named(secret)}", field=field)
            return None
        if facts.problem is not None:
            still = "; the last good certificate is served" if facts.names else ""
            say(ref, "TLSSecretInvalid", f"{_named(secret)}: {facts.problem}{still}", field=field)
        if facts.must_staple:
            say(
                ref, "MustStapleUnsupported", f"{_named(secret)} demands OCSP stapling", field=field
            )
        if not facts.names:
            return None
        if self._now is not None and facts.not_after is not None:
            left = facts.not_after - self._now
            if left <= 0:
                say(ref, "TLSSecretInvalid", f"{_named(secret)} has expired", field=field)
                return None
            if left < _EXPIRING_S:
                # Without the number of days: an Event that changes every day is another Event.
                message = f"{_named(secret)} expires within 7 days"
                say(ref, "CertificateExpiring", message, field=field)
        return facts

    def entry(self, share: Share, entry: TlsEntry) -> None:
        """One entry of an Ingress's TLS section."""
        site = share.site
        hosts, refused = list(entry.hosts), list[str]()
        # Most entries name what the rules name.
        if entry.hosts != share.hosts:
            hosts = self._allowed(share, entry)
            known = frozenset(hosts)
            refused = [host for host in entry.hosts if host not in known and host not in site.hosts]
        if refused:
            message = f"no certificate of namespace {site.namespace} is served for {refused[0]}"
            self._context.findings.add(site.ref, "HostNotOwned", message, field=entry.field)
        self.found.hosts.update(hosts if entry.hosts else share.hosts)
        if not entry.secret or not (hosts or not entry.hosts):
            return
        secret = (site.namespace, entry.secret)
        facts = self.usable(site.ref, secret, entry.field)
        if facts is None:
            return
        # Without hosts an entry stands for those of the rules that the certificate is for.
        wanted = hosts if entry.hosts else share.hosts
        # Both sides may have thousands.
        names = frozenset([name.lower() for name in facts.names])
        good = dict.fromkeys(
            host for host in wanted if host in names or parent_wildcard(host) in names
        )
        missing = [host for host in hosts if host not in good]
        if missing:
            message = f"{_named(secret)} is not for {', '.join(missing[:5])}"
            self._context.findings.add(site.ref, "TLSSecretInvalid", message, field=entry.field)
        for host in good:
            self._by_host.setdefault(host, secret)

    def finish(self) -> Certificates:
        """Add the entries of all hosts, by Secret."""
        by_secret: dict[Key, list[str]] = {}
        for host, secret in self._by_host.items():
            # What covers hosts of others, the login host among them, must not become what one
            # namespace made; the Proxy's is for its hosts just as well.
            if host in self._shared and secret[0] != self._context.policy.namespace:
                continue
            by_secret.setdefault(secret, []).append(host)
        for secret in sorted(by_secret):
            self.found.secrets.add(secret)
            hosts = sorted(by_secret[secret])
            self.found.entries.append({"hosts": hosts, "secret": mirror_name(secret)})
        return self.found

    def _allowed(self, share: Share, entry: TlsEntry) -> list[str]:
        """Hosts of an entry that its namespace may answer on."""
        policy, namespace = self._context.policy, share.site.namespace
        own = frozenset(share.hosts)
        return [host for host in entry.hosts if host in own or (
            host not in share.site.hosts
            and host not in policy.login_hosts
            and policy.may_use(namespace, host)
            and self._owners.may(namespace, host)
        )]  # fmt: skip


def _named(secret: Key) -> str:
    return f"Secret {quoted('/'.join(secret))}"
