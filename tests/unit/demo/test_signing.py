from __future__ import annotations

import time

import jwt
import pytest

from heim_proxy.demo.signing import IdTokenKey


@pytest.fixture(scope="module")
def key() -> IdTokenKey:
    return IdTokenKey()


def test_signature_is_verified_with_the_published_key(key: IdTokenKey) -> None:
    token = key.sign({"sub": "alice", "aud": "heim"})
    published = jwt.PyJWKSet.from_dict(key.jwks())[key.kid]
    claims = jwt.decode(token, published, algorithms=["RS256"], audience="heim")
    assert claims["sub"] == "alice"


def test_only_the_public_half_is_published(key: IdTokenKey) -> None:
    keys = key.jwks()["keys"]
    assert isinstance(keys, list)
    assert set(keys[0]) == {"kty", "n", "e", "kid", "use", "alg"}


def test_expired_token_still_names_its_audience(key: IdTokenKey) -> None:
    assert key.audience_of(key.sign({"aud": "heim", "exp": int(time.time()) - 100})) == "heim"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("not a token", id="garbage"),
        pytest.param(jwt.encode({"aud": "heim"}, "k" * 32, algorithm="HS256"), id="another key"),
        pytest.param(jwt.encode({"aud": "heim"}, None, algorithm="none"), id="unsigned"),
    ],
)
def test_token_that_is_not_ours_names_nobody(key: IdTokenKey, token: str) -> None:
    assert key.audience_of(token) is None
