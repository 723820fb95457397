"""Where an agent's files are: its configuration, what it was joined with, and its state.

`join` makes the key, a certificate and `identity.json`; while the agent runs, newer certificates
and pins go to the state directory. For root, and for a unit with `LoadCredential`, these are two
directories: what was joined is root's alone and never written by the service (its *seed*), the
state belongs to the service. Everywhere else one directory is both.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

__all__ = ["SYSTEM_CONFIG", "SYSTEM_STATE", "Places"]

SYSTEM_CONFIG: Final = "/etc/heim-agent"
"""Of the machine: agent.toml, and what root joined."""

SYSTEM_STATE: Final = "/var/lib/heim-agent"


class Places:
    """The paths in effect. Nothing of them need exist.

    Attributes:
        config: The agent.toml.
        state: Directory that is written while the agent runs.
        seed: Directory of what `join` wrote; often the same.
        seed_is_mounted: The seed was put there for us (systemd's credentials, a mounted secret):
            read only, and its modes are not ours to choose.
    """

    __slots__ = ("config", "seed", "seed_is_mounted", "state")

    def __init__(
        self, *, config: str, state: str, seed: str | None = None, seed_is_mounted: bool = False
    ) -> None:
        self.config = config
        self.state = state
        self.seed = state if seed is None else seed
        self.seed_is_mounted = seed_is_mounted

    def __repr__(self) -> str:
        return f"<Places config={self.config} state={self.state} seed={self.seed}>"

    @property
    def seed_mode(self) -> int:
        """Mode of a seed that is made: the machine's holds agent.toml, which the service reads."""
        return 0o755 if self.seed == SYSTEM_CONFIG else 0o700

    @classmethod
    def find(
        cls,
        environ: Mapping[str, str],
        *,
        state: str | None = None,
        config: str | None = None,
        root: bool | None = None,
    ) -> Places:
        """The places that the command line, the environment and the user mean.

        Args:
            environ: HEIM_AGENT_STATE, HEIM_AGENT_CONFIG, systemd's STATE_DIRECTORY and
                CREDENTIALS_DIRECTORY, XDG_STATE_HOME, XDG_CONFIG_HOME.
            state: `--state`; what was joined is there as well, then.
            config: `--config`.
            root: Whether we are root; None to look.
        """
        is_root = os.geteuid() == 0 if root is None else root
        given = state or environ.get("HEIM_AGENT_STATE")
        # systemd gives a list when a unit has several; ours has one.
        by_systemd = environ.get("STATE_DIRECTORY", "").partition(":")[0]
        mounted = environ.get("CREDENTIALS_DIRECTORY")
        seed: str | None = None
        if mounted and not state and os.path.lexists(f"{mounted}/key.pem"):
            seed = mounted
        elif is_root and not given and not by_systemd:
            seed = SYSTEM_CONFIG
        return cls(
            config=os.path.expanduser(
                config
                or environ.get("HEIM_AGENT_CONFIG")
                or _config(environ, is_root=is_root or bool(by_systemd))
            ),
            state=os.path.expanduser(given or by_systemd or _state(environ, is_root=is_root)),
            seed=seed,
            seed_is_mounted=seed is not None and seed == mounted,
        )


def _config(environ: Mapping[str, str], *, is_root: bool) -> str:
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    own = os.path.expanduser(f"{base}/heim-agent/agent.toml")
    # An ordinary user's own file, or else the machine's: a container has only that.
    if is_root or (not os.path.exists(own) and os.path.exists(f"{SYSTEM_CONFIG}/agent.toml")):
        return f"{SYSTEM_CONFIG}/agent.toml"
    return own


def _state(environ: Mapping[str, str], *, is_root: bool) -> str:
    if is_root:
        return SYSTEM_STATE
    base = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"{base}/heim-agent"
