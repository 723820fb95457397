"""A snapshot that takes over what did not change is the snapshot that one from scratch is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_config.layers import Remembered, combine, read_boot, read_document
from heim_config.model import Config
from heim_controller.translation.document import canonical
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.pieces import Pieces, SnapshotError
from heim_proxy.snapshot import Snapshot, build
from tests.fakes.thorough import examples

HOSTS = ("a.test", "b.test", "*.test", "c.b.test")
BOOT = """
version: 1
domain: x.example.com
source: {kubernetes: {config_map: heim-configuration}}
identity:
  providers:
    - {name: idp, type: oidc, issuer: https://idp.test, client_id: x, client_secret_env: SECRET}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("boot")
    (directory / "boot.yaml").write_text(BOOT)
    return directory


@pytest.fixture(scope="module")
def keys(folder: Path) -> SigningKeys:
    return SigningKeys.load_or_create(folder / "assertion.pem")


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Backends of a few kinds on hosts of their own, and a role for some."""
    backends: list[dict[str, Any]] = []
    bindings: list[dict[str, Any]] = []
    for host in draw(st.lists(st.sampled_from(HOSTS), unique=True)):
        name = f"on-{HOSTS.index(host)}"
        made: dict[str, Any] = {"name": name, "hosts": [host]}
        kind = draw(st.sampled_from(("open", "closed", "https", "streams", "both", "gone")))
        port = draw(st.sampled_from((80, 81)))
        route = {"path": draw(st.sampled_from(("/", "/x"))), "upstreams": [f"http://h:{port}"]}
        match kind:
            case "open":
                made |= {"public": True, "http": [route]}
            case "https":
                made |= {"public": True, "http": [{**route, "upstreams": ["https://s:443"]}]}
            case "gone":
                made |= {"public": True, "http": [{"path": "/", "unavailable": "gone"}]}
            case "streams":
                made |= {"tcp": {"upstream": f"h:{port}"}}
            case _:
                made |= {"http": [route]}
                made["permissions"] = [{"name": "all", "locations": [{"any": "/"}]}]
                bindings.append({"backend": name, "permission": "all"})
        if kind == "both":
            made |= {"tcp": {"upstream": f"h:{port}"}}
            bindings.append({"backend": name})
        backends.append(made)
    member = draw(st.sampled_from(({"user": "a@b.test"}, {"group": "g"}, {"domain": "b.test"})))
    roles = [{"name": "users", "members": [member], "bindings": bindings}] if bindings else []
    return {"backends": backends, "roles": roles, "tls": {"self_signed": True}}


def told(snapshot: Snapshot) -> dict[str, object]:
    """All that a snapshot says, without who its objects are."""
    tables = {host: snapshot.routes.lookup(host) for host in snapshot.routes.hosts()}
    routes = {
        host: (
            [(one.path, one.match, one.endpoints, one.unavailable, one.backend.name)
             for one in (*table.prefixes, *table.exact.values())],
            table.tcp and (table.tcp.endpoint, table.tcp.backend.name), table.plain, table.host,
        )
        for host, table in tables.items() if table is not None
    }  # fmt: skip
    return {
        "routes": routes,
        "backends": list(snapshot.backends),
        "tcp": {name: one.endpoint for name, one in snapshot.tcp.items()},
        "endpoints": {one: context is None for one, context in snapshot.endpoints.items()},
        "roles": snapshot.policy.roles,
        "known": (snapshot.policy.backends, snapshot.policy.tcp),
        "public": dict(snapshot.public),
        "groups": snapshot.groups,
    }


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(documents(), min_size=1, max_size=5))
def test_any_sequence_of_documents_gives_what_each_gives_alone(
    folder: Path, keys: SigningKeys, found: list[dict[str, Any]]
) -> None:
    boot = read_boot(folder / "boot.yaml", check_files=False)
    remembered, pieces = Remembered(), Pieces()

    def config(content: bytes, memory: Remembered | None) -> Config:
        document = read_document(
            content, name="document", lines=None if memory is None else memory.lines
        )
        return combine(boot, document, name="d", check_files=False, remembered=memory)

    for document in found:
        content = canonical(document)
        late, alone = config(content, remembered), config(content, None)
        assert late == alone
        made = build(late, generation=1, signing_keys=keys, providers=(), pieces=pieces)
        fresh = build(alone, generation=1, signing_keys=keys, providers=())
        assert told(made) == told(fresh)
        # What requests carry is what their connections are found by.
        for host in made.routes.hosts():
            table = made.routes.lookup(host)
            assert table is not None
            for route in table.prefixes:
                assert all(one in made.endpoints for one in route.endpoints)


def config_of(
    folder: Path, *backends: dict[str, Any], memory: Remembered, more: str = ""
) -> Config:
    (folder / "own.yaml").write_text(BOOT + more)
    content = canonical({"backends": list(backends), "tls": {"self_signed": True}})
    document = read_document(content, name="d", lines=memory.lines)
    boot = read_boot(folder / "own.yaml", check_files=False)
    return combine(boot, document, name="d", check_files=False, remembered=memory)


def open_backend(name: str, path: str = "/", **keys: Any) -> dict[str, Any]:
    route = {"path": path, "upstreams": ["http://h:80"]}
    return {"name": name, "public": True, "http": [route], **keys}


def test_the_parts_of_what_did_not_change_are_the_same_objects(tmp_path: Path) -> None:
    memory, pieces = Remembered(), Pieces()
    one, two = open_backend("one"), open_backend("two")
    first = pieces.of(config_of(tmp_path, one, two, memory=memory))
    second = pieces.of(config_of(tmp_path, one, open_backend("two", "/x"), memory=memory))
    assert second[0] is first[0]
    assert second[1].routes[0][1].path == b"/x"


def test_another_domain_is_another_host(tmp_path: Path) -> None:
    memory, pieces = Remembered(), Pieces()
    config = config_of(tmp_path, open_backend("one"), memory=memory)
    [piece] = pieces.of(config)
    [moved] = pieces.of(config.model_copy(update={"domain": "y.example.com"}))
    assert [host for host, _ in piece.routes] == ["one.x.example.com"]
    assert [host for host, _ in moved.routes] == ["one.y.example.com"]


def test_it_holds_the_last_snapshots_parts(tmp_path: Path) -> None:
    memory, pieces = Remembered(), Pieces()
    pieces.of(config_of(tmp_path, open_backend("one"), open_backend("two"), memory=memory))
    pieces.of(config_of(tmp_path, open_backend("one"), memory=memory))
    assert repr(pieces) == "<Pieces backends=1>"


def test_a_path_that_cannot_be_used_is_told_and_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    memory, pieces = Remembered(), Pieces()
    good = config_of(tmp_path, open_backend("one"), memory=memory)
    [before] = pieces.of(good)
    [bad] = good.backends
    route = bad.http[0].model_copy(update={"path": "/a%2fb"})
    broken = bad.model_copy(update={"http": (route,)})
    with pytest.raises(SnapshotError, match="encoded slash"):
        pieces.of(good.model_copy(update={"backends": (bad, broken)}))
    [after] = pieces.of(good)
    assert after is before


def test_what_a_document_names_is_guarded_and_what_the_operator_names_is_not(
    tmp_path: Path,
) -> None:
    tcp = {"name": "ssh", "tcp": {"upstream": "h:22"}}
    config = config_of(tmp_path, open_backend("one"), tcp, memory=Remembered())
    pieces = Pieces()
    for source, guarded in ((config.source, True), (None, False)):
        one, two = pieces.of(config.model_copy(update={"source": source}))
        assert [endpoint.guarded for endpoint in one.endpoints] == [guarded]
        assert two.target is not None
        assert two.target.endpoint.guarded is guarded
