"""Whether the files and variables that a configuration names are there, usable and kept secret."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from heim_config.model import Config
from heim_config.problems import Finding, Loc
from heim_config.secrets import SecretError, read_secret

__all__ = ["MAX_FILE_BYTES", "check_files", "exposed"]

# A bundle of every public authority is 250 KiB.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"


def check_files(config: Config, environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Findings for every file that is missing, unreadable or plainly not what is meant.

    What is inside keys and certificates is judged by who uses them; here it is only that a secret
    is there and that an authority is a certificate.
    """
    variables = os.environ if environment is None else environment
    for position, provider in enumerate(config.identity.providers):
        loc: Loc = ("identity", "providers", position)
        key = "client_secret_env" if provider.client_secret_env else "client_secret_file"
        try:
            read_secret(provider, variables)
        except SecretError as error:
            yield Finding((*loc, key), str(error))
        if provider.ca_file is not None:
            yield from _authority(provider.ca_file, (*loc, "ca_file"))
    if config.session.key_file is not None:
        yield from _filled(config.session.key_file, ("session", "key_file"), "session")
    if config.assertion is not None and config.assertion.key_file is not None:
        yield from _filled(config.assertion.key_file, ("assertion", "key_file"), "assertion")
    if config.agents_ca is not None:
        yield from _authority(config.agents_ca.cert_file, ("agents_ca", "cert_file"))
        yield from _filled(config.agents_ca.key_file, ("agents_ca", "key_file"), "ca")
    for position, certificate in enumerate(config.tls.certificates):
        if certificate.secret is not None or config.tls.self_signed:
            # It may be there later: the log says so, and another one is shown meanwhile.
            continue
        keys = ("cert_file", "key_file")
        for key, path in zip(keys, certificate.pair, strict=True):
            named = "directory" if certificate.directory is not None else key
            yield from _filled(path, ("tls", "certificates", position, named))
    acme = None if config.listeners.http is None else config.listeners.http.acme
    if acme is not None and acme.webroot is not None and not acme.webroot.is_dir():
        yield Finding(("listeners", "http", "acme", "webroot"), f"{acme.webroot} is no directory")
    for position, backend in enumerate(config.backends):
        if backend.upstream_tls is not None and backend.upstream_tls.ca_file is not None:
            place = ("backends", position, "upstream_tls", "ca_file")
            yield from _authority(backend.upstream_tls.ca_file, place)


def exposed(config: Config) -> Iterator[str]:
    """One sentence for each file with a secret that every account of this machine can read.

    Worth a warning only. What a group may read is not mentioned: root:heim 0640 is ordinary.
    """
    for key, path in _secret_files(config):
        try:
            real = path.resolve()
            mode = real.stat().st_mode
            entered = all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
        except OSError:
            # That it cannot be read is told by who needs it.
            continue
        if mode & stat.S_IROTH and entered:
            yield f"{key}: everybody on this machine can read {path}; run: chmod o= {path}"


def _secret_files(config: Config) -> Iterator[tuple[str, Path]]:
    for position, provider in enumerate(config.identity.providers):
        if provider.client_secret_file is not None:
            yield f"identity.providers[{position}].client_secret_file", provider.client_secret_file
    if config.session.key_file is not None:
        yield "session.key_file", config.session.key_file
    if config.assertion is not None and config.assertion.key_file is not None:
        yield "assertion.key_file", config.assertion.key_file
    if config.agents_ca is not None:
        yield "agents_ca.key_file", config.agents_ca.key_file
    for position, certificate in enumerate(config.tls.certificates):
        if certificate.secret is None:
            yield f"tls.certificates[{position}]", certificate.pair[1]


def _read(path: Path, loc: Loc) -> Finding | bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return Finding(loc, f"the file {path} cannot be read: {error.strerror}")


def _filled(path: Path, loc: Loc, kind: str | None = None) -> Iterator[Finding]:
    content = _read(path, loc)
    hint = f"`heim-proxy keygen {kind}` prints one" if kind else None
    if isinstance(content, Finding):
        yield Finding(loc, content.message, hint)
    elif not content.strip():
        yield Finding(loc, f"the file {path} is empty", hint)
    elif len(content) > MAX_FILE_BYTES:
        yield Finding(loc, f"the file {path} is larger than {MAX_FILE_BYTES} bytes")


def _authority(path: Path, loc: Loc) -> Iterator[Finding]:
    content = _read(path, loc)
    if isinstance(content, Finding):
        yield content
    elif len(content) > MAX_FILE_BYTES:
        yield Finding(loc, f"the file {path} is larger than {MAX_FILE_BYTES} bytes")
    elif _CERTIFICATE not in content:
        yield Finding(loc, f"the file {path} holds no PEM certificate")
