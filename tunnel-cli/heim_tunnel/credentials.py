"""The logins on this machine: one file per login host, read without locks, written atomically.

Directory: `$HEIM_TUNNEL_HOME`, else `$XDG_CONFIG_HOME/heim`, else `~/.config/heim`; mode 0700.
`logins/<login host>[_<port>].json` is mode 0600 and refused when others may read it; the
authorities that it was made with are copied beside it (`.ca.pem`), so that their file may move. A
bearer goes only to the login host it came from and to the domains that host advertised
(`Login.covers`), a service token only to those that its file names.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time

from heim_runtime.complaints import AUTH, FAILED, Complaint, UsageError
from heim_tunnel.complaints import say
from heim_tunnel.grant import HTTPS, Login, Secret, ServiceToken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "Login",
    "Secret",
    "for_host",
    "forget",
    "home",
    "known",
    "load",
    "locked",
    "save",
    "service_token",
    "stored",
]

FILE_BYTES: Final = 64 * 1024
"""A login is one or two kilobytes, a service token a hundred bytes; more is another file."""

QUIET_S: Final = 1.0
"""How long another process may hold a lock before it is said that we wait."""

AUTHORITIES_BYTES: Final = 1024 * 1024
"""Four times what a system trusts; a longer file is used where it is, not copied."""

_SUFFIX: Final = ".json"
_AUTHORITIES: Final = ".ca.pem"
_PEM: Final = b"-----BEGIN CERTIFICATE-----"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# A service token is often mounted for a group (a Kubernetes volume with fsGroup), never for all.
_STRANGERS: Final = stat.S_IWGRP | stat.S_IRWXO


def home() -> str:
    """The directory of everything kept; it need not exist."""
    environ = os.environ
    if given := environ.get("HEIM_TUNNEL_HOME"):
        return os.path.expanduser(given)
    base = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{base}/heim"


def known() -> list[str]:
    """The login hosts that have a file, whatever is in it, ordered."""
    try:
        names = os.listdir(f"{home()}/logins")
    except OSError:
        return []
    return sorted(
        name.removesuffix(_SUFFIX).replace("_", ":") for name in names if name.endswith(_SUFFIX)
    )


def load(login_host: str, *, exposed: bool = False) -> Login | None:
    """The stored login of a login host (`host` or `host:port`); None when there is none.

    Args:
        login_host: Whose.
        exposed: Read it although others may read it: to end its session.

    Raises:
        Complaint: The file cannot be read, is not ours, or others may read it.
    """
    path = _path(login_host)
    data = _read(path, 0 if exposed else _OTHERS)
    if data is None:
        return None
    try:
        login = Login.from_file(json.loads(data))
    except (ValueError, AttributeError, RecursionError) as e:
        raise Complaint(f"{path} is damaged; run: heim-tunnel login {login_host}", AUTH) from e
    if login.login_url != HTTPS + login_host:
        # A copied file must not send one login host's tokens to another.
        raise Complaint(f"{path} is another host's login; remove it", AUTH)
    if login.ca_file is not None and os.path.exists(copy := _copy_path(login_host)):
        login.authorities = copy
    return login


def stored() -> list[Login]:
    """Every stored login, ordered by login host. Raises Complaint as `load` does."""
    found = (load(login_host) for login_host in known())
    return [login for login in found if login is not None]


def for_host(host: str) -> Login | None:
    """The login whose tokens may be sent to a host; of several, the most specific domain's.

    Raises:
        Complaint: None covers it, but one of the files could not be read.
    """
    best: Login | None = None
    closeness = 0
    problem: Complaint | None = None
    for login_host in known():
        try:
            login = load(login_host)
        except Complaint as e:
            problem = e
            continue
        close = login.closeness(host) if login is not None else 0
        if close > closeness:
            best, closeness = login, close
    if best is None and problem is not None:
        raise problem
    return best


def save(login: Login) -> None:
    """Write a login; others see the old file or the new one. Hold `locked` around read and save.

    Raises:
        Complaint: The directory cannot be written.
    """
    path = _path(login.login_host)
    try:
        _make_directory()
        _copy_authorities(login)
        _replace(path, json.dumps(login.to_file(), indent=1).encode())
    except OSError as e:
        raise Complaint(f"cannot write {path}: {e.strerror}", FAILED) from e


def _replace(path: str, data: bytes) -> None:
    fresh = f"{path}.{os.getpid()}.new"
    if os.path.lexists(fresh):
        # Left by a crash, or put there by somebody who would keep it open and read along.
        os.unlink(fresh)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        # A crash must not leave an empty file in place of a refresh token.
        os.fsync(descriptor)
    os.replace(fresh, path)


def _copy_authorities(login: Login) -> None:
    """Copy the file that the person named; an earlier copy stays when that file is gone."""
    copy = _copy_path(login.login_host)
    if login.ca_file is None:
        _unlink(copy)
        return
    try:
        with open(login.ca_file, "rb") as file:
            data = file.read(AUTHORITIES_BYTES + 1)
    except OSError:
        login.authorities = copy if os.path.exists(copy) else login.ca_file
        return
    if len(data) > AUTHORITIES_BYTES or _PEM not in data:
        _unlink(copy)
        return
    _replace(copy, data)
    login.authorities = copy


def forget(login_host: str) -> bool:
    """Remove a login's files; False when there was none. Hold `locked`."""
    try:
        _unlink(_copy_path(login_host))
        return _unlink(_path(login_host))
    except OSError as e:
        raise Complaint(f"cannot remove {_path(login_host)}: {e.strerror}", FAILED) from e


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def service_token(path: str, host: str) -> Secret:
    """The service token in a file, for a host that it may be sent to.

    Raises:
        UsageError: It cannot be read, everybody may read it, or it holds no token that says which
            domains it is for.
        Complaint: The host is in none of them.
    """
    try:
        data = _read(os.path.expanduser(path), _STRANGERS)
    except Complaint as e:
        raise UsageError(e.text) from e
    if data is None:
        raise UsageError(f"token file {path} does not exist")
    try:
        token = ServiceToken.parse(data.decode("latin-1").strip())
    except ValueError as e:
        raise UsageError(
            f"token file {path} {e}; create a new one with: heim-proxy token create"
        ) from e
    if not token.covers(host):
        raise Complaint(
            f"the service token in {path} is not for {host} (only for {', '.join(token.domains)}); "
            "nothing was sent",
            AUTH,
        )
    return token.bearer


