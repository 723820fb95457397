"""Errors of signing in carry their step, and can be raised more than once."""

from __future__ import annotations

import pytest

from heim_proxy.identity.login_errors import LoginError, LoginRejected, ProviderDown, ProviderFault


@pytest.mark.parametrize("kind", [ProviderDown, ProviderFault, LoginRejected])
def test_a_copy_is_of_the_same_kind_and_says_the_same(kind: type[LoginError]) -> None:
    error = kind("discovery", "answered 500")
    copy = error.again()
    assert copy is not error
    assert type(copy) is kind
    assert (copy.step, copy.detail, str(copy)) == (
        "discovery",
        "answered 500",
        "discovery: answered 500",
    )
