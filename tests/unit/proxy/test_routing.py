from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_proxy.routing import (
    ANY_HOST,
    RESERVED_PREFIX,
    Backend,
    Challenges,
    Endpoint,
    HostRoutes,
    PathMatch,
    Route,
    RouteTable,
    TcpTarget,
    UpstreamTls,
    under,
)
from tests.fakes.thorough import examples

APP = Backend("app")
ENDPOINT = Endpoint("http", "127.0.0.1", 3000)


def prefix(path: bytes, *, strip: bool = False, backend: Backend = APP) -> Route:
    return Route(backend, path, PathMatch.PREFIX, (ENDPOINT,), strip_prefix=strip)


def exact(path: bytes, *, strip: bool = False) -> Route:
    return Route(APP, path, PathMatch.EXACT, (ENDPOINT,), strip_prefix=strip)


def on_one_host(*routes: Route) -> HostRoutes:
    found = RouteTable([("app.test", route) for route in routes]).lookup("app.test")
    assert found is not None
    return found


UNDER = [
    ("root covers root", b"/", b"/", True),
    ("root covers all", b"/x/y", b"/", True),
    ("itself", b"/app", b"/app", True),
    ("its directory", b"/app/", b"/app", True),
    ("below", b"/app/x", b"/app", True),
    ("longer name (C15)", b"/apple", b"/app", False),
    ("shorter name", b"/ap", b"/app", False),
    ("other case (C16)", b"/APP", b"/app", False),
    ("parameter", b"/app;x", b"/app", False),
    ("encoded", b"/app%2Fx", b"/app", False),
    ("prefix with slash: its directory", b"/app/", b"/app/", True),
    ("prefix with slash: below", b"/app/x", b"/app/", True),
    ("prefix with slash: without it", b"/app", b"/app/", False),
    ("deeper prefix", b"/app/v1/x", b"/app/v1", True),
    ("not the parent", b"/app", b"/app/v1", False),
]


@pytest.mark.parametrize(
    ("path", "above", "expected"), [pytest.param(*c[1:], id=c[0]) for c in UNDER]
)
def test_prefixes_end_at_segment_borders(path: bytes, above: bytes, expected: bool) -> None:
    assert under(path, above) is expected


ROOT, API, API_V1, API_SLASH = prefix(b"/"), prefix(b"/api"), prefix(b"/api/v1"), prefix(b"/api/")
EXACT_API, EXACT_ROOT = exact(b"/api"), exact(b"/")

MATCH = [
    ("root prefix", (ROOT,), b"/any/thing", ROOT),
    ("longest prefix", (ROOT, API, API_V1), b"/api/v1/x", API_V1),
    ("shorter prefix when the longer does not cover", (ROOT, API, API_V1), b"/api/v2", API),
    ("root when nothing else covers", (ROOT, API), b"/apixx", ROOT),
    ("prefix with slash before the one without", (API, API_SLASH), b"/api/x", API_SLASH),
    ("prefix without slash for the bare name", (API, API_SLASH), b"/api", API),
    ("exact before prefix", (ROOT, API, EXACT_API), b"/api", EXACT_API),
    ("exact covers nothing below", (ROOT, EXACT_API), b"/api/", ROOT),
    ("exact root", (EXACT_ROOT, API), b"/", EXACT_ROOT),
    ("exact root only", (EXACT_ROOT, API), b"/x", None),
    ("nothing covers", (API,), b"/", None),
    ("no path at all", (API,), b"", None),
]


@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
@pytest.mark.parametrize(
    ("routes", "path", "expected"), [pytest.param(*c[1:], id=c[0]) for c in MATCH]
)
def test_route_is_chosen_by_path_whatever_the_order(
    routes: tuple[Route, ...], path: bytes, expected: Route | None, backwards: bool
) -> None:
    assert on_one_host(*(reversed(routes) if backwards else routes)).match(path) is expected


SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3)


def joined(segments: list[str], slash: bool) -> bytes:
    return ("/" + "/".join(segments) + ("/" if slash and segments else "")).encode()


PATHS = st.builds(joined, SEGMENTS, st.booleans())


@settings(max_examples=examples(300), deadline=None, database=None)
@given(st.lists(PATHS, unique=True, max_size=6), st.lists(PATHS, unique=True, max_size=3), PATHS)
def test_matching_equals_searching_all_routes(
    prefixes: list[bytes], exacts: list[bytes], path: bytes
) -> None:
    routes = HostRoutes("h")
    if prefixes or exacts:
        routes = on_one_host(*map(prefix, prefixes), *map(exact, exacts))
    covering = [p for p in prefixes if (path + b"/").startswith(p.rstrip(b"/") + b"/")]
    covering = [p for p in covering if not p.endswith(b"/") or path.startswith(p)]
    found = routes.match(path)
    if path in exacts:
        assert found is not None
        assert (found.match, found.path) == (PathMatch.EXACT, path)
    elif covering:
        assert found is not None
        assert (found.match, found.path) == (PathMatch.PREFIX, max(covering, key=len))
    else:
        assert found is None


