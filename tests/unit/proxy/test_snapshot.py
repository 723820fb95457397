from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from heim_config.model import Config
from heim_proxy.access.policy import Allow, Deny
from heim_proxy.routing import (
    AgentGrant,
    Cors,
    Endpoint,
    ForwardPath,
    PathMatch,
    Timeouts,
    UpstreamTls,
)
from heim_proxy.snapshot import Snapshot, SnapshotError, policy_of, routes_of
from tests.fakes.sessions import ALICE, BOB
from tests.fakes.snapshots import app, configured, role, signing_keys, snapshot, tcp


def routed(backend: dict[str, Any], host: str = "app.example.test", path: bytes = b"/") -> Any:
    table = routes_of(configured([backend])).lookup(host)
    assert table is not None
    return table.match(path)


def prepared(backend: dict[str, Any]) -> Any:
    """The backend as the data plane has it."""
    return snapshot(configured([backend])).backends["app"]


class TestBackends:
    def test_defaults_are_the_safe_ones(self) -> None:
        backend = prepared(app())
        assert (backend.public, backend.allow_http, backend.max_session_age) == (False, False, None)
        assert backend.dialects == ("heimdallr",)
        assert (backend.cors, backend.allowed_origins) == (None, frozenset())
        assert backend.forward_path is ForwardPath.CANONICAL
        assert backend.upgrades == {b"websocket"}
        assert backend.timeouts == Timeouts(5.0, 60.0, 900.0)

    @pytest.mark.parametrize(
        ("keys", "name", "value"),
        [
            pytest.param({"public": True}, "public", True, id="public"),
            pytest.param({"public": True, "allow_http": True}, "allow_http", True, id="allow_http"),
            pytest.param(
                {"identity_headers": ["forwarded", "heimdallr"]},
                "dialects", ("forwarded", "heimdallr"), id="identity_headers",
            ),
            pytest.param({"max_session_age": "1h"}, "max_session_age", 3600.0, id="session age"),
            pytest.param(
                {"allowed_origins": ["https://a.example.test"]},
                "allowed_origins", frozenset({"https://a.example.test"}), id="allowed_origins",
            ),
            pytest.param({"forward_path": "raw"}, "forward_path", ForwardPath.RAW, id="raw"),
            pytest.param(
                {"upgrades": ["WebSocket", "x-proto"]},
                "upgrades", frozenset({b"websocket", b"x-proto"}), id="upgrades",
            ),
            pytest.param({"upgrades": []}, "upgrades", frozenset(), id="no upgrades"),
            pytest.param(
                {"timeouts": {"connect": "1s", "first_byte": "2m", "idle": "3h"}},
                "timeouts", Timeouts(1.0, 120.0, 10800.0), id="timeouts",
            ),
        ],
    )  # fmt: skip
    def test_each_key_arrives(self, keys: dict[str, Any], name: str, value: object) -> None:
        assert getattr(prepared(app(**keys)), name) == value

    def test_cors_arrives_whole(self) -> None:
        cors = {
            "allow_origins": ["https://a.example.test"],
            "allow_methods": ["GET", "DELETE"],
            "allow_headers": ["X-One"],
            "expose_headers": ["X-Two"],
            "allow_credentials": True,
            "max_age": "90s",
        }
        assert prepared(app(cors=cors)).cors == Cors(
            frozenset({"https://a.example.test"}), ("GET", "DELETE"), ("X-One",), ("X-Two",),
            allow_credentials=True, max_age=90,
        )  # fmt: skip

    def test_a_public_backend_has_its_decision_and_no_other_has(self) -> None:
        built = snapshot(configured([app("app"), app("open", public=True)]))
        assert built.public == {"open": Allow("open", "backend open is public", public=True)}


