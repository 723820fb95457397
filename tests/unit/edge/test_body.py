from __future__ import annotations

import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heim_proxy.edge.body import BadChunk, ChunkRelay, chunk
from tests.fakes.thorough import examples

# Wire form, data, and what `keep` forwards of it.
VALID = [
    pytest.param(b"0\r\n\r\n", b"", b"0\r\n\r\n", id="empty"),
    pytest.param(b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"5\r\nhello\r\n0\r\n\r\n", id="one chunk"),
    pytest.param(
        b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"abc",
        b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        id="two chunks",
    ),
    pytest.param(
        b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"A\r\n0123456789\r\n0\r\n\r\n", id="hex"
    ),
    pytest.param(b"005\r\nhello\r\n00\r\n\r\n", b"hello", b"005\r\nhello\r\n0\r\n\r\n", id="zeros"),
    pytest.param(
        b"5;a=b;c\r\nhello\r\n0;x\r\n\r\n", b"hello", b"5\r\nhello\r\n0\r\n\r\n", id="extensions"
    ),
    pytest.param(b"5 \t\r\nhello\r\n0\r\n\r\n", b"hello", b"5\r\nhello\r\n0\r\n\r\n", id="space"),
    pytest.param(
        b'3;q="\xc3\xa4;"\r\nabc\r\n0\r\n\r\n', b"abc", b"3\r\nabc\r\n0\r\n\r\n", id="quoted"
    ),
    pytest.param(
        b"3\r\nabc\r\n0\r\nX-Auth-Id: root\r\nB: 2\r\n\r\n",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        id="B14 trailers",
    ),
    pytest.param(
        b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", id="line ends"
    ),
]


def relayed(pieces: list[bytes], *, keep: bool) -> tuple[bytes, bool, int]:
    """What is forwarded of a body fed in pieces, whether it is done, and how much it took."""
    relay = ChunkRelay(keep=keep)
    out = bytearray()
    used = 0
    for piece in pieces:
        forwarded, taken = relay.feed(piece)
        out += forwarded
        used += taken
        assert taken == len(piece) or relay.done
    return bytes(out), relay.done, used


@pytest.mark.parametrize(("wire", "data", "kept"), VALID)
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "strip"])
def test_a_body_is_the_same_wherever_it_is_split(
    wire: bytes, data: bytes, kept: bytes, keep: bool
) -> None:
    wanted = (kept if keep else data, True, len(wire))
    assert relayed([wire], keep=keep) == wanted
    assert relayed([bytes((byte,)) for byte in wire], keep=keep) == wanted
    for first in range(len(wire) + 1):
        for second in range(first, len(wire) + 1):
            pieces = [wire[:first], wire[first:second], wire[second:]]
            assert relayed(pieces, keep=keep) == wanted


@pytest.mark.parametrize(("wire", "data", "kept"), VALID)
def test_what_follows_a_body_is_left_alone(wire: bytes, data: bytes, kept: bytes) -> None:
    relay = ChunkRelay(keep=False)
    assert relay.feed(wire + b"GET / HTTP/1.1\r\n") == (data, len(wire))
    assert relay.done
    assert relay.feed(b"5\r\nhello") == (b"", 0)


@pytest.mark.parametrize(("wire", "data", "kept"), VALID)
def test_a_body_that_stops_early_is_never_done(wire: bytes, data: bytes, kept: bytes) -> None:
    for end in range(len(wire)):
        forwarded, done, used = relayed([wire[:end]], keep=True)
        assert not done
        assert used == end
        # Nothing forwarded so far may look like a complete body to the upstream.
        assert kept.startswith(forwarded)
        assert forwarded != kept


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"\r\n", id="no size"),
        pytest.param(b"x\r\n", id="not hexadecimal"),
        pytest.param(b"0x5\r\nhello\r\n", id="hexadecimal prefix"),
        pytest.param(b"-5\r\nhello\r\n", id="F10 negative"),
        pytest.param(b"+5\r\nhello\r\n", id="sign"),
        pytest.param(b" 5\r\nhello\r\n", id="space before"),
        pytest.param(b"5_0\r\n", id="underscore"),
        pytest.param(b"5\xb2\r\n", id="superscript"),
        pytest.param(b"ffffffffffffffff\r\n", id="F10 64 bits"),
        pytest.param(b"10000000000000005\r\nhello\r\n", id="F10 wraps at 64 bits"),
        pytest.param(b"0" * 600 + b"5\r\n", id="F10 zeros without end"),
        pytest.param(b"5\nhello\n0\n\n", id="F7 bare line feeds"),
        pytest.param(b"5\r\nhello\n0\r\n\r\n", id="bare line feed after the data"),
        pytest.param(b"5\rhello\r\n", id="bare carriage return"),
        pytest.param(b"5\r\r\nhello\r\n", id="two carriage returns"),
        pytest.param(b"5\r\nhelloX\r\n0\r\n\r\n", id="data longer than its size"),
        pytest.param(b"5\r\nhell\r\n0\r\n\r\n", id="data shorter than its size"),
        pytest.param(b"5;a\x00b\r\nhello\r\n", id="NUL in an extension"),
        pytest.param(b"5;a\rb\r\nhello\r\n", id="carriage return in an extension"),
        pytest.param(b"5 a\r\nhello\r\n", id="word after the size"),
        pytest.param(b"5;" + b"a" * 10_240 + b"\r\nhello\r\n", id="F10 10 KiB of extension"),
        pytest.param(b"5;" + b"a" * 10_240, id="extension without end"),
        pytest.param(b"0\r\nA: b\n\r\n", id="bare line feed in trailers"),
        pytest.param(b"0\r\n\n", id="bare line feed ends trailers"),
        pytest.param(b"0\r\n" + b"A: b\r\n" * 2_000 + b"\r\n", id="trailers without end"),
        pytest.param(b"0\r\nA: " + b"b" * 10_000 + b"\r\n\r\n", id="one long trailer"),
    ],
)
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "strip"])
def test_framing_that_is_not_exact_is_refused_however_it_is_split(wire: bytes, keep: bool) -> None:
    with pytest.raises(BadChunk):
        relayed([wire], keep=keep)
    with pytest.raises(BadChunk):
        relayed([bytes((byte,)) for byte in wire], keep=keep)


