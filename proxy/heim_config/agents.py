"""Machines that dial out to the proxy: which may exist, what they serve, who vouches for them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import field_validator

from heim_config.fields import FilePath, Filled, Flag, Name, QualifiedName, Section
from heim_config.problems import mistake, show

__all__ = ["Agent", "AgentsCa"]

_MAX_NAME_CHARS: Final = 63

MAX_TARGETS_CHARACTERS: Final = 1000
"""They are told to the agent in one message of at most 4 KiB."""


class Agent(Section):
    """A machine that keeps a connection to the proxy and serves targets through it.

    That it is listed is the permission to exist; a join token or somebody's approval lets one
    machine become it.
    """

    name: QualifiedName
    """How backends, logs and its certificate call it. Required, unique; up to 63 characters."""

    targets: Annotated[tuple[Name, ...], Filled]
    """Names of what may be asked of it. Required. What each one is (a host and a port, a socket) is
    said in the agent's own file, and what that does not list the agent refuses."""

    group: Flag = False
    """Several machines may be this agent, each with its own key, and share the load. Default:
    false; a second machine is refused while the first one's enrolment lives."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        # The common name of a certificate has 64 at most (RFC 5280, appendix A.1).
        if len(name) > _MAX_NAME_CHARS:
            raise mistake(f"{show(name)} is longer than {_MAX_NAME_CHARS} characters")
        return name

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for position, target in enumerate(targets):
            if target in targets[:position]:
                raise mistake(f"{show(target)} is in the list already", at=(position,))
        if sum(map(len, targets)) + len(targets) > MAX_TARGETS_CHARACTERS:
            raise mistake(
                f"has more than {MAX_TARGETS_CHARACTERS} characters",
                "give some of them to another agent on the same machine",
            )
        return targets


class AgentsCa(Section):
    """The certificate authority that lets agents in, when it is not to be generated."""

    cert_file: FilePath
    """PEM file with the authority's certificate. Required. It may hold up to four: the first
    belongs to `key_file` and signs, certificates of all are accepted, and agents are told of all.
    So authorities are changed without letting an agent go: put the new one second until every agent
    was connected once, then first, with its key, and drop the old one a day later. `heim-proxy
    keygen ca` prints one with its key; re-read when it changes."""

    key_file: FilePath
    """PEM file with the first certificate's private key: EC P-256 or P-384, or RSA of at least 2048
    bits. Required; mode 0600."""