class TestRoutes:
    def test_a_backend_without_hosts_lives_under_the_domain(self) -> None:
        assert routes_of(configured([app("one"), app("two")])).hosts() == (
            "one.example.test",
            "two.example.test",
        )

    def test_every_host_of_a_backend_leads_to_it_in_its_canonical_form(self) -> None:
        backend = app(host="A.example.test", hosts=["*.Dev.example.test", "bücher.example"])
        table = routes_of(configured([backend]))
        hosts = ("*.dev.example.test", "a.example.test", "xn--bcher-kva.example")
        assert table.hosts() == hosts
        for host in ("x.dev.example.test", "a.example.test", "xn--bcher-kva.example"):
            found = table.lookup(host)
            assert found is not None
            assert found.match(b"/") is not None
        assert table.lookup("app.example.test") is None
        assert table.lookup("x.y.dev.example.test") is None

    def test_hosts_of_one_backend_share_its_routes_backend(self) -> None:
        table = routes_of(configured([app(host="a.example.test", hosts=["b.example.test"])]))
        first, second = table.lookup("a.example.test"), table.lookup("b.example.test")
        assert first is not None
        assert second is not None
        assert first.match(b"/") is second.match(b"/")

    @pytest.mark.parametrize(
        ("path", "canonical"),
        [
            ("/", b"/"),
            ("/api", b"/api"),
            ("/api/", b"/api/"),
            ("/büro", b"/b%C3%BCro"),
            ("/a%20b", b"/a%20b"),
            ("/%61pi", b"/api"),
            ("/日本", b"/%E6%97%A5%E6%9C%AC"),
        ],
    )
    def test_paths_are_compared_in_wire_form(self, path: str, canonical: bytes) -> None:
        backend = app(http=[{"path": path, "upstream": "http://127.0.0.1:3000"}])
        assert routed(backend, path=canonical).path == canonical

    def test_exact_and_prefix_are_told_apart(self) -> None:
        upstream = "http://127.0.0.1:3000"
        backend = app(
            http=[
                {"path": "/a", "match": "exact", "upstream": upstream},
                {"path": "/a", "upstream": upstream, "strip_prefix": True},
            ]
        )
        exact, prefix = routed(backend, path=b"/a"), routed(backend, path=b"/a/b")
        assert (exact.match, exact.strip_prefix) == (PathMatch.EXACT, False)
        assert (prefix.match, prefix.strip_prefix) == (PathMatch.PREFIX, True)
        assert prefix.upstream_path(b"/a/b") == b"/b"
        assert routed(backend, path=b"/ab") is None

    @pytest.mark.parametrize(
        ("upstream", "endpoint"),
        [
            ("http://127.0.0.1:3000", Endpoint("http", "127.0.0.1", 3000)),
            ("http://inner", Endpoint("http", "inner", 80)),
            ("https://inner", Endpoint("https", "inner", 443)),
            ("http://[::1]:8080", Endpoint("http", "::1", 8080)),
            ("unix:/run/app.sock", Endpoint("unix", "/run/app.sock", 0)),
        ],
    )
    def test_upstreams_become_endpoints(self, upstream: str, endpoint: Endpoint) -> None:
        route = routed(app(http=[{"path": "/", "upstream": upstream}]))
        assert route.endpoints == (endpoint,)

    def test_several_upstreams_keep_their_order(self) -> None:
        urls = ["http://127.0.0.1:3001", "http://127.0.0.1:3000"]
        route = routed(app(http=[{"path": "/", "upstreams": urls}]))
        assert [endpoint.port for endpoint in route.endpoints] == [3001, 3000]

    def test_only_https_upstreams_have_tls_settings(self) -> None:
        backend = app(
            http=[{"path": "/", "upstreams": ["https://inner", "http://inner"]}],
            upstream_tls={"server_name": "Name.inner", "insecure": True},
        )
        encrypted, plain = routed(backend).endpoints
        assert encrypted.tls == UpstreamTls(None, "name.inner", insecure=True)
        assert plain.tls is None