@pytest.mark.parametrize(
    "wire",
    [b"5;" + b"a" * 100_000, b"0\r\nA: " + b"b" * 100_000, b"1\r\na" + b"x" * 100_000],
    ids=["extension", "trailer", "data end"],
)
def test_what_is_held_back_is_bounded(wire: bytes) -> None:
    relay = ChunkRelay(keep=True)
    held = 0
    for byte in wire:
        try:
            relay.feed(bytes((byte,)))
        except BadChunk:
            break
        held = max(held, len(relay._held))
    else:
        pytest.fail("never refused")
    assert held <= 8 * 1024


def test_data_is_forwarded_as_it_comes_and_never_collected() -> None:
    relay = ChunkRelay(keep=True)
    assert relay.feed(b"100000\r\n") == (b"100000\r\n", 8)
    piece = bytes(64 * 1024)
    for _ in range(15):
        out, used = relay.feed(piece)
        assert out is piece
        assert used == len(piece)
    assert not relay._held


def test_one_chunk_is_what_the_relay_reads() -> None:
    data = bytes(range(256)) * 2
    assert chunk(data) == b"200\r\n" + data + b"\r\n"
    assert relayed([chunk(data) + b"0\r\n\r\n"], keep=False) == (data, True, len(data) + 12)


EXTENSION = st.sampled_from([b"", b";a", b";a=b;c", b' ;q="x y"', b"\t"])


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(400)
)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), EXTENSION), max_size=6),
    st.lists(st.sampled_from([b"A: b\r\n", b"X-Auth-Id: root\r\n", b"T:\r\n"]), max_size=3),
    st.binary(max_size=20),
    st.integers(0, 2**32),
)
def test_any_body_survives_any_splitting(
    chunks: list[tuple[bytes, bytes]], trailers: list[bytes], rest: bytes, seed: int
) -> None:
    wire = b"".join(b"%X%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in chunks)
    wire += b"0\r\n" + b"".join(trailers) + b"\r\n"
    data = b"".join(data for data, _ in chunks)
    plain = b"".join(b"%X\r\n%b\r\n" % (len(one), one) for one, _ in chunks) + b"0\r\n\r\n"
    choose = random.Random(seed)
    whole = wire + rest
    cuts = sorted(choose.randrange(len(whole) + 1) for _ in range(choose.randrange(8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    for keep, wanted in ((True, plain), (False, data)):
        relay = ChunkRelay(keep=keep)
        out = bytearray()
        used = 0
        for piece in pieces:
            forwarded, taken = relay.feed(piece)
            out += forwarded
            used += taken
        assert (bytes(out), relay.done, used) == (wanted, True, len(wire))


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(600)
)
@given(st.data())
def test_a_damaged_body_is_refused_or_read_as_an_upstream_would(data: st.DataObject) -> None:
    wire = bytearray(b"5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(wire)))
        wire[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.lists(st.sampled_from(list(b"\r\n;05 aF\x00")), max_size=3).map(bytes)
        )
    relay = ChunkRelay(keep=True)
    try:
        forwarded, _ = relay.feed(bytes(wire))
    except BadChunk:
        return
    if not relay.done:
        return
    # What went out is strict framing without extensions and trailers: read again, it is itself.
    assert relayed([forwarded], keep=True) == (forwarded, True, len(forwarded))


def test_lines_of_framing_are_counted_anew_for_each_feed() -> None:
    relay = ChunkRelay(keep=True)
    relay.feed(b"1\r\na\r\n1\r\nb\r\n")
    assert relay.lines == 4
    relay.feed(b"5\r\nhe")
    assert relay.lines == 1
    relay.feed(b"l")
    assert relay.lines == 0
