from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest

from heim_proxy.certs.load import CertificateFiles, Loaded, load
from heim_proxy.certs.store import CertStore, presented_key
from tests.fakes.agent import spki_digest
from tests.fakes.certificates import CA_PEM, make_pair
from tests.fakes.loops import LOOPS, run_on


def loaded(directory: Path, *names: str, hosts: tuple[str, ...] = ()) -> Loaded:
    make_pair(*names).write(directory)
    files = replace(CertificateFiles.directory(directory), hosts=hosts)
    return load(files, now=time.time())


@pytest.fixture
def pairs(tmp_path: Path) -> list[Loaded]:
    return [
        loaded(tmp_path / "default", "first.example.test"),
        loaded(tmp_path / "wild", "*.example.test"),
        loaded(tmp_path / "exact", "app.example.test", "example.test"),
        loaded(tmp_path / "late", "app.example.test"),
    ]


FOUND = {
    "exact": ("app.example.test", 2),
    "exact-beats-wildcard": ("first.example.test", 0),
    "wildcard": ("other.example.test", 1),
    "wildcard-is-one-label": ("a.b.example.test", 0),
    "wildcard-is-not-its-parent": ("example.test", 2),
    "no-label-before-the-dot": (".example.test", 0),
    "unknown": ("elsewhere.test", 0),
    "none": ("", 0),
}


@pytest.mark.parametrize(("name", "index"), FOUND.values(), ids=FOUND)
def test_exact_then_one_label_wildcard_then_the_first(
    name: str, index: int, pairs: list[Loaded]
) -> None:
    store = CertStore()
    store.install(pairs)
    assert store.find(name) is pairs[index]


MINE = "mine.example.test"
VICTIM = "auth.example.test"


@pytest.fixture
def listing(tmp_path: Path) -> list[Loaded]:
    """What an administrator gave, and what three namespaces gave for hosts of theirs."""
    return [
        loaded(tmp_path / "thief", MINE, VICTIM, "*.example.test", hosts=(MINE,)),
        loaded(tmp_path / "central", "*.example.test", "both.example.test"),
        loaded(tmp_path / "listed", "both.example.test", hosts=("both.example.test",)),
        loaded(tmp_path / "wild", "*.wild.test", hosts=("*.wild.test", "a.wild.test", "no.test")),
    ]


LISTED = {
    "T1-its-own-host": (MINE, 0),
    "T1-not-a-name-it-merely-has": (VICTIM, 1),
    "T1-not-by-its-wildcard": ("other.example.test", 1),
    "T1-not-where-nothing-fits": ("elsewhere.test", 1),
    "T1-not-for-clients-without-a-name": ("", 1),
    "listed-beats-an-earlier-one-that-has-it": ("both.example.test", 2),
    "a-listed-wildcard": ("b.wild.test", 3),
    "a-listed-name-by-a-wildcard": ("a.wild.test", 3),
    "listed-but-not-in-it": ("no.test", 1),
}


@pytest.mark.parametrize(("name", "index"), LISTED.values(), ids=LISTED)
def test_a_pair_that_lists_names_is_for_them_and_for_no_other(
    name: str, index: int, listing: list[Loaded]
) -> None:
    store = CertStore()
    store.install(listing)
    assert store.find(name) is listing[index]


def test_names_that_a_wildcard_covers_stay_with_whoever_lists_them(tmp_path: Path) -> None:
    """A listed wildcard is no claim on a name that another pair holds exactly."""
    exact = loaded(tmp_path / "exact", "app.example.test")
    wild = loaded(tmp_path / "wild", "*.example.test", hosts=("*.example.test",))
    store = CertStore()
    store.install([wild, exact])
    assert store.find("app.example.test") is exact
    assert store.find("other.example.test") is wild


def test_where_every_pair_lists_names_others_get_none(listing: list[Loaded]) -> None:
    store = CertStore()
    store.install([listing[0]])
    assert store.find(MINE) is listing[0]
    for name in (VICTIM, "other.example.test", "elsewhere.test", ""):
        assert store.find(name) is None


def test_one_of_our_own_is_for_names_that_nothing_fits(
    listing: list[Loaded], tmp_path: Path
) -> None:
    own = loaded(tmp_path / "own", "self-signed.test")
    store = CertStore()
    store.install(listing, own=own)
    assert store.find("elsewhere.test") is store.find("self-signed.test") is own
    # Who names nobody gets the administrator's, as without one of our own.
    assert store.find("") is store.find(VICTIM) is listing[1]
    store.install([listing[0]], own=own)
    assert store.find("") is store.find(VICTIM) is own
    store.install([], own=own)
    assert store.find("") is store.find(MINE) is own
    assert store.names() == {}


def test_names_tell_which_pair_each_gets(listing: list[Loaded]) -> None:
    store = CertStore()
    store.install(listing)
    assert dict(store.names()) == {
        MINE: listing[0],
        "both.example.test": listing[2],
        "a.wild.test": listing[3],
        "*.wild.test": listing[3],
        "*.example.test": listing[1],
    }


def test_a_store_cannot_be_emptied(pairs: list[Loaded]) -> None:
    store = CertStore()
    assert store.find("app.example.test") is None
    store.install(pairs)
    with pytest.raises(ValueError, match="at least one"):
        store.install([])
    assert store.find("app.example.test") is pairs[2]


def test_plain_http_was_shown_no_key() -> None:
    assert presented_key(None) == b""


