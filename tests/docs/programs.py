"""The programs as their references describe them."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from heim_agent import arguments as agent
from heim_controller import arguments as controller
from heim_proxy.cli.main import build_parser as build_proxy_parser
from heim_runtime import complaints
from heim_tunnel import arguments as tunnel
from heim_tunnel.status import ENVIRONMENT as TUNNEL_ENVIRONMENT
from heim_wire.errors import FAILURES
from tests.docs.pages import PAGES, Page, page

__all__ = ["AGENT", "CONTROLLER", "PROGRAMS", "PROXY", "TUNNEL", "Program", "invocations"]

_SEPARATORS = frozenset("|&;()<>$")


@dataclass(frozen=True)
class Program:
    """A program and its reference.

    Attributes:
        parser: Makes the parser of its command line.
        environment: What of the environment it heeds, where it has a list of that.
        statuses: What it exits with.
    """

    name: str
    reference: str
    parser: Callable[[], argparse.ArgumentParser]
    environment: tuple[str, ...]
    statuses: frozenset[int]

    @property
    def page(self) -> Page:
        return page(self.reference)

    def chapter(self, title: str) -> str:
        """A chapter of the reference, or all of it when there is none of that title."""
        found = self.page.text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        return found or self.page.text

    def explained_events(self) -> set[str]:
        """The events in the table of the reference's chapter about the log."""
        rows = re.findall(r"^\| (`[^|]+`) \| [a-z, ]+ \|", self.chapter("Log"), re.MULTILINE)
        return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    def commands(self) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        """Every command that does something, as typed, with its parser."""
        for parser in _below(self.parser()):
            if not _groups(parser):
                yield parser.prog, parser

    def twins(self) -> set[str]:
        """What of the environment the helps of options name."""
        helps = [action.help or "" for _, one in self.commands() for action in one._actions]
        return {found for text in helps for found in re.findall(r"HEIM_\w+", text)}

    def epilogs(self) -> Iterator[tuple[str, str]]:
        """What commands' own helps end with, and whose it is."""
        for parser in _below(self.parser()):
            if parser.prog != self.name:
                yield parser.prog, parser.epilog or ""

    def examples(self) -> Iterator[tuple[str, list[str]]]:
        """Where a command's own help shows how it is used, and the arguments there."""
        for name, text in self.epilogs():
            for arguments in invocations(text, self.name):
                yield f"{name} --help", arguments

    def shown(self) -> Iterator[tuple[str, list[str]]]:
        """Where the documentation shows it in use, and the arguments there."""
        for one in PAGES:
            texts = [(fence.line, fence.text) for fence in one.of("sh")]
            for fence in one.of("ini"):
                starts = re.findall(r"^ExecStart=(.*)$", fence.text, re.MULTILINE)
                texts.extend((fence.line, start) for start in starts)
            for line, text in texts:
                for arguments in invocations(text, self.name):
                    yield f"{one.name}:{line}", arguments


def _below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for group in _groups(parser):
        for sub in group.choices.values():
            yield from _below(sub)


def _groups(
    parser: argparse.ArgumentParser,
) -> list[argparse._SubParsersAction[argparse.ArgumentParser]]:
    return [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]


def invocations(text: str, program: str) -> Iterator[list[str]]:
    """The arguments of every command of a program in shell text."""
    for line in text.replace("\\\n", " ").split("\n"):
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in (*words, ";"):
            if set(word) <= _SEPARATORS:
                yield from _arguments(command, program)
                command = []
            else:
                command.append(word)


def _arguments(command: list[str], program: str) -> Iterator[list[str]]:
    if command[:2] == ["sudo", "-u"]:
        command = command[3:]
    elif command[:1] == ["sudo"]:
        command = command[1:]
    while command and re.match(r"\w+=", command[0]):
        command = command[1:]
    if command and PurePath(command[0]).name == program:
        yield command[1:]


_ALL = frozenset(value for value in vars(complaints).values() if type(value) is int)
# 128 and SIGTERM's number.
_TERMINATED = 143

PROXY = Program(
    "heim-proxy",
    "docs/reference/cli.md",
    build_proxy_parser,
    environment=(),
    statuses=frozenset((complaints.OK, complaints.FAILED, complaints.USAGE)),
)
TUNNEL = Program(
    "heim-tunnel",
    "docs/reference/heim-tunnel.md",
    tunnel.build_parser,
    environment=TUNNEL_ENVIRONMENT,
    statuses=_ALL | {failure.exit_status for failure in FAILURES.values()} | {_TERMINATED},
)
AGENT = Program(
    "heim-agent",
    "docs/reference/heim-agent.md",
    agent.build_parser,
    environment=agent.ENVIRONMENT,
    statuses=_ALL | {_TERMINATED},
)
CONTROLLER = Program(
    "heim-controller",
    "docs/reference/heim-controller.md",
    controller.build_parser,
    environment=controller.ENVIRONMENT,
    statuses=_ALL
    - {complaints.NO_HOST, complaints.TRY_LATER, complaints.PROTOCOL, complaints.AUTH},
)
PROGRAMS = (PROXY, TUNNEL, AGENT, CONTROLLER)