STRIP = [
    ("not asked for", prefix(b"/api"), b"/api/x", b"/api/x"),
    ("below", prefix(b"/api", strip=True), b"/api/x/y", b"/x/y"),
    ("its directory", prefix(b"/api", strip=True), b"/api/", b"/"),
    ("itself", prefix(b"/api", strip=True), b"/api", b"/"),
    ("root", prefix(b"/", strip=True), b"/x", b"/x"),
    ("prefix with slash", prefix(b"/api/", strip=True), b"/api/x", b"/x"),
    ("prefix with slash, its directory", prefix(b"/api/", strip=True), b"/api/", b"/"),
    ("exact", exact(b"/api", strip=True), b"/api", b"/"),
    ("exact directory", exact(b"/api/", strip=True), b"/api/", b"/"),
    ("encoded slash stays (C21)", prefix(b"/api", strip=True), b"/api/a%2Fb", b"/a%2Fb"),
]


@pytest.mark.parametrize(
    ("route", "path", "expected"), [pytest.param(*c[1:], id=c[0]) for c in STRIP]
)
def test_prefix_is_stripped_only_when_asked(route: Route, path: bytes, expected: bytes) -> None:
    assert route.upstream_path(path) == expected


@settings(max_examples=examples(200), deadline=None, database=None)
@given(PATHS, PATHS)
def test_stripped_path_is_still_a_path(path: bytes, above: bytes) -> None:
    route = on_one_host(prefix(above, strip=True)).match(path)
    if route is not None:
        stripped = route.upstream_path(path)
        assert stripped.startswith(b"/")
        assert path.endswith(stripped) or stripped == b"/"


APEX, LABEL, STAR = Backend("apex"), Backend("label"), Backend("star")
TABLE = RouteTable(
    [
        ("*.example.test", prefix(b"/", backend=STAR)),
        ("example.test", prefix(b"/", backend=APEX)),
        ("app.example.test", prefix(b"/app", backend=LABEL)),
    ]
)

LOOKUP = [
    ("exact", "example.test", "apex"),
    ("exact before wildcard", "app.example.test", "label"),
    ("wildcard", "other.example.test", "star"),
    ("two labels (D8)", "a.b.example.test", None),
    ("below an exact host (D8)", "a.app.example.test", None),
    ("other domain", "example.org", None),
    ("suffix without a dot (A8)", "evil-example.test", None),
    ("wildcard in front of nothing", ".example.test", None),
    ("parent", "test", None),
    ("empty", "", None),
    ("upper case is not canonical (D1)", "EXAMPLE.TEST", None),
    ("trailing dot is not canonical (D1)", "example.test.", None),
    ("port is not canonical (D1)", "example.test:443", None),
    ("address", "[::1]", None),
]


@pytest.mark.parametrize(("host", "backend"), [pytest.param(*c[1:], id=c[0]) for c in LOOKUP])
def test_host_is_looked_up(host: str, backend: str | None) -> None:
    found = TABLE.lookup(host)
    names = [route.backend.name for route in found.prefixes] if found is not None else None
    assert names == (None if backend is None else [backend])


def test_exact_host_hides_the_wildcard_even_for_paths_it_does_not_cover() -> None:
    found = TABLE.lookup("app.example.test")
    assert found is not None
    assert found.match(b"/") is None


def test_lookup_says_which_entry_matched() -> None:
    found = TABLE.lookup("x.example.test")
    assert found is not None
    assert found.host == "*.example.test"


def test_hosts_are_listed_with_their_wildcards() -> None:
    assert TABLE.hosts() == ("*.example.test", "app.example.test", "example.test")


def test_empty_table_knows_no_host() -> None:
    assert RouteTable([]).hosts() == ()
    assert RouteTable([]).lookup("example.test") is None


def test_backends_may_share_a_host_by_path() -> None:
    """Decision 17: an Ingress splits one host among several backends."""
    shared = RouteTable(
        [("app.test", prefix(b"/", backend=APEX)), ("app.test", prefix(b"/api", backend=LABEL))]
    ).lookup("app.test")
    assert shared is not None
    found = [shared.match(path) for path in (b"/", b"/api/x", b"/apis")]
    assert [route.backend for route in found if route is not None] == [APEX, LABEL, APEX]


