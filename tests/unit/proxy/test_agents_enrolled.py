"""What comes of asking to be an agent, as values."""

from __future__ import annotations

import math

import pytest

from heim_config.secrets import Secret
from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.agents.enrolled import (
    Asked,
    Refusal,
    enrolment_of,
    label_of,
    name_taken,
    not_configured,
    token_used,
)
from heim_proxy.store.base import SessionKind
from tests.fakes.agent_certificates import NOW, new_key


def test_an_enrolment_is_bound_to_a_key_and_never_ends_by_itself() -> None:
    key = AgentKey(new_key().public_key())
    row = enrolment_of("desktop", key, "pc-17", NOW)
    assert (row.kind, row.issuer, row.subject) == (SessionKind.AGENT, "heim", "desktop")
    assert (row.secret_hash, row.label, row.expires) == (key.thumbprint, "pc-17", math.inf)
    assert (row.email, row.domain, row.groups) == (None, None, ())
    assert enrolment_of("desktop", key, "pc-17", NOW).sid != row.sid


@pytest.mark.parametrize(
    ("text", "label"),
    [
        pytest.param("pc-17", "pc-17", id="plain"),
        pytest.param(" größe 💻 ", "größe 💻", id="text of people"),
        pytest.param("a\x1b[31m\r\nb\u202ec", "a[31mbc", id="escapes and line ends"),
        pytest.param("x" * 9999, "x" * 64, id="long"),
        pytest.param("\x00", "", id="nothing left"),
    ],
)
def test_a_label_is_one_printable_line(text: str, label: str) -> None:
    assert label_of(text) == label


def test_a_refusal_says_what_to_do() -> None:
    assert not_configured("agent x").code is Refusal.NOT_CONFIGURED
    assert str(not_configured("agent x")) == "agent x is not in the proxy's configuration"
    assert "heim-proxy agent revoke desktop" in name_taken("desktop").hint
    assert "heim-proxy agent revoke desktop" in token_used("desktop").hint


def test_codes_are_not_shown() -> None:
    asked = Asked(Secret("heim_ac_x"), "BCDF-GHJK", 600.0, 5.0, "SHA256:x")
    assert "BCDF" not in repr(asked)
