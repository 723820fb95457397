"""A script for `TunnelServer` that does what an honest proxy and login host do."""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.tunnel_server import LOGIN_HOST, TARGET, Peer

__all__ = ["Honest"]


@dataclass
class Honest:
    """Answers each path; a test changes what it wants answered otherwise."""

    clock_off: float = 0.0
    backends: list[dict[str, str]] = field(
        default_factory=lambda: [{"name": "ssh", "kind": "tcp", "host": TARGET, "url": ""}]
    )
    token: str = "token-one"
    user: str = "alice@example.com"
    asked: list[str] = field(default_factory=list)

    def __call__(self, peer: Peer) -> None:
        try:
            line = peer.request()
        except ConnectionResetError:
            # Somebody who only looked at the certificate.
            return
        self.asked.append(line)
        path = line.split(" ")[1] if line else ""
        if path == "/.heim/me":
            self.me(peer)
        elif path == "/.heim/cli/backends":
            self.list_backends(peer)
        elif path == "/.heim/tunnel/connect":
            self.connect(peer)

    def problem(self, peer: Peer, status: int, code: str, **more: Any) -> None:
        date = email.utils.formatdate(time.time() + self.clock_off, usegmt=True)
        document = b'{"status": %d, "code": "%s", "request_id": "r1"}' % (status, code.encode())
        peer.answer(
            f"{status} No",
            document,
            "Content-Type: application/problem+json",
            f"Date: {date}",
        )

    def me(self, peer: Peer) -> None:
        self.problem(peer, 401, "unauthenticated")

    def list_backends(self, peer: Peer) -> None:
        if peer.fields.get("authorization") != f"Bearer {self.token}":
            self.problem(peer, 401, "unauthenticated")
        else:
            peer.json({"user": self.user, "backends": self.backends})

    def connect(self, peer: Peer) -> None:
        if peer.fields.get("authorization") != f"Bearer {self.token}":
            peer.problem(
                401, "unauthenticated", "you are not logged in", login_url=f"https://{LOGIN_HOST}"
            )
            return
        self.tunnel(peer)

    def tunnel(self, peer: Peer) -> None:
        peer.upgrade()
        peer.until(lambda: peer.websocket.closed is not None or peer.ended)
