"""Our annotations: what they say, and what closes an Ingress."""

from __future__ import annotations

import time
from typing import Any

import pytest

from heim_controller.translation.annotations import (
    ANNOTATIONS,
    NONE,
    Options,
    read_options,
    role_key,
    seconds_text,
)


def read(**notes: Any) -> Options:
    return read_options({f"heim.dev/{k.replace('_', '-')}": v for k, v in notes.items()}, "shop")


def test_without_annotations_nothing_is_said() -> None:
    assert read_options({"cert-manager.io/issuer": "x"}, "shop") is NONE


@pytest.mark.parametrize(
    ("notes", "option", "value"),
    [
        ({"roles": "viewers"}, "roles", (("shop", "viewers"),)),
        ({"roles": "b, a,team/x, a"}, "roles", (("shop", "a"), ("shop", "b"), ("team", "x"))),
        ({"auth": "none"}, "auth", "none"),
        ({"auth": "Required"}, "auth", "required"),
        ({"tcp": "true"}, "tcp", True),
        ({"tcp": "false"}, "tcp", False),
        ({"session_max_age": "480m"}, "max_session_age", "8h"),
        ({"identity_headers": "forwarded, heimdallr"}, "identity_headers",
         ("forwarded", "heimdallr")),
        ({"identity_headers": "none"}, "identity_headers", ()),
        ({"backend_protocol": "HTTPS"}, "scheme", "https"),
        ({"backend_server_name": "A.example.com"}, "server_name", "a.example.com"),
        ({"backend_insecure": "true"}, "insecure", True),
        ({"upstream": "service"}, "upstream_service", True),
        ({"upstream": "endpoints"}, "upstream_service", False),
        ({"connect_timeout": "2s"}, "connect_timeout", "2s"),
        ({"read_timeout": "90s"}, "read_timeout", "90s"),
        ({"idle_timeout": "1h"}, "idle_timeout", "1h"),
        ({"ssl_redirect": "false"}, "ssl_redirect", False),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_an_annotation_says(notes: dict[str, str], option: str, value: object) -> None:
    options = read(**notes)
    assert options.closed is None
    assert getattr(options, option) == value


def test_every_annotation_has_an_option_of_its_own() -> None:
    options = [one.option for one in ANNOTATIONS.values()]
    assert len(set(options)) == len(options)
    assert set(options) <= set(Options._fields)


@pytest.mark.parametrize(
    "notes",
    [
        {"rolls": "viewers"}, {"auth": "optional"}, {"auth": ""}, {"auth": True},
        {"roles": ""}, {"roles": "a,,b"}, {"roles": "A"}, {"roles": "a/b/c"}, {"roles": "a b"},
        {"roles": ",".join(f"r{i}" for i in range(65))}, {"tcp": "yes"}, {"tcp": "True"},
        {"session_max_age": "8"}, {"session_max_age": "-1h"}, {"session_max_age": "0s"},
        {"identity_headers": "jwt"}, {"backend_protocol": "H2C"}, {"backend_protocol": "GRPC"},
        {"backend_server_name": "*.example.com"}, {"backend_server_name": "10.0.0.1"},
        {"upstream": "pods"}, {"read_timeout": "5"}, {"allow_users": "alice@example.com"},
        {"max_body_size": "1m"}, {"auth": "none", "roles": "viewers"},
        {"auth": "none", "tcp": "true"}, {"roles": "x" * 5000},
        {"backend_insecure": "true", "backend_server_name": "a.example.com"}, {"": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_understood_closes(notes: dict[str, Any]) -> None:
    options = read(**notes)
    assert options.closed is not None
    reason, message = options.closed
    assert reason == "InvalidAnnotation"
    assert "\n" not in message


def test_a_misspelling_is_told_the_nearest() -> None:
    options = read(sessions_max_age="8h")
    assert options.closed is not None
    assert "did you mean heim.dev/session-max-age?" in options.closed[1]


def test_one_mistake_among_good_ones_closes_all_the_same() -> None:
    options = read(roles="viewers", zzz="1")
    assert options.closed is not None


def test_seconds_are_whole_and_bounded() -> None:
    assert seconds_text("60", most=100) == "60s"
    assert seconds_text(" 60s ", most=100) == "60s"
    for wrong in ("0", "101", "-1", "1.5", "", "1m", "٣", "9" * 40):
        assert seconds_text(wrong, most=100) is None


def test_references_to_roles() -> None:
    assert role_key("a", "shop") == ("shop", "a")
    assert role_key("team/a", "shop") == ("team", "a")
    for wrong in ("", "/", "a/", "/a", "a/b/c", "A", "a.b", "../a"):
        assert role_key(wrong, "shop") is None


def test_thousands_of_unknown_ones_take_no_time() -> None:
    notes = {f"heim.dev/nothing-{number}": "" for number in range(20_000)}
    began = time.process_time()
    options = read_options(notes, "shop")
    assert options.closed is not None
    assert "nothing-0" in options.closed[1]
    assert time.process_time() - began < 0.2
