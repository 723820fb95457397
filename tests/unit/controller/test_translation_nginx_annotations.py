"""Annotations of ingress-nginx: what is read, replaced, refused."""

from __future__ import annotations

import pytest

from heim_controller.translation.annotations import NONE, Options
from heim_controller.translation.nginx_annotations import (
    PREFIX,
    READ,
    REPLACED,
    RESTRICTING,
    ROUTING,
    Nginx,
    read_nginx,
)


def read(
    paths: list[str] | None = None, *, public: bool = False, options: Options = NONE, **notes: str
) -> Nginx:
    found = {PREFIX + name.replace("_", "-"): value for name, value in notes.items()}
    return read_nginx(found, options, paths or ["/"], public=public)


def test_without_any_nothing_changes() -> None:
    assert read_nginx({"heim.dev/auth": "none"}, NONE, ["/"], public=True) == Nginx(NONE)


@pytest.mark.parametrize(
    ("notes", "options"),
    [
        ({"backend_protocol": "HTTPS"}, NONE._replace(scheme="https")),
        ({"backend_protocol": "http"}, NONE._replace(scheme="http")),
        ({"backend_protocol": "AUTO_HTTP"}, NONE),
        ({"proxy_connect_timeout": "7"}, NONE._replace(connect_timeout="7s")),
        ({"proxy_read_timeout": "3600"},
         NONE._replace(read_timeout="3600s", idle_timeout="3600s")),
        ({"proxy_read_timeout": "99999999"}, NONE),
        ({"proxy_ssl_name": "A.svc.example"}, NONE._replace(server_name="a.svc.example")),
        ({"service_upstream": "true"}, NONE._replace(upstream_service=True)),
        ({"ssl_redirect": "false"}, NONE._replace(ssl_redirect=False)),
        ({"force_ssl_redirect": "true"}, NONE._replace(ssl_redirect=True)),
        ({"rewrite_target": "/"}, NONE),
        ({"rewrite_target": "/$2"}, NONE._replace(strip_regex=True)),
        ({"use_regex": "true"}, NONE),
        ({"proxy_body_size": "100m"}, NONE),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_has_a_safe_meaning_is_read(notes: dict[str, str], options: Options) -> None:
    assert read(**notes) == Nginx(options)


def test_our_own_annotations_win() -> None:
    mine = NONE._replace(scheme="http", connect_timeout="1s", ssl_redirect=True, insecure=True)
    found = read(
        options=mine, backend_protocol="HTTPS", proxy_connect_timeout="9", ssl_redirect="false",
        proxy_ssl_name="a.example",
    )  # fmt: skip
    assert found.options == mine


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_signing_in_elsewhere_is_replaced(name: str) -> None:
    found = read(**{name: "x"})
    assert found.options.closed is None
    assert [reason for reason, _ in found.findings] == ["ReplacedByHeim"]


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_what_asked_people_to_sign_in_does_not_become_public(name: str) -> None:
    closed = read(public=True, **{name: "x"}).options.closed
    assert closed is not None
    assert closed[0] == "RestrictionNotKept"


@pytest.mark.parametrize("name", sorted(RESTRICTING))
@pytest.mark.parametrize("public", [False, True])
def test_who_may_come_is_never_widened(name: str, public: bool) -> None:
    closed = read(public=public, **{name: "10.0.0.0/8"}).options.closed
    assert closed is not None
    assert closed[0] == "RestrictionNotKept"


@pytest.mark.parametrize("name", sorted(ROUTING))
def test_where_requests_go_is_not_guessed(name: str) -> None:
    closed = read(**{name: "true"}).options.closed
    assert closed is not None
    assert closed[0] == "RoutingNotKept"


def test_a_switch_that_is_off_is_off() -> None:
    assert read(canary="false", from_to_www_redirect="false").options.closed is None


@pytest.mark.parametrize(
    ("paths", "notes"),
    [
        (["/app"], {"rewrite_target": "/"}),
        (["/", "/app"], {"rewrite_target": "/"}),
        (["/app/(.*)"], {"rewrite_target": "/$1"}),
        (["/app/(.*)"], {"use_regex": "true"}),
        (["/app"], {"backend_protocol": "GRPC"}),
        (["/app"], {"backend_protocol": "FCGI"}),
    ],
)
def test_what_would_arrive_differently_is_closed(paths: list[str], notes: dict[str, str]) -> None:
    assert read(paths, **notes).options.closed is not None


def test_snippets_are_not_looked_into() -> None:
    found = read(configuration_snippet="deny all;", server_snippet="return 200;")
    assert found.options == NONE
    [(reason, message)] = found.findings
    assert reason == "UnsupportedAnnotation"
    assert "deny" not in message


def test_a_snippet_on_what_is_public_closes_it() -> None:
    closed = read(public=True, configuration_snippet="deny all;").options.closed
    assert closed is not None
    assert closed[0] == "RestrictionNotKept"


def test_what_is_unknown_is_named_once() -> None:
    [(reason, message)] = read(limit_rps="5", limit_rpm="5").findings
    assert reason == "UnsupportedAnnotation"
    assert message == "without effect: limit-rpm, limit-rps"


def test_no_annotation_is_in_two_lists() -> None:
    lists = [set(READ), set(REPLACED), set(RESTRICTING), set(ROUTING)]
    assert sum(map(len, lists)) == len(set().union(*lists))