class TestUpstreamTls:
    def contexts(self, backends: list[dict[str, Any]]) -> dict[Endpoint, ssl.SSLContext | None]:
        return dict(snapshot(configured(backends)).endpoints)

    def encrypted(self, name: str = "app", **tls: Any) -> dict[str, Any]:
        http = [{"path": "/", "upstream": f"https://{name}.inner"}]
        return app(name, http=http, **({"upstream_tls": tls} if tls else {}))

    def test_plain_and_unix_upstreams_have_none(self) -> None:
        urls = ["http://inner", "unix:/run/app.sock"]
        found = self.contexts([app(http=[{"path": "/", "upstreams": urls}])])
        assert list(found.values()) == [None, None]

    def test_https_is_verified_unless_asked_otherwise(self) -> None:
        (context,) = self.contexts([self.encrypted()]).values()
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_insecure_is_not(self) -> None:
        (context,) = self.contexts([self.encrypted(insecure=True)]).values()
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)

    def test_a_ca_file_is_trusted_instead_of_the_systems(self, tmp_path: Path) -> None:
        path = tmp_path / "ca.pem"
        trustme.CA().cert_pem.write_to_path(path)
        (context,) = self.contexts([self.encrypted(ca_file=str(path))]).values()
        assert context is not None
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.cert_store_stats()["x509_ca"] == 1

    def test_equal_settings_share_a_context_and_others_do_not(self) -> None:
        found = self.contexts(
            [self.encrypted("one"), self.encrypted("two"), self.encrypted("three", insecure=True)]
        )
        by_name = {endpoint.host: context for endpoint, context in found.items()}
        assert by_name["one.inner"] is by_name["two.inner"]
        assert by_name["three.inner"] is not by_name["one.inner"]

    @pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
    def test_a_ca_file_that_cannot_be_used_names_the_key(
        self, tmp_path: Path, content: bytes | None
    ) -> None:
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SnapshotError) as caught:
            self.contexts([self.encrypted(ca_file=str(path))])
        assert "backend app: upstream_tls.ca_file" in str(caught.value)
        assert str(path) in str(caught.value)


class TestPolicy:
    def test_roles_and_permissions_arrive(self) -> None:
        backend = app(
            permissions=[
                {"name": "read", "locations": [{"get": "/docs"}]},
                {"name": "desk", "locations": [{"any": "=/büro"}, {"any": "/x/*/y"}]},
            ]
        )
        policy = policy_of(configured([backend], [role("r", "app/read", "app/desk")]))

        def allowed(method: bytes, path: bytes) -> bool:
            return isinstance(policy.decide(ALICE, "app", method, path), Allow)

        assert allowed(b"GET", b"/docs/x")
        assert not allowed(b"POST", b"/docs/x")
        assert allowed(b"POST", b"/b%C3%BCro")
        assert not allowed(b"POST", b"/b%C3%BCro/x")
        assert allowed(b"PUT", b"/x/1/y")
        assert not allowed(b"PUT", b"/x/1/2/y")

    @pytest.mark.parametrize(
        ("member", "in_it"),
        [
            ({"user": "Alice@example.test"}, True),
            ({"user": "bob@example.test"}, False),
            ({"group": "sre"}, True),
            ({"group": "sre", "provider": "idp"}, True),
            ({"group": "admins"}, False),
            ({"domain": "example.test"}, True),
            ({"issuer": "https://idp.example.test", "subject": "1001"}, True),
            ({"issuer": "https://idp.example.test", "subject": "1003"}, False),
            ({"service_account": "robot"}, False),
        ],
        ids=str,
    )
    def test_every_form_of_member_arrives(self, member: dict[str, str], in_it: bool) -> None:
        config = configured(
            [app()],
            [role("r", "app/all", members=[member])],
            service_accounts=[{"name": "robot"}],
        )
        policy = policy_of(config)
        assert isinstance(policy.decide(ALICE, "app", b"GET", b"/"), Allow) is in_it
        assert not isinstance(policy.decide(BOB, "app", b"GET", b"/"), Allow)

    def test_breaking_the_glass_is_marked(self) -> None:
        config = configured(
            [app("one"), app("two")], [{**role("r", "one/all"), "break_glass": True}]
        )
        policy = policy_of(config)
        ordinary, emergency = (policy.decide(ALICE, name, b"GET", b"/") for name in ("one", "two"))
        assert isinstance(ordinary, Allow)
        assert isinstance(emergency, Allow)
        assert (ordinary.break_glass, emergency.break_glass) == (False, True)

    def test_a_binding_without_permission_gives_tcp(self) -> None:
        config = configured([tcp("ssh"), tcp("db"), app()], [role("r", "ssh", "app/all")])
        policy = policy_of(config)
        assert policy.connect(ALICE, "ssh") == Allow("ssh", "role r: ssh tcp", ("r",))
        assert isinstance(policy.decide(ALICE, "app", b"GET", b"/"), Allow)
        for name in ("db", "app", "none"):
            assert isinstance(policy.connect(ALICE, name), Deny)
        assert isinstance(policy.connect(BOB, "ssh"), Deny)

    def test_break_glass_is_for_what_each_backend_serves(self) -> None:
        both = app("both", tcp={"upstream": "h:1"})
        config = configured([tcp("ssh"), app("web"), both], [{**role("r"), "break_glass": True}])
        policy = policy_of(config)
        for name, streams, requests in (
            ("ssh", True, False),
            ("web", False, True),
            ("both", True, True),
        ):
            assert isinstance(policy.connect(ALICE, name), Allow) is streams
            assert isinstance(policy.decide(ALICE, name, b"GET", b"/"), Allow) is requests


