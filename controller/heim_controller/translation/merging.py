"""What all sites ask for, compared: which rule of a host answers, and whose it is.

The older object wins a host and path; under strict ownership a namespace answers on its own hosts
only. Nothing here depends on the order in which objects came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from heim_controller.translation.context import Context
from heim_controller.translation.hosts import Owners
from heim_controller.translation.sites import Rule, Site, Target

__all__ = ["Merged", "Share", "merge"]

_NO_PLACE: Final = (-1, -1)


@dataclass(slots=True, eq=False)
class Share:
    """What a site got: the rules that answer, by host, and the hosts of its streams."""

    site: Site
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """Everybody's share, in order of seniority, and whose each host is."""

    shares: Sequence[Share]
    owners: Owners


def merge(sites: Sequence[Site], before: Mapping[str, str], context: Context) -> Merged:
    """Decide who answers what.

    Args:
        sites: In order of seniority.
        before: Which namespace each host belonged to.
        context: For permissions and findings.
    """
    owners = Owners(
        ((host, site.ref.namespace, site.seniority) for site in sites for host in site.hosts),
        before,
    )
    shares = [Share(site) for site in sites]
    table = _Table(context)
    for share in shares:
        share.hosts = tuple(_own_hosts(share.site, owners, context))
        table.add(share)
    for share in shares:
        if share.site.fallback is not None:
            table.add_rest(share, share.site.fallback)
    # Last, so that what is broken of one object displaces nothing of another.
    for share in shares:
        if share.site.closures:
            table.add_closures(share)
    table.distribute()
    return Merged(shares, owners)


def _own_hosts(site: Site, owners: Owners, context: Context) -> list[str]:
    namespace, named = site.ref.namespace, owners.hosts
    if not context.policy.strict or all(named[host] == namespace for host in site.hosts):
        return list(site.hosts)
    found = []
    for host in site.hosts:
        if owners.may(site.namespace, host):
            found.append(host)
        else:
            message = f"{host} belongs to namespace {owners.owner(host)}"
            context.findings.add(site.ref, "HostNotOwned", message)
    return found


class _Table:
    """The rules of every host, by what two of them cannot share."""

    def __init__(self, context: Context) -> None:
        self._say = context.findings.add
        self._hosts: dict[str, dict[str, tuple[Share, Rule]]] = {}
        self._streams: dict[str, Share] = {}

    def add(self, share: Share) -> None:
        """The ordinary rules and the streams of a site."""
        site = share.site
        own = frozenset(share.hosts)
        for rule in site.rules:
            if rule.host not in own:
                continue
            rules = self._hosts.setdefault(rule.host, {})
            winner = rules.setdefault(rule.identity, (share, rule))
            if winner[1] is not rule:
                message = f"{rule.host}{rule.path} ({rule.match}) is {winner[0].site.ref}'s"
                self._say(site.ref, "HostPathConflict", message, field=site.field_of(rule))
        if site.tcp is not None:
            for host in share.hosts:
                if self._streams.setdefault(host, share) is share:
                    share.streams.append(host)
                else:
                    message = f"tcp of {host} is {self._streams[host].site.ref}'s"
                    self._say(site.ref, "HostPathConflict", message)

    def add_rest(self, share: Share, fallback: Target) -> None:
        """A default backend: what no rule of a host covers, the oldest one's."""
        for host in share.hosts:
            self._offer(share, host, "/", fallback)

    def add_closures(self, share: Share) -> None:
        """Paths that answer 503 where nobody has them."""
        reason = share.site.closed or "InvalidPath: there is a rule here that cannot be served"
        own = frozenset(share.hosts)
        for host, path in share.site.closures:
            if host in own:
                self._offer(share, host, path, Target(unavailable=reason))

    def _offer(self, share: Share, host: str, path: str, target: Target) -> None:
        # Without escapes, so that it is its own identity.
        rule = Rule(host, path, "prefix", path, target, _NO_PLACE)
        self._hosts.setdefault(host, {}).setdefault(path, (share, rule))

    def distribute(self) -> None:
        """Give every share the rules that it won."""
        for host, rules in self._hosts.items():
            for share, rule in rules.values():
                share.rules.setdefault(host, []).append(rule)
