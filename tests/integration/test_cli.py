"""The commands of heim-proxy as an operator runs them: exit status, stdout for data, stderr."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.session_cookie import new_sid
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.heim import LOGIN_HOST, Heim, user
from tests.fakes.upstream import Upstream
from tests.integration.process import HEIM_PROXY, HeimProcess, heim_proxy, running
from tests.integration.setup import APP, OPEN, alice_only, app_backend, public_backend

UPSTREAM = "http://127.0.0.1:9"


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration with all its files; no proxy runs."""
    heim = Heim.prepare(
        tmp_path, backends=[app_backend(UPSTREAM), public_backend(UPSTREAM)], roles=alice_only()
    )
    return str(heim.config_file)


# -- help and usage -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "",
        "run",
        "check",
        "init",
        "keygen",
        "explain",
        "session",
        "session list",
        "session revoke",
        "subject",
        "subject list",
        "subject unpin",
        "token",
        "token create",
        "token list",
        "token revoke",
        "demo",
    ],
)
async def test_every_command_explains_itself_on_stdout(command: str) -> None:
    found = await heim_proxy(*command.split(), "--help")
    assert (found.status, found.err) == (0, "")
    assert found.out.startswith(f"usage: heim-proxy {command}".rstrip())


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nosuch"],
        ["session"],
        ["explain", "GET"],
        ["keygen", "nosuch"],
        ["check", "--nosuch"],
        ["demo", "--port", "65536"],
        ["session", "revoke"],
        ["session", "revoke", "x", "--everybody"],
        ["token", "create"],
        ["token", "revoke", "x", "--account", "y"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_2_and_says_so_on_stderr(args: list[str]) -> None:
    found = await heim_proxy(*args)
    assert (found.status, found.out) == (2, "")
    assert found.err.startswith("usage: heim-proxy")
    assert "error: " in found.err


async def test_the_version_is_data() -> None:
    found = await heim_proxy("--version")
    assert (found.status, found.err) == (0, "")
    assert re.fullmatch(r"heim-proxy \d+\.\d+\S*\n", found.out)


# -- check, init, keygen ------------------------------------------------------------------------


async def test_check_says_ok_and_counts(config: str) -> None:
    found = await heim_proxy("check", "--config", config)
    assert (found.status, found.err) == (0, "")
    assert found.out.startswith(f"{config}: ok: 2 backends on 2 hosts")


async def test_check_tells_every_mistake_with_its_line_and_the_nearest_key(
    config: str, tmp_path: Path
) -> None:
    text = Path(config).read_text()
    broken = text.replace("upstream: http", "upstrem: http").replace("backend: app", "backend: ap")
    Path(config).write_text(broken.replace("cert_file: tls.crt", "cert_file: nosuch.crt"))
    found = await heim_proxy("check", "--config", config)
    assert (found.status, found.out) == (2, "")
    *mistakes, count = found.err.splitlines()
    assert count == f"{len(mistakes)} mistakes found"
    for line in mistakes:
        assert re.match(rf"{re.escape(config)}:\d+: [\w.\[\]]+: ", line), line
    assert "did you mean upstream?" in found.err
    assert "did you mean app?" in found.err
    assert str(tmp_path / "nosuch.crt") in found.err


async def test_check_of_a_file_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    found = await heim_proxy("check", "--config", str(tmp_path / "heim.yaml"))
    assert (found.status, found.out) == (2, "")
    assert "No such file" in found.err
    assert "heim-proxy init" in found.err


async def test_the_configuration_may_come_from_the_environment(config: str) -> None:
    found = await heim_proxy("check", env={"HEIM_CONFIG": config})
    assert found.status == 0


async def test_what_init_writes_passes_check_once_its_files_are_there(tmp_path: Path) -> None:
    written = await heim_proxy("init", "--domain", "corp.example")
    assert written.status == 0
    assert "auth.corp.example" in written.out
    assert "heim-proxy check" in written.err
    (tmp_path / "heim.yaml").write_text(written.out)
    before = await heim_proxy("check", cwd=tmp_path)
    assert before.status == 2
    for named in ("tls/tls.crt", "tls/tls.key", "secrets/session.keys", "secrets/google"):
        assert f"the file {named} cannot be read" in before.err
    for folder in ("tls", "secrets"):
        (tmp_path / folder).mkdir()
    keys = await heim_proxy("keygen", "session")
    secret = tmp_path / "secrets" / "session.keys"
    secret.write_text(keys.out)
    secret.chmod(0o600)
    (tmp_path / "secrets" / "google").write_text("a secret")
    Heim.prepare(tmp_path / "tls", backends=[], hosts=("*.corp.example",))
    after = await heim_proxy("check", cwd=tmp_path)
    assert (after.status, after.err) == (0, "")


async def test_init_refuses_what_is_no_domain() -> None:
    found = await heim_proxy("init", "--domain", "not a domain")
    assert (found.status, found.out) == (2, "")
    assert "not a host name" in found.err


async def test_keygen_prints_fresh_keys_that_heim_can_read(tmp_path: Path) -> None:
    lines = [await heim_proxy("keygen", "session") for _ in range(2)]
    assert all((found.status, found.err) == (0, "") for found in lines)
    assert len(KeyRing.parse("".join(found.out for found in lines))) == 2
    pem = await heim_proxy("keygen", "assertion")
    assert (pem.status, pem.err) == (0, "")
    (tmp_path / "assertion.pem").write_text(pem.out)
    (tmp_path / "assertion.pem").chmod(0o600)
    (key,) = SigningKeys.load(tmp_path / "assertion.pem").jwks()["keys"]
    assert key["crv"] == "P-256"
    assert "d" not in key


# -- explain ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "method", "url", "status", "said"),
    [
        (
            "alice@example.com",
            "GET",
            f"https://{APP}/x",
            0,
            "ALLOWED: alice@example.com: GET /x on app",
        ),
        ("alice@example.com", "get", f"https://{APP}/x", 0, "ALLOWED"),
        ("bob@example.com", "GET", f"https://{APP}/x", 1, "REFUSED (no_role)"),
        (
            "bob@example.com",
            "GET",
            f"https://{OPEN}/",
            0,
            "ALLOWED: everybody: backend open is public",
        ),
        ("alice@example.com", "GET", "https://nosuch.example.test/", 1, "REFUSED (not_found)"),
        ("alice@example.com", "GET", f"https://{APP}/a%2fb", 1, "REFUSED (ambiguous_path)"),
        ("bob@example.com", "GET", f"https://{APP}/.heim/me", 0, "Heim's own pages"),
    ],
    ids=["allowed", "small letters", "no role", "public", "no backend", "two ways", "our pages"],
)
async def test_explain_says_who_may_what(
    who: str, method: str, url: str, status: int, said: str, config: str
) -> None:
    found = await heim_proxy("explain", "--config", config, "--as", who, method, url)
    assert (found.status, found.err) == (status, "")
    assert said in found.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--as", "bob", "GET", f"https://{APP}/"], "neither an e-mail address nor service:NAME"),
        (["--as", "service:ci", "GET", f"https://{APP}/"], "no service account 'ci'"),
        (["--as", "a@example.com", "GET", "app"], "is not an address"),
        (["--as", "a@example.com", "GET", "ftp://app.example.test/"], "is not an address"),
        (
            ["--as", "a@example.com", "--provider", "x", "GET", f"https://{APP}/"],
            "there is no provider 'x'",
        ),
    ],
    ids=["no address", "no such account", "no URL", "ftp", "no such provider"],
)
async def test_explain_of_a_wrong_question_is_2(args: list[str], said: str, config: str) -> None:
    found = await heim_proxy("explain", "--config", config, *args)
    assert (found.status, found.out) == (2, "")
    assert said in found.err