class TestTcp:
    BOTH = app("both", tcp={"upstream": "[::1]:5432", "idle": "1h", "max_duration": "8h"})

    def test_targets_are_found_by_backend_and_by_host(self) -> None:
        built = snapshot(configured([tcp("ssh", host="desktop.ssh.example.test"), app()]))
        target = built.tcp["ssh"]
        assert sorted(built.tcp) == ["ssh"]
        assert target.backend is built.backends["ssh"]
        assert target.endpoint == Endpoint("tcp", "10.0.0.5", 22)
        assert (target.idle, target.max_duration) == (None, None)
        assert built.tcp_for("desktop.ssh.example.test") is target
        for host in ("app.example.test", "ssh.example.test", "auth.example.test", "x.test"):
            assert built.tcp_for(host) is None

    def test_limits_and_addresses_arrive(self) -> None:
        built = snapshot(configured([self.BOTH, tcp("db", "unix:run/db.sock")]))
        both = built.tcp["both"]
        assert (both.idle, both.max_duration) == (3600.0, 28800.0)
        assert both.endpoint == Endpoint("tcp", "::1", 5432)
        assert built.tcp["db"].endpoint == Endpoint("unix", "/etc/heim/run/db.sock", 0)

    def test_a_wildcard_leads_every_name_to_one_upstream(self) -> None:
        built = snapshot(configured([tcp("dev", host="*.dev.example.test")]))
        target = built.tcp["dev"]
        assert [built.tcp_for(f"{name}.dev.example.test") for name in ("a", "b")] == [target] * 2
        assert built.tcp_for("dev.example.test") is None
        assert built.tcp_for("a.b.dev.example.test") is None

    def test_an_exact_host_of_another_backend_is_not_the_wildcards(self) -> None:
        built = snapshot(
            configured([tcp("dev", host="*.dev.example.test"), app(host="w.dev.example.test")])
        )
        assert built.tcp_for("w.dev.example.test") is None

    def test_dialling_it_needs_no_tls_context(self) -> None:
        assert snapshot(configured([tcp("ssh")])).endpoints == {}

    def test_a_host_with_tcp_alone_is_known_and_serves_no_path(self) -> None:
        built = snapshot(configured([tcp("ssh")]))
        routes = built.routes.lookup("ssh.example.test")
        assert routes is not None
        assert routes.match(b"/") is None
        assert built.routes.hosts() == ("ssh.example.test",)

    def test_its_host_has_an_owner_and_is_never_taken_for_the_login_host(self) -> None:
        built = snapshot(configured([tcp("ssh"), self.BOTH]))
        assert built.backend_for("ssh.example.test") == "ssh"
        assert built.backend_for("both.example.test") == "both"
        assert built.max_session_age("ssh") is None

    def test_the_start_page_shows_only_what_browsers_open(self) -> None:
        roles = [role("r", "ssh", "both", "both/all")]
        built = snapshot(configured([tcp("ssh"), self.BOTH], roles))
        assert [one.name for one in built.applications(ALICE)] == ["both"]
        only_tcp = snapshot(configured([tcp("ssh"), self.BOTH], [role("r", "ssh", "both")]))
        assert only_tcp.applications(ALICE) == ()

    def test_what_somebody_may_connect_to_is_listed_by_name_with_a_host(self) -> None:
        backends = [
            tcp("ssh", host="desktop.ssh.example.test"),
            tcp("db", hosts=["*.db.example.test", "main.db.example.test"]),
            tcp("dev", host="*.dev.example.test"),
            tcp("secret"),
            self.BOTH,
        ]
        built = snapshot(configured(backends, [role("r", "ssh", "dev", "db", "both/all")]))
        assert built.reachable_tcp(ALICE) == (
            ("db", "main.db.example.test"),
            ("dev", "*.dev.example.test"),
            ("ssh", "desktop.ssh.example.test"),
        )
        assert built.reachable_tcp(BOB) == ()

    def test_what_only_break_glass_opens_is_not_listed(self) -> None:
        glass = {**role("r", "db"), "break_glass": True}
        built = snapshot(configured([tcp("ssh"), tcp("db")], [glass]))
        assert built.reachable_tcp(ALICE) == (("db", "db.example.test"),)
        assert isinstance(built.policy.connect(ALICE, "ssh"), Allow)

    def test_another_configuration_has_its_own_targets(self) -> None:
        first = snapshot(configured([tcp("ssh", "10.0.0.5:22")]))
        second = snapshot(configured([tcp("ssh", "10.0.0.6:22")]), generation=2)
        assert str(first.tcp["ssh"].endpoint) == "tcp://10.0.0.5:22"
        assert str(second.tcp["ssh"].endpoint) == "tcp://10.0.0.6:22"
        assert first.tcp["ssh"].endpoint != second.tcp["ssh"].endpoint


