"""The files of one demo run: a configuration anybody could have written, and what it names."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heim_proxy.demo.certificates import DemoCertificates

__all__ = ["DemoFiles", "DemoPorts", "NotADemoDirectoryError", "hosts_of", "public_url"]

DOMAIN: Final = "localhost"
LOGIN_HOST: Final = "auth.localhost"
APP_HOST: Final = "app.localhost"
STATUS_HOST: Final = "status.localhost"
TCP_HOST: Final = "tcp.localhost"
OFFICE_HOST: Final = "office.localhost"
SSH_HOST: Final = "desktop.localhost"

CLIENT_ID: Final = "heim-demo"

MARKER: Final = ".heim-demo"
"""Tells a directory that a demo wrote, and may therefore write again, from somebody's files."""

_WRITTEN: Final = ("heim.yaml", "ca.pem", "tls", "secrets", "state", "agent.toml", "agent")

_CONFIGURATION: Final = """\
# Written by `heim-proxy demo`, and an ordinary configuration: `heim-proxy check` accepts it, and
# changing it while the demo runs takes effect within a second.
version: 1
domain: {domain}
login_host: {login_host}
public_port: {ports.https}

# Loopback only: the demo refuses to start otherwise.
listeners:
  https: {{address: "127.0.0.1:{ports.https}"}}
  http: {{address: "127.0.0.1:{ports.http}"}}
  admin: {{address: "127.0.0.1:{ports.admin}"}}

tls:
  certificates:
    - {{cert_file: tls/server.crt, key_file: tls/server.key}}

identity:
  providers:
    - name: demo
      type: oidc
      display_name: Demo people
      issuer: "http://127.0.0.1:{ports.idp}"
      client_id: {client_id}
      client_secret_file: secrets/client
      domains: [example.com]        # whose e-mail addresses this provider may vouch for
      groups_claim: groups

session: {{lifetime: 8h, idle: 1h}}
state: {{url: {state_url}}}
drain: 1s

roles:
  - name: admin
    members: [{{user: alice@example.com}}]
    bindings:
      - {{backend: app, permission: everything}}
      - {{backend: office, permission: everything}}
      - {{backend: tcp}}
      - {{backend: office}}{ssh_binding}
    approve_agents: true              # may let machines in, at /.heim/agents
  - name: dev
    # By name, and everybody whom the provider says to be in that group.
    members: [{{user: bob@example.com}}, {{group: developers}}]
    bindings: [{{backend: app, permission: everyday}}, {{backend: tcp}}, {{backend: office}}]
  # Nobody gave mallory a role, so mallory may do nothing: that is the default.

backends:
  - name: app
    http:
      - {{path: /, upstream: "http://127.0.0.1:{ports.echo}"}}
    permissions:
      - name: everything
        locations: [{{any: /}}]
      - name: everyday                # these, so neither /admin nor what is not listed
        locations:
          - {{get: "=/"}}
          - {{get: /headers.json}}
          - {{get: /live}}
          - {{get: /ws}}
          - {{get: /events}}
          - {{get: /slow}}
          - {{post: /echo}}
  - name: status
    public: true                      # no login, on purpose and in writing
    http:                             # the same application: only what everybody may see of it
      - {{path: /, match: exact, upstream: "http://127.0.0.1:{ports.echo}"}}
      - {{path: /headers.json, match: exact, upstream: "http://127.0.0.1:{ports.echo}"}}
  - name: tcp                         # no http: `heim-tunnel proxy {tcp_host}` reaches it
    tcp: {{upstream: "127.0.0.1:{ports.tcp}"}}
  - name: office                      # nothing dials it: its agent dials out, and serves these
    http: [{{path: /, agent: office, target: web}}]
    tcp: {{agent: office, target: talkback}}
    permissions: [{{name: everything, locations: [{{any: /}}]}}]

agents:
  - {{name: office, targets: [web, talkback{ssh_target}]}}
"""

