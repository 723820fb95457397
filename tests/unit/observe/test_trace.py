from __future__ import annotations

import os

import pytest

from heim_proxy.observe.trace import (
    REQUEST_ID_BYTES,
    new_request_id,
    trace_id,
    valid_traceparent,
)

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"

TRACEPARENTS = {
    "recommended": (b"00-%b-%b-01" % (TRACE, SPAN), True),
    "unsampled": (b"00-%b-%b-00" % (TRACE, SPAN), True),
    "later-version": (b"cc-%b-%b-01" % (TRACE, SPAN), True),
    "later-version-with-more": (b"cc-%b-%b-01-what-comes" % (TRACE, SPAN), True),
    "version-00-with-more": (b"00-%b-%b-01-more" % (TRACE, SPAN), False),
    "later-version-run-on": (b"cc-%b-%b-01x" % (TRACE, SPAN), False),
    "version-ff": (b"ff-%b-%b-01" % (TRACE, SPAN), False),
    "upper-case": (b"00-%b-%b-01" % (TRACE.upper(), SPAN), False),
    "zero-trace": (b"00-%b-%b-01" % (b"0" * 32, SPAN), False),
    "zero-span": (b"00-%b-%b-01" % (TRACE, b"0" * 16), False),
    "short-trace": (b"00-%b-%b-01" % (TRACE[1:], SPAN), False),
    "long-span": (b"00-%b-%b0-01" % (TRACE, SPAN), False),
    "no-flags": (b"00-%b-%b" % (TRACE, SPAN), False),
    "space": (b" 00-%b-%b-01" % (TRACE, SPAN), False),
    "line-end": (b"00-%b-%b-01\n" % (TRACE, SPAN), False),
    "header-injection": (b"cc-%b-%b-01-\r\nX-Auth-Id: a" % (TRACE, SPAN), False),
    "endless": (b"cc-%b-%b-01-%b" % (TRACE, SPAN, b"x" * 300), False),
    "empty": (b"", False),
    "not-hex": (b"00-%b-%b-0g" % (TRACE, SPAN), False),
}


@pytest.mark.parametrize(("value", "valid"), TRACEPARENTS.values(), ids=TRACEPARENTS)
def test_only_what_the_standard_allows_is_passed_on(value: bytes, valid: bool) -> None:
    assert valid_traceparent(value) is valid
    assert not valid or trace_id(value) == TRACE


def test_request_ids_are_hex_of_one_length_and_never_the_same() -> None:
    ids = [new_request_id() for _ in range(5000)]
    assert len(set(ids)) == len(ids)
    assert {len(one) for one in ids} == {REQUEST_ID_BYTES}
    assert set(b"".join(ids)) <= set(b"0123456789abcdef")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_does_not_repeat_its_parents_ids() -> None:
    new_request_id()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b"".join(new_request_id() for _ in range(100)))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    theirs = {said[i : i + REQUEST_ID_BYTES] for i in range(0, len(said), REQUEST_ID_BYTES)}
    assert len(theirs) == 100
    assert not theirs & {new_request_id() for _ in range(600)}
