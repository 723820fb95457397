"""`heim-proxy explain`: what the proxy would decide about a request, and why.

It asks the same canonicaliser, routes and policy as the edge, in the same order; a property test
holds the two together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from heim_config.hosts import parse_host
from heim_config.model import Config
from heim_proxy.access.explain import explain as explain_access
from heim_proxy.access.explain import explain_connect
from heim_proxy.access.policy import Allow
from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.cli.complain import load_or_complain
from heim_proxy.edge.head import BadRequest, RequestHead, head_end
from heim_proxy.edge.judge import path_views, upstream_path
from heim_proxy.routing import RESERVED_PREFIX, ForwardPath, Route, under
from heim_proxy.snapshot import SnapshotError, challenges_of, policy_of, routes_of
from heim_proxy.target import Target, canonical_host

__all__ = ["Answer", "explain", "explain_request", "subject_of"]

_AMBIGUOUS: Final = "REFUSED (ambiguous_path): the path can be read in two ways"
_CONNECT: Final = b"CONNECT"
_ASCII: Final = bytes(range(0x80)).decode("ascii")


@dataclass(frozen=True, slots=True)
class Answer:
    """The decision and its reasons, one line each."""

    allowed: bool
    lines: tuple[str, ...]


def explain(args: argparse.Namespace) -> int:
    """Print the decision; 0 when it is allowed, 1 when refused, 2 when the question is wrong."""
    config = load_or_complain(args.config, check_files=False)
    if isinstance(config, int):
        return config
    try:
        found = _question(config, args.method.upper(), args.url)
        if isinstance(found, _Question):
            who = subject_of(config, args.who, groups=args.group, provider=args.provider)
            answer = _decided(config, who, found)
        else:
            answer = found
    except (SnapshotError, ValueError) as error:
        print(f"heim-proxy explain: {error}", file=sys.stderr)
        return 2
    print("\n".join(answer.lines))
    groups = any(member.group for role in config.roles for member in role.members)
    person = not args.who.startswith("service:")
    if groups and person and not args.group and isinstance(found, _Question):
        print("groups are not looked up here: name them with --group", file=sys.stderr)
    over_http = isinstance(found, _Question) and found.method != _CONNECT
    if over_http and not person:
        print("service tokens are for heim-tunnel: ask with CONNECT HOST", file=sys.stderr)
    return 0 if answer.allowed else 1


def subject_of(
    config: Config, who: str, *, groups: Sequence[str] = (), provider: str | None = None
) -> Subject:
    """The subject a person or service account would be.

    Raises:
        ValueError: When `who` is nobody that could sign in, or the provider does not exist.
    """
    if who.startswith("service:"):
        name = who.removeprefix("service:")
        if name not in {account.name for account in config.service_accounts}:
            raise ValueError(f"there is no service account {name!r}")
        return Subject(SubjectKind.SERVICE_ACCOUNT, "heim", name, "heim")
    providers = {one.name: one for one in config.identity.providers}
    if provider is None and len(providers) > 1:
        raise ValueError(f"there are several providers; add --provider {' or '.join(providers)}")
    if provider is not None and provider not in providers:
        raise ValueError(f"there is no provider {provider!r}")
    found = providers.get(provider) if provider else next(iter(providers.values()), None)
    local, at, domain = who.lower().rpartition("@")
    if not (local and at and domain and who.isascii()):
        raise ValueError(f"{who!r} is neither an e-mail address nor service:NAME")
    if found is None:
        raise ValueError("the configuration has no identity provider, so nobody can sign in")
    for name, domains in (("domains", found.domains), ("hosted_domains", found.hosted_domains)):
        if domains and domain not in domains:
            raise ValueError(f"{who} cannot sign in: {domain} is not in {name} of {found.name}")
    return Subject(
        SubjectKind.USER,
        found.issuer,
        f"(the account of {who.lower()})",
        found.name,
        email=who.lower(),
        domain=domain,
        groups=frozenset(groups),
    )


def explain_request(config: Config, who: Subject, method: str, url: str) -> Answer:
    """What the proxy decides about a request of `who`, or about a TCP stream (method CONNECT).

    Raises:
        ValueError: When `url` is not an https or http URL with a host; for CONNECT, not a host.
        SnapshotError: When the configuration's paths or policy cannot be used.
    """
    question = _question(config, method, url)
    return question if isinstance(question, Answer) else _decided(config, who, question)


@dataclass(frozen=True, slots=True)
class _Question:
    """A request about which only policy can decide: every reading of its path; none for tcp.

    `way` says so when it goes through an agent.
    """

    backend: str
    method: bytes
    way: tuple[str, ...]
    views: tuple[bytes, ...] = ()


def _decided(config: Config, who: Subject, question: _Question) -> Answer:
    policy = policy_of(config)
    if question.method == _CONNECT:
        stream = explain_connect(policy, who, question.backend)
        allowed = isinstance(stream.decision, Allow)
        return Answer(allowed, (*stream.lines(), *question.way))
    lines: tuple[str, ...] = ()
    for view in question.views:
        explanation = explain_access(
            policy, who, question.backend, method=question.method, path=view
        )
        lines = tuple(explanation.lines())
        if not isinstance(explanation.decision, Allow):
            return Answer(False, (*lines, *question.way))
    return Answer(True, (*lines, *question.way))


def _through(agent: str | None, target: str | None) -> tuple[str, ...]:
    """Which agent it goes through, if any: there is a second check, of the agent's own list."""
    if agent is None:
        return ()
    return (f"it goes to target {target} of agent {agent}, which checks it again by its own list",)


