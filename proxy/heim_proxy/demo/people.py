"""The three people of the demo: one who may do everything, one who may do some, one who may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PEOPLE", "Person", "person_called"]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in at the demo's provider.

    `login` is the provider's own name for them (the `sub` claim), `note` what the sign-in page says
    about them.
    """

    login: str
    name: str
    groups: tuple[str, ...]
    note: str

    @property
    def email(self) -> str:
        """Their address, in the domain that the demo's provider is authoritative for."""
        return f"{self.login}@example.com"


PEOPLE: Final = (
    Person("alice", "Alice Admin", ("admins", "developers"), "role admin: may open everything"),
    Person("bob", "Bob Developer", ("developers",), "role dev: the everyday pages, not /admin"),
    Person("mallory", "Mallory Nobody", (), "no role: refused everywhere"),
)


def person_called(login: str) -> Person | None:
    """The person with that login, if there is one."""
    return next((person for person in PEOPLE if person.login == login), None)
