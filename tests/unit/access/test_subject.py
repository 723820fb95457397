from __future__ import annotations

from heim_proxy.access.subject import Subject, SubjectKind


def test_a_person_is_called_by_their_address() -> None:
    alice = Subject(SubjectKind.USER, "https://idp", "42", "google", email="alice@example.com")
    assert alice.name == "alice@example.com"


def test_without_an_address_the_name_is_the_issuers_subject() -> None:
    assert Subject(SubjectKind.SERVICE_ACCOUNT, "heim", "ci", "heim").name == "ci"