async def test_a_reader_that_stops_early_is_no_traceback() -> None:
    process = await asyncio.create_subprocess_shell(
        f"'{HEIM_PROXY}' init | head -1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out.count(b"\n") == 1
    assert b"Traceback" not in err


# -- session and subject ------------------------------------------------------------------------


@pytest.fixture
async def heim(tmp_path: Path, upstream: Upstream) -> AsyncIterator[HeimProcess]:
    async with running(
        tmp_path, backends=[app_backend(upstream.url)], roles=alice_only()
    ) as started:
        yield started


async def test_sessions_are_listed_and_revoked_beside_a_running_proxy(heim: HeimProcess) -> None:
    alice, bob = await heim.session(user("alice")), await heim.session(user("bob"))
    cookie = await heim.cookie_of(alice, APP)
    assert (await heim.request(cookie=cookie)).status == 200
    where = ("--config", str(heim.config_file))

    listed = await heim_proxy("session", "list", *where)
    assert (listed.status, listed.err) == (0, "")
    rows = [line.split("\t") for line in listed.out.splitlines()]
    assert {row[0] for row in rows} == {alice.sid, bob.sid}
    assert {(row[1], row[2], row[5]) for row in rows} == {
        ("alice@example.com", "test", "live"),
        ("bob@example.com", "test", "live"),
    }

    revoked = await heim_proxy("session", "revoke", *where, alice.sid)
    assert (revoked.status, revoked.out, revoked.err) == (0, "", "1 session revoked\n")
    again = await heim_proxy("session", "revoke", *where, alice.sid)
    assert (again.status, again.err) == (1, "0 sessions revoked\n")
    async with asyncio.timeout(2):
        while (await heim.request(cookie=cookie)).status != 401:
            await asyncio.sleep(0.05)

    only_live = await heim_proxy("session", "list", *where)
    assert [line.split("\t")[0] for line in only_live.out.splitlines()] == [bob.sid]
    every = await heim_proxy("session", "list", *where, "--all", "--user", "alice@example.com")
    assert every.out.rstrip("\n").split("\t")[5:] == ["ended: revoked", "browser", "-"]
    everybody = await heim_proxy("session", "revoke", *where, "--everybody")
    assert (everybody.status, everybody.err) == (0, "1 session revoked\n")
    nobody = await heim_proxy("session", "list", *where)
    assert (nobody.status, nobody.out, nobody.err) == (0, "", "nobody is signed in\n")


async def test_a_token_works_and_ends_beside_a_running_proxy(
    tmp_path: Path, upstream: Upstream
) -> None:
    async with running(
        tmp_path,
        backends=[app_backend(upstream.url)],
        roles=alice_only(),
        service_accounts=[{"name": "backup"}],
    ) as heim:

        async def status(token: str) -> int:
            bearer = (("Authorization", f"Bearer {token}"),)
            answer = await heim.request("/.heim/cli/backends", host=LOGIN_HOST, headers=bearer)
            return answer.status

        where = ("--config", str(heim.config_file))
        made = await heim_proxy("token", "create", "backup", *where, "--expires", "1h")
        token, _, domains = made.out.rstrip("\n").partition("@")
        assert (made.status, token.startswith("heim_st_"), domains) == (0, True, "example.test")
        assert token not in made.err
        assert json.loads(made.err.splitlines()[0])["event"] == "token.created"
        assert await status(token) == 200
        assert await status(made.out.rstrip("\n")) == 401

        listed = await heim_proxy("token", "list", *where)
        (row,) = [line.split("\t") for line in listed.out.splitlines()]
        assert (row[1], row[5]) == ("backup", "live")
        revoked = await heim_proxy("token", "revoke", *where, row[0])
        assert (revoked.status, revoked.out) == (0, "")
        assert revoked.err.endswith("1 token revoked\n")
        async with asyncio.timeout(2):
            while await status(token) != 401:
                await asyncio.sleep(0.05)
        again = await heim_proxy("token", "revoke", *where, "--account", "backup")
        assert (again.status, again.err) == (1, "0 tokens revoked\n")
        assert token[33:] not in heim.log_file.read_text()


async def test_a_token_of_nobody_is_wrong_usage(heim: HeimProcess) -> None:
    found = await heim_proxy("token", "create", "nobody", "--config", str(heim.config_file))
    assert (found.status, found.out) == (2, "")
    assert "service_accounts" in found.err


def test_no_session_id_looks_like_an_option() -> None:
    """One in 64 random ids would begin with a dash, and `session revoke` would not take it."""
    assert not [sid for sid in (new_sid() for _ in range(2000)) if sid.startswith("-")]


async def test_a_pinned_account_is_listed_and_let_go(heim: HeimProcess) -> None:
    with closing(sqlite3.connect(heim.database, isolation_level=None)) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(pins)")]
        values = {
            "email": "alice@example.com",
            "issuer": "https://idp.example",
            "subject": "1001",
        }
        known = [values.get(name, time.time()) for name in columns]
        db.execute(f"INSERT INTO pins VALUES ({', '.join('?' * len(columns))})", known)
    where = ("--config", str(heim.config_file))
    listed = await heim_proxy("subject", "list", *where)
    assert listed.out.startswith("alice@example.com\thttps://idp.example\t1001\t")
    gone = await heim_proxy("subject", "unpin", *where, "Alice@example.com")
    assert (gone.status, gone.out) == (0, "")
    again = await heim_proxy("subject", "unpin", *where, "alice@example.com")
    assert (again.status, again.err) == (1, "alice@example.com: not pinned to any account\n")


async def test_before_the_first_run_there_is_no_state_to_list(config: str) -> None:
    found = await heim_proxy("session", "list", "--config", config)
    assert (found.status, found.out) == (1, "")
    assert "has the proxy run?" in found.err


# -- run ----------------------------------------------------------------------------------------


async def test_run_with_a_bad_configuration_is_2_and_lists_it(config: str) -> None:
    Path(config).write_text(Path(config).read_text().replace("public:", "publik:"))
    found = await heim_proxy("run", "--config", config)
    assert (found.status, found.out) == (2, "")
    assert "did you mean public?" in found.err
    assert found.err.endswith("1 mistake found\n")


async def test_a_second_proxy_on_the_same_addresses_names_the_one_it_cannot_have(
    heim: HeimProcess,
) -> None:
    found = await heim_proxy("run", "--config", str(heim.config_file))
    assert found.status == 1
    last = found.err.splitlines()[-1]
    assert last.startswith("heim-proxy: listeners.admin: cannot listen on unix:")
    assert "already in use" in last
    # The first one has lost nothing.
    assert (await heim.request()).status == 401


async def test_an_address_that_is_taken_is_named(heim: HeimProcess, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    prepared = Heim.prepare(other, backends=[])
    prepared.document["listeners"]["https"] = {"address": f"127.0.0.1:{heim.https_port}"}
    prepared.write()
    found = await heim_proxy("run", "--config", str(prepared.config_file))
    assert found.status == 1
    assert f"127.0.0.1:{heim.https_port}" in found.err.splitlines()[-1]