@dataclass
class Hello:
    """What a client saw."""

    certificate_names: list[str]
    key: str
    server_saw: str
    server_showed: str
    alpn: str | None
    version: str | None
    reused: bool
    session: ssl.SSLSession | None


class TellName(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        told = f"{getattr(tls, 'heim_sni', '')} {presented_key(tls).hex()}\n"
        transport.write(told.encode())  # type: ignore[attr-defined]
        transport.close()


def client(
    *, alpn: Sequence[str] = ("http/1.1",), version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=CA_PEM)
    context.maximum_version = version
    context.set_alpn_protocols(list(alpn))
    return context


def hello(
    address: tuple[str, int],
    name: str | None,
    context: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
) -> Hello:
    with (
        socket.create_connection(address, timeout=4) as sock,
        context.wrap_socket(sock, server_hostname=name, session=session) as tls,
    ):
        saw, _, showed = tls.makefile("rb").readline().decode().rstrip("\n").partition(" ")
        certificate = tls.getpeercert() or {}
        names = [value for _, value in certificate.get("subjectAltName", ())]
        return Hello(
            names,
            spki_digest(tls.getpeercert(binary_form=True) or b"").hex(),
            saw,
            showed,
            tls.selected_alpn_protocol(),
            tls.version(),
            bool(tls.session_reused),
            tls.session,
        )


class Server:
    """A TLS server on the store's context."""

    def __init__(self, store: CertStore) -> None:
        self._store = store

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(TellName, "127.0.0.1", 0, ssl=self._store.context)
        self._address = self._server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def hello(
        self, name: str | None, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> Hello:
        return await asyncio.to_thread(hello, self._address, name, context, session)


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_the_client_gets_the_certificate_of_the_name_it_asked_for(
    loop_name: str, version: ssl.TLSVersion, pairs: list[Loaded]
) -> None:
    async def scenario() -> None:
        store = CertStore()
        store.install(pairs)
        async with Server(store) as server:
            seen = [
                await server.hello(name, client(version=version))
                for name in ("App.Example.Test", "other.example.test", "elsewhere.test", None)
            ]
        assert [one.certificate_names[0] for one in seen] == [
            "app.example.test",
            "*.example.test",
            "first.example.test",
            "first.example.test",
        ]
        # What an agent signs is what it was shown, whichever pair that was.
        assert [one.server_showed for one in seen] == [one.key for one in seen]
        assert len({one.key for one in seen}) == 3
        assert [one.server_saw for one in seen] == [
            "app.example.test",
            "other.example.test",
            "elsewhere.test",
            "",
        ]
        assert {one.version for one in seen} == {f"TLSv1.{version.value - 0x301}"}

    run_on(loop_name, scenario())


@pytest.mark.parametrize("loop_name", LOOPS)
def test_http_1_1_is_the_only_protocol_offered(loop_name: str, pairs: list[Loaded]) -> None:
    async def scenario() -> None:
        store = CertStore()
        store.install(pairs)
        async with Server(store) as server:
            both = await server.hello("app.example.test", client(alpn=("h2", "http/1.1")))
            only = await server.hello("app.example.test", client(alpn=("h2",)))
        assert (both.alpn, only.alpn) == ("http/1.1", None)

    run_on(loop_name, scenario())


@pytest.mark.parametrize("loop_name", LOOPS)
def test_tls_1_1_is_refused(loop_name: str, pairs: list[Loaded]) -> None:
    async def scenario() -> None:
        store = CertStore()
        store.install(pairs)
        old = client()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        # OpenSSL's own default refuses to even try.
        old.set_ciphers("ALL:@SECLEVEL=0")
        async with Server(store) as server:
            with pytest.raises(ssl.SSLError):
                await server.hello("app.example.test", old)

    run_on(loop_name, scenario())


@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_a_change_is_served_at_once_and_session_tickets_survive_it(
    loop_name: str, version: ssl.TLSVersion, pairs: list[Loaded], tmp_path: Path
) -> None:
    async def scenario() -> None:
        store = CertStore()
        store.install(pairs)
        async with Server(store) as server:
            context = client(version=version)
            before = await server.hello("app.example.test", context)
            assert not before.reused
            store.install([loaded(tmp_path / "new", "app.example.test", "new.example.test")])
            fresh = await server.hello("app.example.test", client(version=version))
            resumed = await server.hello("app.example.test", context, before.session)
        assert "new.example.test" in fresh.certificate_names
        assert resumed.reused
        assert resumed.server_saw == "app.example.test"

    run_on(loop_name, scenario())


@pytest.mark.parametrize("loop_name", LOOPS)
def test_a_name_that_nobody_lists_gets_no_certificate(
    loop_name: str, listing: list[Loaded]
) -> None:
    async def scenario() -> None:
        store = CertStore()
        store.install([listing[0]])
        async with Server(store) as server:
            assert (await server.hello(MINE, client())).server_saw == MINE
            for name in (VICTIM, None):
                with pytest.raises(ssl.SSLError):
                    await server.hello(name, client())

    run_on(loop_name, scenario())


@pytest.mark.parametrize("loop_name", LOOPS)
def test_before_the_first_certificate_handshakes_fail(loop_name: str) -> None:
    async def scenario() -> None:
        async with Server(CertStore()) as server:
            with pytest.raises(ssl.SSLError):
                await server.hello("app.example.test", client())

    run_on(loop_name, scenario())