def _question(config: Config, method: str, url: str) -> Answer | _Question:
    """What policy has to be asked, or the answer when it does not matter who is asking."""
    if method.encode() == _CONNECT:
        return _stream_question(config, url)
    host, raw = _divide(url)
    head = RequestHead()
    data = method.encode() + b" " + raw + b" HTTP/1.1\r\nHost: " + host.encode("ascii")
    try:
        # Parsed as from the wire, so that methods, lengths and targets are judged alike.
        head_end(data + b"\r\n\r\n")
        head.parse(data + b"\r\n\r\n")
    except BadRequest as error:
        return Answer(False, (f"REFUSED (bad_request): {error.detail}",))
    target = head.target
    table = routes_of(config)
    solver = challenges_of(config, table).find(host, target.raw)
    if solver is not None and _is_asked_by_an_authority(url, head):
        return _challenge(host, solver)
    routes = table.lookup(host)
    if host == config.login_host or (routes and under(target.path, RESERVED_PREFIX)):
        if target.encoded_slash or target.alias is not None:
            return Answer(False, (_AMBIGUOUS,))
        return Answer(True, ("ALLOWED: everybody: Heim's own pages",))
    route = routes.match(target.path) if routes is not None else None
    if routes is None or route is None:
        return Answer(False, (f"REFUSED (not_found): nothing is served at {host}{_show(target)}",))
    backend = route.backend
    views = path_views(target, backend)
    takes_raw = backend.forward_path is ForwardPath.RAW
    if (
        (target.encoded_slash and not takes_raw)
        or upstream_path(route, target) is None
        or any(routes.match(view) is not route or under(view, RESERVED_PREFIX) for view in views)
    ):
        return Answer(False, (_AMBIGUOUS,))
    if route.unavailable:
        return Answer(False, (f"REFUSED (backend_unavailable): {route.unavailable}",))
    goes = route.endpoints[0]
    way = _through(goes.host, goes.target) if goes.scheme == "agent" else ()
    if backend.public:
        everybody = f"ALLOWED: everybody: backend {backend.name} is public"
        return Answer(True, (everybody, *way))
    return _Question(backend.name, head.method, way, tuple(views))


def _is_asked_by_an_authority(url: str, head: RequestHead) -> bool:
    """Whether the edge would see a challenge here (see `edge.challenge`), once it has a solver."""
    target = head.target
    plain = urlsplit(url).scheme == "http" and target.raw == target.path and not target.query
    return plain and head.method in (b"GET", b"HEAD")


def _challenge(host: str, solver: Route) -> Answer:
    # An Ingress for each challenge comes and goes; what is left of it here is where it led.
    where = " or ".join(str(endpoint) for endpoint in solver.endpoints)
    decision = f"ALLOWED: everybody: an ACME challenge for {host}, on plain http only"
    return Answer(True, (decision, f"it goes to {where}, without cookies and identity"))


def _stream_question(config: Config, url: str) -> Answer | _Question:
    """The same for a TCP stream, asked for as `heim-tunnel` does: by host or the backend's name."""
    host = _host_of(url)
    routes = routes_of(config).lookup(host)
    if routes is None:
        name: str | None = host
    else:
        name = routes.tcp.backend.name if routes.tcp is not None else None
    for backend in config.backends:
        if backend.name == name and backend.tcp is not None:
            return _Question(name, _CONNECT, _through(backend.tcp.agent, backend.tcp.target))
    return Answer(False, (f"REFUSED (no_such_target): there is no tcp at {host}",))


def _host_of(text: str) -> str:
    """The canonical host of ``host``, ``host:port``, ``tcp://host`` or ``https://host/``."""
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    if parts.scheme in ("tcp", "https") and parts.path in ("", "/"):
        authority = parts.netloc
        if not authority.isascii():
            authority = parse_host(parts.hostname)
        host = canonical_host(authority.encode("ascii"))
        if host is not None and not (parts.query or parts.fragment):
            return host
    raise ValueError(f"{text!r} is not a host such as desktop.example.com, which CONNECT takes")


def _divide(url: str) -> tuple[str, bytes]:
    parts = urlsplit(url)
    authority = parts.netloc.rpartition("@")[2]
    if not authority.isascii():
        authority = parse_host(parts.hostname)
    host = canonical_host(authority.encode("ascii"))
    if parts.scheme not in ("http", "https") or host is None:
        raise ValueError(f"{url!r} is not an address such as https://app.example.com/path")
    # As browsers send it: without the fragment, and other letters percent-encoded.
    after = url.split("://", 1)[1][len(parts.netloc) :].partition("#")[0]
    return host, quote(after if after.startswith("/") else "/" + after, safe=_ASCII).encode("ascii")


def _show(target: Target) -> str:
    return target.path.decode("ascii", "backslashreplace")