class TestAgents:
    AGENTS = [
        {"name": "desktop", "targets": ["ssh", "web"]},
        {"name": "farm", "targets": ["ssh"], "group": True},
    ]

    def built(self, *backends: dict[str, Any], **keys: Any) -> Snapshot:
        return snapshot(configured(list(backends), agents=self.AGENTS, **keys))

    def web(self, **route: Any) -> list[dict[str, Any]]:
        return [{"path": "/", "agent": "desktop", "target": "web", **route}]

    def test_what_may_exist_is_known_by_name(self) -> None:
        assert self.built(app()).agents == {
            "desktop": AgentGrant("desktop", frozenset(("ssh", "web")), group=False),
            "farm": AgentGrant("farm", frozenset(("ssh",)), group=True),
        }

    def test_streams_and_requests_go_to_targets(self) -> None:
        ssh = {"name": "ssh", "tcp": {"agent": "desktop", "target": "ssh", "idle": "1h"}}
        built = self.built(ssh, app(http=self.web()))
        target = built.tcp["ssh"]
        assert target.endpoint == Endpoint("agent", "desktop", 0, target="ssh")
        assert target.idle == 3600.0
        web = Endpoint("agent", "desktop", 0, target="web")
        table = built.routes.lookup("app.example.test")
        assert table is not None
        route = table.match(b"/")
        assert route is not None
        assert route.endpoints == (web,)
        assert built.endpoints == {web: None}

    def test_tls_through_an_agent_has_a_context_that_verifies(self) -> None:
        built = self.built(
            app(http=self.web(scheme="https"), upstream_tls={"server_name": "inner.test"}),
            app("plain", http=self.web()),
        )
        contexts = {endpoint.tls: context for endpoint, context in built.endpoints.items()}
        assert contexts[None] is None
        context = contexts[UpstreamTls(server_name="inner.test")]
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)

    def test_groups_that_roles_name_are_known(self) -> None:
        named = role("r", "app/all", members=[{"group": "sre"}, {"user": "a@example.test"}])
        other = role("s", "app/all", members=[{"group": "dba"}])
        assert self.built(app(), roles=[named, other]).groups == {"sre", "dba"}


