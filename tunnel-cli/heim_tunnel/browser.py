"""Open an address in the person's browser, from a program whose stdout may belong to ssh.

Python's own `webbrowser` runs in a process of its own: some browsers stay in the foreground, some
write to the terminal, and neither may hold up or garble a ProxyCommand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping

__all__ = ["has_display", "is_attended", "open_address"]


def has_display(environ: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether a browser opened here is one that the person can see.

    $BROWSER counts always: whoever sets it (VS Code does in its remote terminals) has arranged for
    the address to reach the person. A display forwarded over ssh is too slow to be meant.
    """
    if environ.get("BROWSER"):
        return True
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return False
    return platform == "darwin" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def is_attended(environ: Mapping[str, str], *, terminal: str = "/dev/tty") -> bool:
    """Whether somebody may see that a sign-in is wanted: a browser opens, or a terminal is there.

    Under cron or a git server's hook nobody does: a sign-in would only wait until it gives up.
    """
    if has_display(environ):
        return True
    try:
        os.close(os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def open_address(url: str) -> bool:
    """Open an address, wait for nothing; False when not even the opener could be started.

    The opener keeps no descriptor of ours and is in a session of its own, so that a Ctrl-C for us
    does not end a browser that it started.
    """
    try:
        # No shell: an address cannot become a command.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-m", "webbrowser", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    # Somebody has to take its exit status, and a browser may outlive us.
    threading.Thread(target=process.wait, name="browser", daemon=True).start()
    return True
