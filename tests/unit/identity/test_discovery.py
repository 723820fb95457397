"""Metadata of a provider: what is believed, and every lie that is not (H9)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from heim_proxy.identity.discovery import parse_metadata
from heim_proxy.identity.fetch import MAX_BODY_BYTES
from heim_proxy.identity.login_errors import ProviderFault
from heim_proxy.identity.providers import ClientSecret, Provider, ProviderType
from tests.fakes.idp import OMIT

ISSUER = "https://idp.example.test"
PROVIDER = Provider(
    "idp", ProviderType.OIDC, ISSUER, "heim", secret=ClientSecret(variable="ANYTHING")
)
PUBLIC = Provider("idp", ProviderType.OIDC, ISSUER, "heim")
LOCAL = Provider("idp", ProviderType.OIDC, "http://127.0.0.1:9", "heim")


def document(base: str = ISSUER, **changes: object) -> bytes:
    full: Mapping[str, Any] = {
        "issuer": base,
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "jwks_uri": f"{base}/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        **changes,
    }
    return json.dumps({k: v for k, v in full.items() if v is not OMIT}).encode()


def test_metadata_is_reduced_to_what_we_use() -> None:
    found = parse_metadata(document(end_session_endpoint=f"{ISSUER}/end"), PROVIDER)
    assert found.token_endpoint == f"{ISSUER}/token"
    assert found.end_session_endpoint == f"{ISSUER}/end"
    assert (found.algorithms, found.auth_method) == (("RS256",), "client_secret_basic")
    assert (found.iss_required, found.userinfo_endpoint) == (False, None)


@pytest.mark.parametrize(
    ("advertised", "used"),
    [
        pytest.param(["ES256", "RS256", "HS256", "none"], ("RS256", "ES256"), id="the good ones"),
        pytest.param(["EdDSA", "RS256"], ("RS256", "EdDSA"), id="EdDSA"),
        pytest.param(["ES256"], ("ES256",), id="without the mandatory one"),
        pytest.param(OMIT, ("RS256",), id="silence means RS256"),
    ],
)
def test_algorithms_are_those_advertised_and_allowed(
    advertised: object, used: tuple[str, ...]
) -> None:
    body = document(id_token_signing_alg_values_supported=advertised)
    assert parse_metadata(body, PROVIDER).algorithms == used


@pytest.mark.parametrize(
    ("offered", "provider", "method"),
    [
        pytest.param(["client_secret_post"], PROVIDER, "client_secret_post", id="post"),
        pytest.param(
            ["client_secret_post", "client_secret_basic"],
            PROVIDER,
            "client_secret_basic",
            id="both",
        ),
        pytest.param(["none"], PUBLIC, "none", id="public client"),
    ],
)
def test_the_secret_is_sent_as_the_provider_wants_it(
    offered: list[str], provider: Provider, method: str
) -> None:
    body = document(token_endpoint_auth_methods_supported=offered)
    assert parse_metadata(body, provider).auth_method == method


def test_rfc_9207_is_required_when_advertised() -> None:
    body = document(authorization_response_iss_parameter_supported=True)
    assert parse_metadata(body, PROVIDER).iss_required


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>", id="html"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b'{"issuer":"https://evil.test",' + document()[1:], id="issuer twice"),
        pytest.param(document(x="y" * MAX_BODY_BYTES), id="over 1 MiB"),
        pytest.param(document(issuer="https://evil.test"), id="H9 another issuer"),
        pytest.param(document(issuer=f"{ISSUER}/"), id="H9 trailing slash"),
        pytest.param(document(issuer=[ISSUER]), id="issuer a list"),
        pytest.param(document(issuer=OMIT), id="issuer missing"),
        pytest.param(document(token_endpoint=OMIT), id="no token endpoint"),
        pytest.param(document(authorization_endpoint=OMIT), id="no authorization endpoint"),
        pytest.param(document(jwks_uri=OMIT), id="no key set"),
        pytest.param(document(token_endpoint=1), id="endpoint a number"),
        pytest.param(document(response_types_supported=["id_token"]), id="no code flow"),
        pytest.param(document(response_types_supported="code"), id="response types a string"),
        pytest.param(
            document(id_token_signing_alg_values_supported=["HS256", "none"]), id="HMAC only"
        ),
        pytest.param(
            document(id_token_signing_alg_values_supported="RS256"), id="algorithms a string"
        ),
        pytest.param(
            document(token_endpoint_auth_methods_supported=["private_key_jwt"]), id="no secret"
        ),
        pytest.param(
            document(authorization_response_iss_parameter_supported="yes"), id="iss promise a text"
        ),
    ],
)
def test_unusable_metadata_is_the_providers_fault(body: bytes) -> None:
    with pytest.raises(ProviderFault):
        parse_metadata(body, PROVIDER)


ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "end_session_endpoint",
)


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example.test/x",
        "http://127.0.0.1/x",
        "http://169.254.169.254/latest",
        "ftp://idp.example.test/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//idp.example.test/x",
        "/x",
        "",
        "https://",
        "https:///x",
        "https://user@idp.example.test/x",
        "https://idp.example.test\\@evil.test/x",
        "https://idp.example.test/x#y",
        "https://idp.example.test/x y",
        "https://idp.example.test/x\r\nHost: evil.test",
        "https://idp.example.test:99999/x",
        "https://[::1/x",
        "https://idp.exämple.test/x",
        "https://idp.example.test/" + "x" * 3000,
    ],
)
def test_h9_an_endpoint_that_is_not_plain_https_is_refused(name: str, url: str) -> None:
    with pytest.raises(ProviderFault):
        parse_metadata(document(**{name: url}), PROVIDER)


def test_http_endpoints_are_for_http_issuers_on_loopback_only() -> None:
    found = parse_metadata(document("http://127.0.0.1:9"), LOCAL)
    assert found.token_endpoint == "http://127.0.0.1:9/token"
    with pytest.raises(ProviderFault):
        parse_metadata(document("http://127.0.0.1:9", token_endpoint="http://evil.test/"), LOCAL)


def test_authlibs_switch_for_insecure_transport_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    with pytest.raises(ProviderFault):
        parse_metadata(document(token_endpoint="http://idp.example.test/x"), PROVIDER)