SSH = TcpTarget(Backend("ssh"), Endpoint("tcp", "10.0.0.5", 22))
DEV = TcpTarget(Backend("dev"), Endpoint("unix", "/run/dev", 0))
MIXED = RouteTable(
    [
        ("app.test", prefix(b"/")),
        ("both.test", prefix(b"/")),
        ("http.dev.test", prefix(b"/")),
        ("*.http.test", prefix(b"/")),
    ],
    [
        ("ssh.test", SSH),
        ("both.test", SSH),
        ("*.dev.test", DEV),
        ("ssh.http.test", SSH),
    ],
)

TCP_LOOKUP = [
    ("exact", "ssh.test", SSH, False),
    ("http alone", "app.test", None, True),
    ("both", "both.test", SSH, True),
    ("wildcard", "x.dev.test", DEV, False),
    ("exact host with http alone hides a wildcard with tcp", "http.dev.test", None, True),
    ("exact host with tcp alone hides a wildcard with http", "ssh.http.test", SSH, False),
    ("beside it", "x.http.test", None, True),
]


@pytest.mark.parametrize(
    ("host", "target", "http"), [pytest.param(*c[1:], id=c[0]) for c in TCP_LOOKUP]
)
def test_one_table_knows_tcp_and_http_of_a_host(
    host: str, target: TcpTarget | None, http: bool
) -> None:
    found = MIXED.lookup(host)
    assert found is not None
    assert found.tcp is target
    assert (found.match(b"/x") is not None) is http


def test_host_with_tcp_alone_serves_no_path() -> None:
    found = MIXED.lookup("ssh.test")
    assert found is not None
    assert [found.match(path) for path in (b"/", b"", b"/x", b"/.heim", b"//")] == [None] * 5


def test_hosts_with_tcp_are_listed_too() -> None:
    assert {"ssh.test", "both.test", "*.dev.test"} <= set(MIXED.hosts())


def test_host_with_two_targets_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ssh\.test has two tcp targets"):
        RouteTable([], [("ssh.test", SSH), ("ssh.test", DEV)])


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        pytest.param(ENDPOINT, "http://127.0.0.1:3000", id="IPv4"),
        pytest.param(Endpoint("https", "::1", 443), "https://[::1]:443", id="IPv6"),
        pytest.param(Endpoint("https", "db.test", 8443), "https://db.test:8443", id="name"),
        pytest.param(Endpoint("unix", "/run/app.sock", 0), "unix:/run/app.sock", id="unix"),
        pytest.param(Endpoint("tcp", "::1", 22), "tcp://[::1]:22", id="tcp"),
        pytest.param(
            Endpoint("agent", "desktop", 0, target="ssh"), "agent:desktop/ssh", id="agent"
        ),
        pytest.param(
            Endpoint("agent", "desktop", 0, UpstreamTls(), "ssh"),
            "agent:desktop/ssh",
            id="agent, TLS",
        ),
    ],
)
def test_endpoint_is_written_as_it_is_configured(endpoint: Endpoint, text: str) -> None:
    assert str(endpoint) == text


def test_endpoints_share_a_pool_only_when_tls_is_verified_alike() -> None:
    plain = Endpoint("https", "db.test", 443, UpstreamTls())
    same = Endpoint("https", "db.test", 443, UpstreamTls())
    careless = Endpoint("https", "db.test", 443, UpstreamTls(insecure=True))
    assert plain == same
    assert len({plain, same, careless}) == 2


def test_targets_of_agents_are_endpoints_by_agent_target_and_tls() -> None:
    ssh = Endpoint("agent", "desktop", 0, target="ssh")
    others = (
        Endpoint("agent", "desktop", 0, target="web"),
        Endpoint("agent", "office", 0, target="ssh"),
        Endpoint("agent", "desktop", 0, UpstreamTls(), "ssh"),
    )
    assert ssh == Endpoint("agent", "desktop", 0, target="ssh")
    assert len({ssh, *others}) == 4


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        ((Endpoint("agent", "desktop", 0, target="ssh"),), "target ssh of agent desktop"),
        ((ENDPOINT,), ""),
        ((Endpoint("unix", "/run/secret", 0),), ""),
        ((), ""),
    ],
    ids=["agent", "address", "unix", "portal"],
)
def test_people_are_told_of_agents_and_never_of_addresses(
    endpoints: tuple[Endpoint, ...], words: str
) -> None:
    assert Route(APP, b"/", PathMatch.PREFIX, endpoints).via == words