_AGENT: Final = """\
# What the demo's agent serves, by name; the proxy cannot make it dial anything else.
[targets.web]
address = "127.0.0.1:{ports.office}"

[targets.talkback]
address = "127.0.0.1:{ports.tcp}"
"""

_SSH_TARGET: Final = """
[targets.ssh]
address = "127.0.0.1:{port}"
"""

_SSH_BACKEND: Final = """\
  - name: desktop                     # this machine's own sshd, because of --ssh
    tcp: {agent: office, target: ssh}
"""


class NotADemoDirectoryError(ValueError):
    """The directory holds something that no demo wrote; it is left alone."""


@dataclass(frozen=True, slots=True)
class DemoPorts:
    """Where everything listens, always on 127.0.0.1. `ssh` is the machine's own, if it is shown."""

    https: int
    http: int
    admin: int
    idp: int
    echo: int
    tcp: int
    office: int
    ssh: int | None = None


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """The paths inside one run's directory."""

    directory: Path

    @property
    def configuration(self) -> Path:
        """The heim.yaml of the run."""
        return self.directory / "heim.yaml"

    @property
    def ca(self) -> Path:
        """The authority that clients of the run should trust."""
        return self.directory / "ca.pem"

    @property
    def agent(self) -> Path:
        """What the demo's agent serves."""
        return self.directory / "agent.toml"

    @property
    def agent_state(self) -> Path:
        """The agent's key and certificate, as it keeps them."""
        return self.directory / "agent"

    def write(
        self, *, ports: DemoPorts, certificates: DemoCertificates, client_secret: str
    ) -> None:
        """Fill the directory, removing what an earlier demo left there.

        Raises:
            NotADemoDirectoryError: when it holds files that no demo wrote.
            OSError: when it cannot be written.
        """
        self._claim()
        for name in ("tls", "secrets", "state"):
            (self.directory / name).mkdir(mode=0o700)
        self.ca.write_bytes(certificates.ca_pem)
        (self.directory / "tls" / "server.crt").write_bytes(certificates.server_pem)
        self._write_secret("tls/server.key", certificates.server_key_pem)
        self._write_secret("secrets/client", client_secret.encode())
        state = self.directory.absolute() / "state" / "state.db"
        text = _CONFIGURATION.format(
            domain=DOMAIN,
            login_host=LOGIN_HOST,
            client_id=CLIENT_ID,
            ports=ports,
            tcp_host=TCP_HOST,
            ssh_binding="" if ports.ssh is None else "\n      - {backend: desktop}",
            ssh_target="" if ports.ssh is None else ", ssh",
            # A JSON string is a YAML string, whatever characters the path has.
            state_url=json.dumps(f"sqlite://{state.as_posix()}"),
        )
        targets = _AGENT.format(ports=ports)
        if ports.ssh is not None:
            text = text.replace("\nagents:", f"{_SSH_BACKEND}\nagents:")
            targets += _SSH_TARGET.format(port=ports.ssh)
        self.configuration.write_text(text, encoding="utf-8")
        self.agent.write_text(targets, encoding="utf-8")

    def _claim(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = self.directory / MARKER
        if not marker.exists() and any(self.directory.iterdir()):
            raise NotADemoDirectoryError(
                f"{self.directory} is not empty and no demo made it; "
                "name an empty or a new directory"
            )
        marker.touch()
        for name in _WRITTEN:
            path = self.directory / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _write_secret(self, name: str, content: bytes) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_bytes(content)


def hosts_of(ports: DemoPorts) -> tuple[str, ...]:
    """Every host of a run, for its certificate."""
    hosts = (APP_HOST, STATUS_HOST, LOGIN_HOST, TCP_HOST, OFFICE_HOST)
    return hosts if ports.ssh is None else (*hosts, SSH_HOST)


def public_url(host: str, ports: DemoPorts) -> str:
    """The origin that people type for a host of the demo."""
    return f"https://{host}" if ports.https == 443 else f"https://{host}:{ports.https}"
