"""A configuration that loads, and ways to break it; shared by the tests beside it."""

from __future__ import annotations

from pathlib import Path

from heim_config.load import load_text
from heim_config.model import Config
from heim_config.problems import ConfigError, Problem

FILE = Path("/etc/heim/heim.yaml")

HEAD = """\
version: 1
domain: x.example.com
tls:
  certificates:
    - {cert_file: tls/tls.crt, key_file: tls/tls.key}
"""

IDENTITY = """\
identity:
  providers:
    - name: google
      type: google
      client_id: 1234.apps.googleusercontent.com
      client_secret_file: secrets/google
      hosted_domains: [example.com]
"""

ROLES = """\
roles:
  - name: admin
    members: [{user: alice@example.com}, {group: sre@example.com}, {domain: example.com}]
    bindings: [{backend: grafana, permission: all}]
"""

BACKENDS = """\
backends:
  - name: grafana
    http: [{path: /, upstream: "http://127.0.0.1:3000"}]
    permissions:
      - {name: all, locations: [{any: /}]}
      - {name: read, locations: [{get: /}]}
  - {name: status, public: true, http: [{path: /, upstream: "http://127.0.0.1:3001"}]}
"""

GOOD = HEAD + IDENTITY + ROLES + BACKENDS


def load(text: str, *, file: Path = FILE) -> Config:
    """The configuration in `text`."""
    return load_text(text, file=file)


def problems(text: str, *, file: Path = FILE) -> tuple[Problem, ...]:
    """What is wrong with `text`; empty when it loads."""
    try:
        load_text(text, file=file)
    except ConfigError as error:
        return error.problems
    return ()


def told(text: str) -> list[str]:
    """What is wrong with `text`, as people read it, without the file's name."""
    return [str(problem).removeprefix(f"{FILE}:") for problem in problems(text)]


def backend(extra: str) -> str:
    """A whole configuration with one more key on its backend, on line 17."""
    return HEAD + IDENTITY + backend_only(extra)


def backend_only(extra: str) -> str:
    """A backend list whose only member has one more key."""
    return (
        "backends:\n"
        "  - name: app\n"
        '    http: [{path: /, upstream: "http://127.0.0.1:3000"}]\n'
        f"    {extra}\n"
    )


def tcp_only(extra: str = "") -> str:
    """A whole configuration whose only backend, ssh, has tcp alone and perhaps another key.

    The backend begins on line 14, `extra` stands on line 16.
    """
    more = f"    {extra}\n" if extra else ""
    return f'{HEAD}{IDENTITY}backends:\n  - name: ssh\n    tcp: {{upstream: "10.0.0.5:22"}}\n{more}'


def both(extra: str = "") -> str:
    """A whole configuration whose only backend, app, has http and tcp."""
    return backend('tcp: {upstream: "10.0.0.5:22"}' + (f"\n    {extra}" if extra else ""))


def route(fields: str) -> str:
    """A whole configuration whose only route has these fields."""
    return f"{HEAD}{IDENTITY}backends:\n  - name: app\n    http: [{{{fields}}}]\n"


def permission(location: str) -> str:
    """A whole configuration whose only permission has this location."""
    return backend(f"permissions: [{{name: p, locations: [{location}]}}]")
