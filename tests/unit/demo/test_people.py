from __future__ import annotations

import pytest

from heim_proxy.demo.people import PEOPLE, person_called


def test_the_cast_is_an_admin_a_developer_and_a_nobody() -> None:
    assert {person.login: person.groups for person in PEOPLE} == {
        "alice": ("admins", "developers"),
        "bob": ("developers",),
        "mallory": (),
    }


def test_person_is_found_by_login() -> None:
    person = person_called("bob")
    assert person is not None
    assert person.email == "bob@example.com"


@pytest.mark.parametrize("login", ["", "Bob", "bob@example.com", "root"])
def test_stranger_is_nobody(login: str) -> None:
    assert person_called(login) is None
