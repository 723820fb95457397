from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
import trustme

from heim_controller.kube.client import Client
from heim_controller.kube.credentials import (
    Connection,
    Kubeconfig,
    ServiceAccount,
    find_credentials,
)
from heim_controller.kube.errors import Unconfigured, Unreachable
from heim_controller.kube.resources import CONFIG_MAPS
from tests.fakes.kube import FakeKube, Known, kubeconfig

CA = trustme.CA()


def account(folder: Path, *, token: str = "secret-token", ca: trustme.CA = CA) -> Path:
    """What kubelet mounts."""
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(token)
    (folder / "namespace").write_text("heim\n")
    ca.cert_pem.write_to_path(str(folder / "ca.crt"))
    return folder


def served(ca: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def pod(url: str) -> dict[str, str]:
    host, port = url.removeprefix("https://").split(":")
    return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


async def test_a_pod_speaks_as_its_service_account(tmp_path: Path) -> None:
    async with FakeKube(tls=served()) as kube:
        credentials = ServiceAccount(pod(kube.url), folder=account(tmp_path / "a"))
        assert credentials.namespace == "heim"
        async with Client(credentials) as client:
            await client.list(CONFIG_MAPS)
            assert client.namespace == "heim"


async def test_a_token_with_a_line_end_is_still_one(tmp_path: Path) -> None:
    async with FakeKube(tls=served()) as kube:
        folder = account(tmp_path / "a", token="secret-token\n")
        async with Client(ServiceAccount(pod(kube.url), folder=folder)) as client:
            await client.list(CONFIG_MAPS)


async def test_a_server_of_another_authority_is_not_trusted(tmp_path: Path) -> None:
    async with FakeKube(tls=served(trustme.CA())) as kube:
        folder = account(tmp_path / "a")
        async with Client(ServiceAccount(pod(kube.url), folder=folder)) as client:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await client.list(CONFIG_MAPS)
        assert kube.asked == []


async def test_an_authority_that_was_replaced_on_disk_is_read_again(tmp_path: Path) -> None:
    other = trustme.CA()
    async with FakeKube(tls=served(other)) as kube:
        folder = account(tmp_path / "a")
        async with Client(ServiceAccount(pod(kube.url), folder=folder)) as client:
            await client.exchange.connected()
            account(folder, ca=other)
            await client.list(CONFIG_MAPS)
            assert client.exchange.reloads == 1


async def test_a_token_file_that_is_gone_leaves_the_last_token(tmp_path: Path) -> None:
    async with FakeKube(tls=served()) as kube:
        folder = account(tmp_path / "a")
        async with Client(ServiceAccount(pod(kube.url), folder=folder)) as client:
            await client.exchange.connected()
            (folder / "token").unlink()
            await client.list(CONFIG_MAPS)


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
async def test_half_a_service_account_is_none(tmp_path: Path, missing: str) -> None:
    folder = account(tmp_path / "a")
    (folder / missing).unlink()
    with pytest.raises(Unconfigured, match="service account"):
        await ServiceAccount(pod("https://127.0.0.1:1"), folder=folder).load()


@pytest.mark.parametrize("by_file", [True, False], ids=["tokenFile", "token"])
async def test_a_kubeconfig_is_read(tmp_path: Path, by_file: bool) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("secret-token")
    async with FakeKube() as kube:
        path = kubeconfig(
            tmp_path / "config", kube.url,
            token_file=token_file if by_file else None, token="secret-token",
        )  # fmt: skip
        client = await Client.from_kubeconfig(path)
        async with client:
            assert client.namespace == "heim"
            await client.list(CONFIG_MAPS)


async def test_a_kubeconfig_may_name_an_authority(tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with FakeKube(tls=served()) as kube:
        path = kubeconfig(
            tmp_path / "config", kube.url, token="secret-token", ca=str(tmp_path / "ca.pem")
        )
        async with await Client.from_kubeconfig(path) as client:
            await client.list(CONFIG_MAPS)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "apiVersion: v1", "contexts: 7\ncurrent-context: x", "\t- a: b: c"],
    ids=["empty", "cut", "list", "null", "bare", "odd", "not YAML"],
)
async def test_a_file_that_is_no_kubeconfig_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(Unconfigured, match=str(path)):
        await Client.from_kubeconfig(path)
    assert Kubeconfig(path).namespace == "default"


async def test_a_context_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    with pytest.raises(Unconfigured, match="nowhere"):
        await Client.from_kubeconfig(path, context="nowhere")


def test_a_pod_is_known_by_its_environment(tmp_path: Path) -> None:
    assert isinstance(find_credentials({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}), ServiceAccount)
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    found = find_credentials({"KUBECONFIG": str(path)})
    assert isinstance(found, Kubeconfig)
    assert str(path) in repr(found)


def test_what_somebody_set_wins_in_a_pod_too(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert isinstance(find_credentials({**pod, "KUBECONFIG": str(path)}), Kubeconfig)
    assert isinstance(find_credentials({**pod, "KUBECONFIG": ""}), ServiceAccount)
    # Never the service account instead: it may be another cluster, and other rights.
    with pytest.raises(Unconfigured, match="no file"):
        find_credentials({**pod, "KUBECONFIG": str(tmp_path / "none")})


def test_nowhere_to_look_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unconfigured, match="KUBECONFIG"):
        find_credentials({"KUBECONFIG": str(tmp_path / "none")})


async def test_a_token_is_in_no_repr() -> None:
    connection = Connection(await Known("http://127.0.0.1:1", "hush").load(), proxied=False)
    try:
        assert "hush" not in repr(connection) + repr(Kubeconfig()) + repr(ServiceAccount({}))
    finally:
        await connection.close()


async def test_connections_notice_a_peer_that_is_gone() -> None:
    async with FakeKube() as kube:
        client = kube.client()
        async with client.watch(CONFIG_MAPS, version=str(kube.store.revision)):
            connection = await client.exchange.connected()
            held = connection._session.connector._acquired  # type: ignore[union-attr]
            (protocol,) = held
            sock = protocol.transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