class TestWhole:
    def build(self, **keys: Any) -> Snapshot:
        return snapshot(configured([app()], [role("r", "app/all")], **keys), generation=7)

    def test_what_it_was_built_from_is_kept(self) -> None:
        built = self.build()
        assert built.generation == 7
        assert built.signing_keys is signing_keys()
        assert built.login_host == "auth.example.test"
        assert built.login_url == "https://auth.example.test"
        assert built.trusted_proxies == ()

    def test_the_public_port_is_part_of_every_origin(self) -> None:
        built = self.build(public_port=8443, login_host="login.example.test")
        assert built.login_url == "https://login.example.test:8443"
        assert built.public_url("app.example.test") == "https://app.example.test:8443"

    def test_trusted_proxies_are_networks(self) -> None:
        built = self.build(trusted_proxies=["10.0.0.0/8", "fd00::/8"])
        assert built.trusted_proxies == (
            ipaddress.ip_network("10.0.0.0/8"),
            ipaddress.ip_network("fd00::/8"),
        )

    def test_max_session_age_is_found_by_backend(self) -> None:
        built = snapshot(configured([app(max_session_age="5m"), app("other")]))
        assert built.max_session_age("app") == 300.0
        assert built.max_session_age("other") is None
        assert built.max_session_age("unknown") is None

    def test_a_host_belongs_to_the_backend_at_its_root(self) -> None:
        upstream = "http://127.0.0.1:3000"
        exact = app("exact", http=[{"path": "/x", "match": "exact", "upstream": upstream}])
        deep = app("deep", http=[{"path": "/x", "upstream": upstream}])
        built = snapshot(configured([app(), exact, deep]))
        assert built.backend_for("app.example.test") == "app"
        assert built.backend_for("exact.example.test") == "exact"
        assert built.backend_for("deep.example.test") == "deep"
        assert built.backend_for("unknown.example.test") is None

    def test_two_snapshots_share_nothing_that_requests_write(self) -> None:
        config = configured([app()])
        assert snapshot(config).policy is not snapshot(config).policy


def broken(**changes: Any) -> Config:
    """A configuration that no file gives: the loader's own checks are passed by."""
    config = configured([app()], [role("r", "app/all")])
    backend = config.backends[0]
    return config.model_copy(update={"backends": (backend.model_copy(update=changes),)})


class TestErrors:
    @pytest.mark.parametrize(
        "path", ["/a/%2e%2e%5cb", "/a%2Fb", "/a?b", "/a#b", "/%ff", "/%252e", "relative"]
    )
    def test_a_path_that_cannot_be_compared_is_named(self, path: str) -> None:
        config = broken()
        (http,) = config.backends[0].http
        with pytest.raises(SnapshotError) as caught:
            routes_of(broken(http=(http.model_copy(update={"path": path}),)))
        assert path in str(caught.value)

    def test_a_path_that_is_routed_twice_is_named(self) -> None:
        (http,) = broken().backends[0].http
        other = http.model_copy(update={"path": "/%61"})
        twice = http.model_copy(update={"path": "/a"})
        with pytest.raises(SnapshotError, match=r"app\.example\.test/a is routed twice"):
            routes_of(broken(http=(other, twice)))

    def test_a_pattern_that_cannot_match_is_named(self) -> None:
        (permission,) = broken().backends[0].permissions
        (location,) = permission.locations
        bad = permission.model_copy(update={"locations": (type(location)("any", "/a%2Fb"),)})
        with pytest.raises(SnapshotError, match="/a%2Fb"):
            policy_of(broken(permissions=(bad,)))

    def test_a_binding_to_nothing_is_named(self) -> None:
        with pytest.raises(SnapshotError, match="all"):
            policy_of(broken(permissions=()))

    def test_a_member_that_names_nobody_is_refused(self) -> None:
        config = broken()
        (one,) = config.roles
        (member,) = one.members
        nobody = one.model_copy(update={"members": (member.model_copy(update={"user": None}),)})
        with pytest.raises(SnapshotError, match="nobody"):
            policy_of(config.model_copy(update={"roles": (nobody,)}))


def shared_host(**keys: Any) -> Snapshot:
    """Two backends on one host, and one for every host that nobody has."""
    one = app("one", hosts=["a.example.test", "b.example.test"], max_session_age="8h")
    one["http"].append({"path": "/x", "host": "a.example.test", "unavailable": "no Service"})
    two = app("two", hosts=["a.example.test"], http=[
        {"path": "/y", "upstream": "http://127.0.0.1:3001"}], **keys)  # fmt: skip
    rest = app("rest", public=True, hosts=["*"])
    return snapshot(configured([one, two, rest]))


