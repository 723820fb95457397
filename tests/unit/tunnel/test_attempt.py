"""How a sign-in failed, kept for the processes that waited for it."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel import attempt


def logins(home: Path) -> Path:
    directory = home / "heim" / "logins"
    directory.mkdir(parents=True)
    return directory


def test_a_failure_is_told_to_who_waited_and_to_nobody_later(home: Path) -> None:
    (logins(home)).touch()
    attempt.remember("auth.test:8443", Complaint("it was refused"))
    now = time.time()
    failed = attempt.failed_since("auth.test:8443", now - 10)
    assert failed is not None
    assert failed.text == "the sign-in that this waited for failed: it was refused"
    assert failed.status == AUTH
    assert attempt.failed_since("auth.test:8443", now + 1) is None
    assert attempt.failed_since("other.test", now - 10) is None


def test_the_newest_failure_counts(home: Path) -> None:
    directory = logins(home)
    attempt.remember("auth.test", Complaint("a long text that came first"))
    attempt.remember("auth.test", Complaint("second"))
    failed = attempt.failed_since("auth.test", 0)
    assert failed is not None
    assert failed.text.endswith(": second")
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_cannot_be_kept_is_asked_again(home: Path) -> None:
    attempt.remember("auth.test", Complaint("x"))
    assert attempt.failed_since("auth.test", 0) is None
    directory = logins(home)
    os.symlink("/nowhere", directory / "auth.test.failed")
    attempt.remember("auth.test", Complaint("x"))
    assert attempt.failed_since("auth.test", 0) is None


def test_it_is_no_login(home: Path) -> None:
    from heim_tunnel.credentials import known

    logins(home)
    attempt.remember("auth.test", Complaint("x"))
    assert known() == []
