"""`heim-tunnel` as a process of its own, with its own directory of logins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.fakes.tunnel_server import LOGIN_HOST, TARGET, TunnelServer

__all__ = ["Cli", "write_login"]

DEADLINE_S = 15.0

# Nothing of the machine's own way to the world may reach a test.
_HIDDEN = ("proxy", "ssl_cert", "heim_", "ssh_", "display", "browser", "xdg_")


def environment(home: Path) -> dict[str, str]:
    """The environment of a test's `heim-tunnel`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not any(word in name.lower() for word in _HIDDEN)
    }
    return kept | {"HEIM_TUNNEL_HOME": str(home), "NO_COLOR": "1"}


def write_login(home: Path, *, login_host: str = LOGIN_HOST, **more: Any) -> Path:
    """Write the file of a login that is good for an hour."""
    now = time.time()
    fields = {
        "login_url": f"https://{login_host}",
        "user": "alice@example.com",
        "domains": ["example.test"],
        "access_token": "token-one",
        "access_expires": now + 3600,
        "refresh_token": "heim_rt_one",
        "session_expires": now + 36000,
        **more,
    }
    (home / "logins").mkdir(parents=True, exist_ok=True)
    path = home / "logins" / f"{login_host.replace(':', '_')}.json"
    path.write_text(json.dumps(fields))
    path.chmod(0o600)
    return path


class Cli:
    """A running `heim-tunnel proxy`; a context manager that leaves nothing behind."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        redirect: str = "",
        program: tuple[str, ...] = ("-m", "heim_tunnel"),
        **more: Any,
    ) -> None:
        """Start it.

        Args:
            home: The directory of its logins.
            arguments: What follows `proxy`.
            env: More for its environment.
            stdin: As for Popen.
            stdout: As for Popen.
            redirect: As written in a shell: `<&-` closes its standard input.
            program: What the interpreter runs.
            more: As for Popen.
        """
        command = [sys.executable, *program, "proxy", *arguments]
        if redirect:
            command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
        self.process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment(home) | (env or {}),
            **more,
        )

    @classmethod
    def to(cls, server: TunnelServer, home: Path, *arguments: str, **more: Any) -> Self:
        """One that dials TARGET, which is the server."""
        return cls(
            home,
            "--ca-file",
            str(server.ca_file),
            "--connect-to",
            f"127.0.0.1:{server.port}",
            *arguments,
            TARGET,
            **more,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def finish(self, data: bytes | None = None) -> tuple[int, bytes, str]:
        """Give it its input, wait for its end: exit status, output, standard error."""
        out, err = self.process.communicate(data, timeout=DEADLINE_S)
        return self.process.returncode, out, err.decode()

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read(size)
