"""The session cookie's content: comes back exactly, or not at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_proxy.identity.session_cookie import CookieClaims, new_sid, subject_digest

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.binary(min_size=16, max_size=16), FINITE, FINITE, FINITE)
def test_claims_come_back(digest: bytes, issued: float, auth_time: float, expires: float) -> None:
    claims = CookieClaims(new_sid(), digest, issued, auth_time, expires)
    assert CookieClaims.unpack(claims.pack()) == claims


def test_the_form_is_short() -> None:
    assert len(CookieClaims(new_sid(), b"d" * 16, 1.0, 1.0, 1.0).pack()) == 58


@given(st.binary(max_size=100))
def test_any_bytes_are_finite_claims_or_none(payload: bytes) -> None:
    claims = CookieClaims.unpack(payload)
    assert (claims is not None) <= (len(payload) == 58)
    if claims is not None:
        assert math.isfinite(claims.issued + claims.auth_time * 0 + claims.expires * 0)
        assert len(claims.sid) == 24


@pytest.mark.parametrize("field", ["issued", "auth_time", "expires"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_times_that_are_none_are_refused(field: str, value: float) -> None:
    claims = CookieClaims(new_sid(), b"d" * 16, 1.0, 1.0, 1.0)._replace(**{field: value})
    assert CookieClaims.unpack(claims.pack()) is None


def test_issuer_and_subject_cannot_flow_into_each_other() -> None:
    assert subject_digest("ab", "c") != subject_digest("a", "bc")
    assert subject_digest("a", "b") == subject_digest("a", "b")
    assert len(subject_digest("\ud800", "größe")) == 16


def test_session_ids_are_long_and_random() -> None:
    """G6: 18 bytes are 144 bits."""
    sids = {new_sid() for _ in range(1000)}
    assert len(sids) == 1000
    assert {len(sid) for sid in sids} == {24}
