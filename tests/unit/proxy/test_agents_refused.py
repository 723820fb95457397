from __future__ import annotations

import pytest

from heim_proxy.agents.refused import ENDINGS, LaneRefused, ending
from heim_proxy.live import EndReason
from heim_wire.errors import Code


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_has_a_code_and_words(reason: EndReason) -> None:
    code, words = ending(reason, "desktop")
    assert code in (Code.REVOKED, Code.EXPIRED, Code.FORBIDDEN, Code.GOING_AWAY)
    assert words
    assert "{" not in words


def test_what_can_happen_to_an_agent_has_words_of_its_own() -> None:
    assert ending(EndReason.REVOKED, "desktop") == (
        Code.REVOKED,
        "agent desktop was revoked on this machine; join again",
    )
    assert ENDINGS[EndReason.POLICY_CHANGED][0] == Code.FORBIDDEN


def test_a_refusal_knows_its_word() -> None:
    refused = LaneRefused(Code.SUPERSEDED, "another one", reconnect_in=60)
    assert (refused.slug, str(refused), refused.reconnect_in) == ("superseded", "another one", 60)
