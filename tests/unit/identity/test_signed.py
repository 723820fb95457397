from __future__ import annotations

import jwt
import pytest

from heim_proxy.identity.signed import authentic_claims, time_claim
from heim_proxy.identity.signing import SigningKey, SigningKeys

KEYS = SigningKeys.parse(SigningKeys.generate_pem(), source="test")


class RefusedError(Exception):
    pass


def signed(typ: str = "ours", **claims: object) -> str:
    key: SigningKey = KEYS.first
    return jwt.encode(
        dict(claims), key.private, algorithm="ES256", headers={"typ": typ, "kid": key.kid}
    )


def read(token: str, *, known: bool = True, require: tuple[str, ...] = ()) -> dict[str, object]:
    public = KEYS.first.private.public_key()
    return authentic_claims(
        token,
        typ="ours",
        what="one of ours",
        longest=1000,
        find=lambda kid: public if known and kid == KEYS.first.kid else None,
        require=require,
        invalid=RefusedError,
    )


def test_what_our_key_signed_is_read() -> None:
    assert read(signed(a=1), require=("a",)) == {"a": 1}


@pytest.mark.parametrize(
    ("token", "keys", "said"),
    [
        (signed("other"), {}, "not one of ours"),
        (signed(), {"known": False}, "signed by an unknown key"),
        (signed(), {"require": ("exp",)}, "not authentic"),
        (signed()[:-8] + "AAAAAAAA", {}, "not authentic"),
        ("x" * 1001, {}, "too long"),
        ("nonsense", {}, "not authentic"),
    ],
    ids=["type", "key", "claim missing", "signature", "length", "no token"],
)
def test_anything_else_is_the_callers_exception(
    token: str, keys: dict[str, object], said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        read(token, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, True, "1", float("inf"), float("nan")], ids=repr)
def test_a_time_is_a_finite_number(value: object) -> None:
    assert time_claim({"exp": 5}, "exp", RefusedError) == 5
    with pytest.raises(RefusedError, match="exp is not a time"):
        time_claim({"exp": value}, "exp", RefusedError)
