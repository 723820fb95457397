from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heim_proxy.edge.cookie import Cookies, split_cookies
from heim_proxy.identity.cookies import is_ours
from tests.fakes.thorough import examples


@pytest.mark.parametrize(
    ("line", "session", "rest"),
    [
        pytest.param(b"__Host-heim=abc", b"abc", None, id="only ours"),
        pytest.param(b"a=1; __Host-heim=abc; b=2", b"abc", b"a=1; b=2", id="between others"),
        pytest.param(b"__Host-heim=abc; a=1", b"abc", b"a=1", id="ours first"),
        pytest.param(b"a=1;__Host-heim=abc;b=2", b"abc", b"a=1;b=2", id="without spaces"),
        pytest.param(b"a=1; b=2", None, b"a=1; b=2", id="none of ours"),
        pytest.param(b'a="x; y"; b = 2;  c', None, b'a="x; y"; b = 2;  c', id="odd but not ours"),
        pytest.param(b"a=\xff\xfe", None, b"a=\xff\xfe", id="not ascii"),
        pytest.param(b"", None, None, id="empty"),
        pytest.param(b";;;", None, b";;;", id="only semicolons"),
        pytest.param(b"heim=x; Heim=y", None, b"heim=x; Heim=y", id="tossed name without prefix"),
        pytest.param(b"__Host-heim = abc ", b"abc", None, id="spaces around"),
        pytest.param(b"__Host-heim=a=b=", b"a=b=", None, id="equals signs in the value"),
        pytest.param(b"__Host-heim=", b"", None, id="empty value"),
        pytest.param(b"__Host-heim", None, None, id="no value at all"),
        pytest.param(b"__host-heim=abc", None, None, id="other case is taken but not believed"),
        pytest.param(b'"__Host-heim"=abc', None, None, id="quoted is taken but not believed"),
        pytest.param(b"__Host-heim_1=abc; a=1", None, b"a=1", id="chunked name is taken"),
        pytest.param(b"__Host-heimdall=abc", None, None, id="longer name is taken"),
        pytest.param(b"\t__Host-heim\t=abc", b"abc", None, id="tabs around the name"),
        pytest.param(b"__Host-heim-login-1=z; a=1", None, b"a=1", id="login state is taken"),
        pytest.param(b"__Host-heim\xff=z; a=1", None, b"a=1", id="ours with a byte that is not"),
    ],
)
def test_our_cookies_are_taken_out_and_the_rest_stays_as_it_came(
    line: bytes, session: bytes | None, rest: bytes | None
) -> None:
    found = split_cookies(line)
    assert (found.session, found.rest) == (session, rest)


def test_two_session_cookies_mean_that_one_was_planted_so_neither_counts() -> None:
    found = split_cookies(b"__Host-heim=mine; __Host-heim=planted; a=1")
    assert found == Cookies(None, 2, (), b"a=1")


def test_two_equal_session_cookies_are_refused_too() -> None:
    assert split_cookies(b"__Host-heim=x; __Host-heim=x").session is None


def test_flow_cookies_are_named_so_that_old_ones_can_be_cleared() -> None:
    found = split_cookies(b"__Host-heim-flow-1=a; x=1; __Host-heim-flow-2=b; __Host-heim=s")
    assert found == Cookies(b"s", 1, ("__Host-heim-flow-1", "__Host-heim-flow-2"), b"x=1")


def test_a_worthless_session_is_forgotten_but_was_presented() -> None:
    found = split_cookies(b"__Host-heim=s; a=1; __Host-heim-flow-1=n")
    assert found.without_session() == Cookies(None, 1, ("__Host-heim-flow-1",), b"a=1")


PIECES = st.sampled_from(
    [b"__Host-heim", b"__HOST-HEIM", b'"__Host-heim', b"_1", b"-flow-", b"=", b";", b" ", b"\t",
     b"a", b"b=2", b'"', b"\xff", b"\x0b", b"heim"]
)  # fmt: skip


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(600)
)
@given(st.lists(PIECES, max_size=14).map(b"".join))
def test_nothing_that_could_be_read_as_ours_reaches_an_upstream(line: bytes) -> None:
    rest = split_cookies(line).rest
    if rest is None:
        return
    assert not any(is_ours(pair.partition(b"=")[0]) for pair in rest.split(b";"))
    # What is left is the pairs that are not ours, in order, byte for byte.
    kept = [pair for pair in line.split(b";") if not is_ours(pair.partition(b"=")[0])]
    assert rest == b";".join(kept).strip()