def test_backend_is_private_and_careful_by_default() -> None:
    assert not APP.public
    assert not APP.allow_http
    assert not APP.allowed_origins
    assert APP.upgrades == {b"websocket"}


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        (b"/.heim", True),
        (b"/.heim/login", True),
        (b"/.heimdall", False),
        (b"/x/.heim", False),
    ],
)
def test_reserved_prefix_is_a_segment_of_the_root(path: bytes, reserved: bool) -> None:
    assert under(path, RESERVED_PREFIX) is reserved


SEGMENTS = st.lists(st.sampled_from(["a", "ab", "b", "", "a%20"]), max_size=5)


@given(
    prefixes=st.lists(SEGMENTS, min_size=9, max_size=30, unique_by=tuple),
    asked=st.lists(SEGMENTS, min_size=1, max_size=20),
)
def test_many_prefixes_are_found_as_few_are(
    prefixes: list[list[str]], asked: list[list[str]]
) -> None:
    """Above a handful the table climbs the path instead of comparing each prefix."""
    paths = {b"/" + "/".join(parts).encode() for parts in prefixes}
    routes = on_one_host(*map(prefix, paths))
    for parts in asked:
        path = b"/" + "/".join(parts).encode()
        covering = [one for one in paths if under(path, one)]
        found = routes.match(path)
        assert (found.path if found else None) == max(covering, key=len, default=None)


def test_the_same_path_twice_on_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="routed twice"):
        on_one_host(prefix(b"/a"), prefix(b"/a"))


def anything() -> RouteTable:
    """A table with one exact host, one wildcard, and something for all others."""
    return RouteTable(
        (host, prefix(b"/", backend=Backend(host)))
        for host in ("app.example.test", "*.dev.example.test", ANY_HOST)
    )


@pytest.mark.parametrize(
    ("host", "backend"),
    [
        ("app.example.test", "app.example.test"),
        ("a.dev.example.test", "*.dev.example.test"),
        ("a.b.dev.example.test", "*"),
        ("dev.example.test", "*"),
        ("evil.test", "*"),
        ("localhost", "*"),
        ("10.0.0.1", "*"),
    ],
)
def test_what_nobody_has_is_any_hosts(host: str, backend: str) -> None:
    found = anything().lookup(host)
    assert found is not None
    assert found.host == backend


def test_a_host_that_is_named_does_not_fall_to_any() -> None:
    table = RouteTable([("app.example.test", prefix(b"/x")), (ANY_HOST, prefix(b"/"))])
    found = table.lookup("app.example.test")
    assert found is not None
    assert found.match(b"/y") is None


def test_any_host_is_listed() -> None:
    assert anything().hosts() == ("*", "*.dev.example.test", "app.example.test")


def test_a_challenge_is_found_by_its_exact_host_and_path() -> None:
    path = b"/.well-known/acme-challenge/0123456789abcdef"
    route = Route(Backend("acme", challenge=True), path, PathMatch.EXACT, ())
    challenges = Challenges({("a.test", path): route})
    assert challenges.find("a.test", path) is route
    for host, other in (("b.test", path), ("a.test", path + b"/"), ("a.test", path[:-1])):
        assert challenges.find(host, other) is None


TOKEN = b"0123456789abcdef"
BASE = b"/.well-known/acme-challenge/"
STANDING = {
    "token": ("a.test", BASE + TOKEN, True),
    "longest": ("a.test", BASE + b"a" * 128, True),
    "every-letter": ("a.test", BASE + b"-_AZaz09-_AZaz09", True),
    "another-host": ("b.test", BASE + TOKEN, False),
    "short": ("a.test", BASE + TOKEN[1:], False),
    "long": ("a.test", BASE + b"a" * 129, False),
    "none": ("a.test", BASE, False),
    "slash": ("a.test", BASE + TOKEN + b"/", False),
    "below": ("a.test", BASE + TOKEN + b"/x", False),
    "newline": ("a.test", BASE + TOKEN + b"\n", False),
    "dot": ("a.test", BASE + TOKEN + b".txt", False),
    "encoded": ("a.test", BASE + TOKEN + b"%41", False),
    "before": ("a.test", b"/x" + BASE + TOKEN, False),
}


@pytest.mark.parametrize(("host", "path", "found"), STANDING.values(), ids=STANDING)
def test_whatever_looks_like_a_token_is_a_challenge_of_our_hosts(
    host: str, path: bytes, found: bool
) -> None:
    route = Route(Backend("acme", challenge=True), BASE, PathMatch.PREFIX, ())
    exact = Route(Backend("acme", challenge=True), path, PathMatch.EXACT, ())
    challenges = Challenges({("c.test", path): exact}, route, ours=lambda host: host == "a.test")
    assert challenges.find(host, path) is (route if found else None)
    assert challenges.find("c.test", path) is exact