class locked:  # noqa: N801 - used as a statement: `with locked(login_host):`
    """Only one process at a time changes a login: `with locked(login_host): …`.

    An flock on a file beside the login's, so it ends with the process however that ends. When
    another process holds it for longer than a renewal takes, that is said once on standard error
    (`tells`), with the process that the file names. There is no deadline here: whoever holds it
    has one for everything it does.
    """

    __slots__ = ("_descriptor", "_login_host", "_path", "_tells")

    def __init__(self, login_host: str, *, tells: bool = False) -> None:
        self._login_host = login_host
        self._path = _path(login_host).removesuffix(_SUFFIX) + ".lock"
        self._tells = tells
        self._descriptor = -1

    def __enter__(self) -> None:
        try:
            _make_directory()
            self._descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            if not self._taken_soon():
                if self._tells:
                    say(None, self._waiting())
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as e:
            raise Complaint(f"cannot lock {self._path}: {e.strerror}", FAILED) from e

    def _waiting(self) -> str:
        """What is waited for, for how long it has been there, and what ends it."""
        text = f"waiting for another heim-tunnel that is signing in at {self._login_host}"
        holder = os.pread(self._descriptor, 16, 0).strip().decode("ascii", "replace")
        if not holder.isdecimal():
            return text
        age = max(0.0, time.time() - os.fstat(self._descriptor).st_mtime)
        since = f"{age:.0f} s" if age < 120 else f"{age / 60:.0f} minutes"
        return (
            f"{text} (process {holder}, for {since}); finish that sign-in, or end it with: "
            f"kill {holder}"
        )

    def _taken_soon(self) -> bool:
        until = time.monotonic() + QUIET_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
                time.sleep(0.02)
            else:
                return True

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _path(login_host: str) -> str:
    if "/" in login_host or "_" in login_host or login_host.startswith("."):
        raise UsageError(f"{login_host!r} is not a login host")
    return f"{home()}/logins/{login_host.replace(':', '_')}{_SUFFIX}"


def _copy_path(login_host: str) -> str:
    return _path(login_host).removesuffix(_SUFFIX) + _AUTHORITIES


def _make_directory() -> None:
    os.makedirs(home(), mode=0o700, exist_ok=True)
    os.makedirs(f"{home()}/logins", mode=0o700, exist_ok=True)


def _read(path: str, forbidden: int) -> bytes | None:
    """A small file, refused when its mode has one of the forbidden bits; None without one."""
    try:
        with open(path, "rb", buffering=0) as file:
            about = os.fstat(file.fileno())
            if stat.S_ISREG(about.st_mode):
                if about.st_mode & forbidden:
                    raise Complaint(f"others may read {path}; run: chmod 600 {path}", AUTH)
                if about.st_uid not in (os.geteuid(), 0):
                    raise Complaint(f"{path} belongs to somebody else", AUTH)
            data = b""
            while chunk := file.read(FILE_BYTES):
                data += chunk
                if len(data) >= FILE_BYTES:
                    raise Complaint(f"{path} is too long to be a token", AUTH)
            return data
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Complaint(f"cannot read {path}: {e.strerror}", AUTH) from e