def test_a_route_is_for_the_host_it_names() -> None:
    routes = shared_host().routes
    on_a, on_b = routes.lookup("a.example.test"), routes.lookup("b.example.test")
    assert on_a is not None
    assert on_b is not None
    assert [one.path for one in on_a.prefixes] == [b"/x", b"/y", b"/"]
    assert [one.path for one in on_b.prefixes] == [b"/"]
    assert on_a.prefixes[0].unavailable == "no Service"
    assert on_a.prefixes[0].endpoints == ()
    assert on_a.prefixes[1].backend.name == "two"


def test_what_answers_for_any_host_makes_no_host_ours() -> None:
    found = shared_host()
    assert found.routes.lookup("evil.test") is not None
    assert found.backend_for("evil.test") is None
    assert found.backend_for("a.example.test") == "one"


def test_a_login_is_fresh_enough_for_all_of_a_host() -> None:
    """Else somebody who wants the stricter backend would be sent round in a circle."""
    found = shared_host(max_session_age="1h")
    assert found.max_session_age("one") == 3600.0
    assert found.max_session_age("two") == 3600.0
    assert found.max_session_age("rest") is None
    assert found.max_session_age("gone") is None


def test_challenges_are_routes_of_a_backend_that_is_nobodys() -> None:
    token = "0123456789abcdef"
    config = configured(
        [app("acme-challenge")],
        acme_challenges=[
            {
                "host": "a.test",
                "token": token,
                "upstreams": ["http://10.0.0.1:80", "https://b.test"],
            }
        ],
    )
    built = snapshot(config)
    route = built.challenges.find("a.test", b"/.well-known/acme-challenge/" + token.encode())
    assert route is not None
    # A backend of its name is another one.
    assert route.backend is not built.backends["acme-challenge"]
    assert route.backend.challenge
    assert not built.backends["acme-challenge"].challenge
    assert built.routes.lookup("a.test") is None
    plain, secure = (built.endpoints[endpoint] for endpoint in route.endpoints)
    assert plain is None
    assert secure is not None


WHO: dict[str, tuple[dict[str, str], Endpoint]] = {
    "webroot": ({"webroot": "acme"}, Endpoint("webroot", "/etc/heim/acme", 0)),
    "upstream": ({"upstream": "http://127.0.0.1:8402"}, Endpoint("http", "127.0.0.1", 8402)),
}


@pytest.mark.parametrize(("acme", "endpoint"), WHO.values(), ids=WHO)
def test_one_who_answers_for_all_does_so_for_hosts_that_are_ours(
    acme: dict[str, str], endpoint: Endpoint
) -> None:
    config = configured([app(hosts=["*.wild.test"])], listeners={"http": {"acme": acme}})
    built = snapshot(config)
    path = b"/.well-known/acme-challenge/0123456789abcdef"
    for host in ("auth.example.test", "a.wild.test"):
        route = built.challenges.find(host, path)
        assert route is not None
        assert route.endpoints == (endpoint,)
        assert route.backend.challenge
    assert built.endpoints[endpoint] is None
    for host in ("elsewhere.test", "example.test", "a.b.wild.test"):
        assert built.challenges.find(host, path) is None


@pytest.mark.parametrize("host", ["app.example.test", "*.dev.example.test", "*"])
def test_every_endpoint_that_a_request_can_carry_has_its_context(host: str) -> None:
    https = {"path": "/", "upstream": "https://10.0.0.7:8443"}
    exact = {"path": "/x", "match": "exact", "upstreams": ["http://10.0.0.8", "http://10.0.0.9"]}
    backend = app(hosts=[host], public=True, http=[https, exact])
    built = snapshot(configured([backend]))
    table = built.routes.lookup(host)
    assert table is not None
    carried = [end for path in (b"/", b"/x") for end in table.match(path).endpoints]  # type: ignore[union-attr]
    assert len(carried) == 3
    assert [built.endpoints[end] is None for end in carried] == [False, True, True]
