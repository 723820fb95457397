"""The commented configuration that `heim-proxy init` writes: real, complete, short."""

from __future__ import annotations

from typing import Final

from heim_config.hosts import parse_host

__all__ = ["render_init"]


def render_init(*, domain: str) -> str:
    """A configuration for `domain` that loads as soon as the files it names exist.

    Its people are `@example.com` when `domain` is `x.example.com` or `example.com`.

    Raises:
        ValueError: When `domain` is not a domain name; the text says why.
    """
    host = parse_host(domain)
    return _TEMPLATE.replace("{people}", _people(host)).replace("{domain}", host)


def _people(domain: str) -> str:
    """The domain that e-mail addresses probably have, for somebody to correct."""
    _, _, parent = domain.partition(".")
    first, _, rest = parent.partition(".")
    # Of example.co.uk the parent belongs to everybody.
    shared = len(rest) == 2 and first in _SHARED
    return parent if rest and not shared else domain


_SHARED: Final = frozenset({"ac", "co", "com", "edu", "gov", "govt", "ne", "net", "or", "org"})
"""Labels below a country under which names are registered."""

_TEMPLATE: Final = """\
# Configuration of heim-proxy. Check it with:  heim-proxy check --config heim.yaml
# Every key is explained in docs/reference/configuration.md. Relative paths start at this file.
# A running proxy applies changes within a second; a mistake keeps what was there before.
version: 1

# A backend without a `host` of its own is <name>.{domain}. People sign in on
# auth.{domain}, unless login_host says otherwise.
# DNS: point *.{domain} at this machine. The certificate must cover these names too.
domain: {domain}

listeners:
  https: {address: "0.0.0.0:443"}
  http: {address: "0.0.0.0:80"}        # redirects to https; null for none
  admin: {address: "127.0.0.1:9440"}   # health and metrics; keep it off the internet

tls:
  certificates:
    - cert_file: tls/tls.crt           # with its chain; read again when it is renewed
      key_file: tls/tls.key

identity:
  providers:
    - name: google
      type: google                     # or okta, azure, oidc: they need an issuer
      # Register this redirect URI: https://auth.{domain}/.heim/callback
      client_id: 1234567890-example.apps.googleusercontent.com
      client_secret_file: secrets/google
      hosted_domains: [{people}]    # whose accounts may sign in: the part after their @

session:
  key_file: secrets/session.keys       # heim-proxy keygen session > secrets/session.keys
  lifetime: 24h                        # people sign in again after this
  idle: 8h                             # or after this long without a request

state:
  url: "sqlite:///var/lib/heim/state.db"

# Access is what a role's bindings give, and nothing else.
roles:
  - name: everyone
    members:
      - domain: {people}            # everybody who signs in with an account of it
    bindings:
      - {backend: wiki, permission: read}
  - name: editors
    members:
      - user: alice@{people}
    bindings:
      - {backend: wiki, permission: all}

backends:
  - name: wiki                         # https://wiki.{domain}
    http:
      - {path: /, upstream: "http://127.0.0.1:3000"}
    permissions:
      - name: all
        locations: [{any: /}]
      - name: read
        locations: [{get: /}]          # get covers HEAD too
  # Without a login, for everybody:
  # - name: status
  #   public: true
  #   http: [{path: /, upstream: "http://127.0.0.1:3001"}]
  # ssh, or any other TCP, with heim-tunnel; the binding {backend: desktop} of a role gives it.
  # *.{domain} stands for one label: the certificate must cover *.ssh.{domain} too.
  # - name: desktop
  #   host: desktop.ssh.{domain}
  #   tcp: {upstream: "10.0.0.5:22"}
  # Where nothing can dial in, a machine dials out (heim-proxy agent token create pc), instead:
  # agents: [{name: pc, targets: [ssh]}]    and here    tcp: {agent: pc, target: ssh}
"""
