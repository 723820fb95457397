from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_config.units import (
    Address,
    format_duration,
    parse_address,
    parse_duration,
    parse_network,
    parse_port,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("15s", 15.0),
        ("5m", 300.0),
        ("8h", 28800.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("3650d", 315360000.0),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", "15", "s", "-5s", "+5s", "5 s", " 5s", "5s ", "5S", "5sec", "1h30m", "0s", "0.0m"),
        *("1e3s", "½h", "٥s", "5s\n", "inf", "nans", "3651d", "9" * 400 + "s", "5µs", "1w"),
        *(0, 15, 1.5, True, None, [], {}, b"5s"),
    ],
)
def test_what_is_not_a_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(value)


def test_a_number_without_a_unit_is_answered_with_the_spellings() -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(15)
    assert caught.value.context["hint"] == "write 15s, 15m, 15h or 15d"  # type: ignore[attr-defined]


@given(st.integers(min_value=1, max_value=3650 * 86400 * 1000))
def test_a_formatted_duration_is_read_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86400, "1d"), (28800, "8h"), (90, "90s"), (900, "15m"), (0.25, "250ms"), (129600, "36h")],
)
def test_durations_are_written_in_their_largest_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:443", Address("0.0.0.0", 443)),
        ("[::]:443", Address("::", 443)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[0:0::1]:65535", Address("::1", 65535)),
        ("unix:/run/a.sock", Address("", 0, Path("/run/a.sock"))),
        ("unix:a.sock", Address("", 0, Path("/etc/heim/a.sock"))),
    ],
)
def test_addresses_are_understood(text: str, address: Address) -> None:
    parsed = parse_address(text, base=Path("/etc/heim"), unix=True)
    assert parsed == address
    assert parse_address(str(parsed), base=None, unix=True) == address


@pytest.mark.parametrize(
    "value",
    [
        *("", ":443", "443", "localhost:443", "0.0.0.0", "0.0.0.0:", "0.0.0.0:65536"),
        *("0.0.0.0:-1", "0.0.0.0:4 3", "0.0.0.0:٤", "::1:443", "[::]", "[::]443", "[0.0.0.0]:1"),
        *("256.0.0.1:1", "[fe80::1%eth0]:1", "*:443", "http://0.0.0.0:443", "0.0.0.0:443/"),
        *("unix:", "unix:a\0b", "unix:" + "a" * 200),
        *(443, None, True, ["0.0.0.0:443"]),
    ],
)
def test_what_is_not_an_address_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_address(value, base=Path("/etc/heim"), unix=True)


def test_a_socket_is_refused_where_only_addresses_are_possible() -> None:
    with pytest.raises(ValueError, match="unix socket"):
        parse_address("unix:/run/a.sock", base=None, unix=False)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("unix:/run/a", True),
        ("0.0.0.0:1", False),
        ("10.0.0.1:1", False),
        ("[::]:1", False),
    ],
)
def test_an_address_knows_whether_only_this_machine_reaches_it(text: str, loopback: bool) -> None:
    assert parse_address(text, base=None, unix=True).is_loopback is loopback


def test_networks_and_single_addresses_are_understood() -> None:
    assert parse_network("10.0.0.0/8") == ipaddress.ip_network("10.0.0.0/8")
    assert parse_network("2001:db8::/32") == ipaddress.ip_network("2001:db8::/32")
    assert parse_network("192.0.2.7") == ipaddress.ip_network("192.0.2.7/32")


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("10.0.0.1/8", "bits after its prefix"),
        ("0.0.0.0/0", "anyone"),
        ("::/0", "anyone"),
        ("10.0.0.0/33", "not a network"),
        ("10.0.0", "not a network"),
        ("example.com", "not a network"),
        ("", "not a network"),
        (10, "not a network"),
        (None, "not a network"),
    ],
)
def test_what_is_not_a_trustworthy_network_is_refused(value: object, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        parse_network(value)


@pytest.mark.parametrize("text", ["", "-1", "65536", "+1", " 1", "1 ", "0x1", "1.0", "²", "000001"])
def test_what_is_not_a_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_port(text)
