"""T1, T3: which certificate a whole proxy shows for a name, whatever somebody put into a Secret."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.fakes.certificates import make_pair
from tests.fakes.heim import DOMAIN, LOGIN_HOST, Heim
from tests.fakes.upstream import Upstream

OPEN = {"name": "open", "public": True, "http": [{"path": "/", "upstream": "http://127.0.0.1:1"}]}
MINE = f"mine.{DOMAIN}"
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"


async def shown(heim: Heim, name: str | None) -> x509.Certificate | None:
    """The certificate that a client is shown who asks for a name; None when it gets none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", heim.https_port, ssl=context, server_hostname=name or ""
        )
    except (ssl.SSLError, ConnectionError):
        return None
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(der)


async def names_for(heim: Heim, name: str | None) -> list[str]:
    found = await shown(heim, name)
    if found is None:
        return []
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


async def facts(heim: Heim) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(heim.directory / "admin.sock"))
    writer.write(b"GET /debug/certificates HTTP/1.0\r\nHost: localhost\r\n\r\n")
    data = await reader.read()
    writer.close()
    found: dict[str, Any] = json.loads(data.partition(b"\r\n\r\n")[2])
    return found


@asynccontextmanager
async def running(directory: Path, **tls: Any) -> AsyncIterator[Heim]:
    heim = await Heim.start(directory, backends=[OPEN], tls=tls)
    try:
        yield heim
    finally:
        await heim.stop()


OWN = ["self-signed.heim.invalid"]


async def test_T1_a_secret_with_somebody_elses_names_is_shown_for_its_hosts_alone(
    tmp_path: Path,
) -> None:
    stolen = [MINE, LOGIN_HOST, f"*.{DOMAIN}", "bank.test"]
    make_pair(*stolen).write(tmp_path / "thief")
    make_pair("bank.test", LOGIN_HOST).write(tmp_path / "bank")
    listed = [
        {"directory": str(tmp_path / "thief"), "hosts": [MINE]},
        {"directory": str(tmp_path / "bank"), "hosts": ["bank.test"]},
    ]
    async with running(tmp_path, certificates=listed, self_signed=True) as heim:
        for spelled in (MINE, MINE.upper(), f"{MINE}."):
            assert await names_for(heim, spelled) == stolen
        assert await names_for(heim, "bank.test") == ["bank.test", LOGIN_HOST]
        for name in (LOGIN_HOST, f"open.{DOMAIN}", f"a.{MINE}", DOMAIN, "elsewhere.test", None):
            assert await names_for(heim, name) == OWN, name
        before = heim.generation
        heim.document["tls"] = {"certificates": listed}
        heim.write()
        await heim.until(lambda: heim.generation > before)
        assert await names_for(heim, MINE) == stolen
        for name in (LOGIN_HOST, f"open.{DOMAIN}", "elsewhere.test", None):
            assert await shown(heim, name) is None, name


async def test_T3_a_secret_that_is_spoilt_serves_on_as_it_was(tmp_path: Path) -> None:
    make_pair(MINE, "b.test").write(tmp_path / "tls")
    listed = [{"directory": str(tmp_path / "tls"), "hosts": [MINE, "b.test"]}]
    async with running(tmp_path, certificates=listed, self_signed=True) as heim:
        good = await shown(heim, MINE)
        assert good is not None
        for spoilt in (
            make_pair("somebody-else.test"),
            make_pair(MINE),
            make_pair(MINE, "b.test", end_days=-0.5),
        ):
            spoilt.write(tmp_path / "tls")

            async def noticed() -> None:
                while (await facts(heim))["certificates"][0]["problem"] is None:
                    await asyncio.sleep(0.05)

            async with asyncio.timeout(4):
                await noticed()
            assert await shown(heim, MINE) == await shown(heim, "b.test") == good
            make_pair(MINE, "b.test").write(tmp_path / "tls")
            async with asyncio.timeout(4):
                while await shown(heim, MINE) == good:
                    await asyncio.sleep(0.05)
            good = await shown(heim, MINE)
            assert (await facts(heim))["certificates"][0]["problem"] is None


async def test_a_proxy_without_any_certificate_gets_its_first_one_by_http_01(
    tmp_path: Path,
) -> None:
    solver = await Upstream().start()
    listed = [{"directory": str(tmp_path / "tls"), "hosts": [LOGIN_HOST]}]
    challenge = {"host": LOGIN_HOST, "token": TOKEN, "upstreams": [solver.url]}
    heim = await Heim.start(
        tmp_path,
        backends=[OPEN],
        tls={"certificates": listed, "self_signed": True},
        acme_challenges=[challenge],
    )
    try:
        own = await shown(heim, LOGIN_HOST)
        assert await names_for(heim, LOGIN_HOST) == OWN
        path = f"/.well-known/acme-challenge/{TOKEN}"
        assert (await heim.request(path, host=LOGIN_HOST, plain=True)).status == 200
        make_pair(LOGIN_HOST).write(tmp_path / "tls")
        async with asyncio.timeout(4):
            while await names_for(heim, LOGIN_HOST) == OWN:
                await asyncio.sleep(0.05)
        assert await names_for(heim, LOGIN_HOST) == [LOGIN_HOST]
        assert await shown(heim, "elsewhere.test") == own
    finally:
        await heim.stop()
        await solver.stop()
    async with running(tmp_path, certificates=[], self_signed=True) as again:
        assert await shown(again, LOGIN_HOST) == own
