"""Identity header families: nobody else's spelling gets through (B1-B8), ordinary headers do."""

from __future__ import annotations

import pytest

from heim_proxy.identity.families import FAMILIES, is_identity_header, normal_form

# security.md B8, and what each product's documentation calls them.
SPOOFED_TEXT = """
X-Auth-Id X-Auth-Token X-Auth-User X-Auth-Username X-Auth-Email X-Auth-Groups X-Authenticated-User
X-Heim-Host X-Heim-Session X-Heim-Backend X-Heim-Anything X-Forwarded-User X-Forwarded-Email
X-Forwarded-Groups X-Forwarded-Preferred-Username X-Forwarded-Access-Token X-Forwarded-Id-Token
X-Auth-Request-User X-Auth-Request-Email X-Auth-Request-Groups X-Auth-Request-Access-Token
GAP-Auth X-Pomerium-Jwt-Assertion X-Pomerium-Claim-Email X-Pomerium-Claim-Groups Remote-User
Remote-Groups Remote-Name Remote-Email X-authentik-username X-authentik-groups X-authentik-email
X-authentik-uid X-authentik-jwt X-Vouch-User X-Vouch-IdP-Claims-Groups X-Vouch-IdP-AccessToken
Cf-Access-Jwt-Assertion Cf-Access-Authenticated-User-Email X-Goog-Authenticated-User-Email
X-Goog-Authenticated-User-Id X-Goog-Iap-Jwt-Assertion Teleport-Jwt-Assertion X-Amzn-Oidc-Data
X-Amzn-Oidc-Identity X-Amzn-Oidc-Accesstoken X-Amzn-Mtls-Clientcert X-Amzn-Ava-User-Context
X-MS-Client-Principal X-MS-Client-Principal-Name X-MS-Token-AAD-Id-Token X-ARR-ClientCert
X-Remote-User X-Remote-Group X-Remote-Uid X-Remote-Extra-Scopes Impersonate-User Impersonate-Group
Impersonate-Uid Impersonate-Extra-Scopes X-SSL-Client-Cert X-SSL-Client-S-DN X-SSL-Client-Verify
ssl-client-cert ssl-client-subject-dn X-Client-Cert X-Client-Certificate X-Client-Verify
X-Client-DN Client-Cert Client-Cert-Chain X-Forwarded-Client-Cert X-Forwarded-Tls-Client-Cert
X-Forwarded-Tls-Client-Cert-Info X-WEBAUTH-USER X-WEBAUTH-NAME X-WEBAUTH-GROUPS OIDC_CLAIM_email
OIDC_CLAIM_sub OIDC_access_token OIDC_id_token_payload X-Octelium-User Tailscale-User-Login
Tailscale-User-Name X-Consumer-Username X-Credential-Identifier X-Anonymous-Consumer
X-Authenticated-Userid X-User X-Userinfo X-Endpoint-API-UserInfo X-Apigateway-Api-Userinfo
X-Appengine-User-Email Shib-Identity-Provider SM_USER SM_UNIVERSALID iv-user iv-groups iv-creds
OAM_REMOTE_USER X-JWT-Assertion es-security-runas-user X-Proxy-User X-Proxy-Roles
"""
SPOOFED = SPOOFED_TEXT.split()

ORDINARY_TEXT = """
Host Accept Accept-Encoding Accept-Language Accept-Charset Authorization Proxy-Authorization
Cache-Control Connection Content-Length Content-Type Content-Encoding Cookie Date Depth
Destination Expect Forwarded From If-Match If-Modified-Since If-None-Match Keep-Alive
Last-Event-ID Origin Pragma Priority Range Referer Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site
Sec-Fetch-User Sec-CH-UA Sec-WebSocket-Key Sec-WebSocket-Protocol SOAPAction TE Trailer
Transfer-Encoding Upgrade Upgrade-Insecure-Requests User-Agent Via DNT X-Requested-With
X-CSRF-Token X-CSRFToken X-XSRF-TOKEN X-Request-Id X-Correlation-Id X-Forwarded-For
X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port X-Real-IP X-Api-Key X-Client-Data
X-Client-Version X-Client-Id X-User-Agent X-User-Id X-Author X-Authorization X-Amz-Date
X-Amz-Content-Sha256 X-Amz-Security-Token X-Amz-User-Agent X-Amzn-Trace-Id X-Ms-Version X-Ms-Date
X-Ms-Client-Request-Id X-GitHub-Event X-Hub-Signature-256 X-Gitlab-Token X-Grafana-Org-Id
X-Scope-OrgID X-Vault-Token X-Kubernetes-Pf-Flowschema X-Registry-Auth X-Grpc-Web Grpc-Timeout
Traceparent Tracestate Baggage X-B3-TraceId X-Datadog-Trace-Id X-HTTP-Method-Override X-Session-Id
X-Socket-Id X-Device-Id X-Locale X-Timezone X-Version X-Clientlib Remote-Addr Remote-Host
Remote-Control Oi Shift Impersonal X-Goal X-Goods X-Remix X-Consume X-Credit Idempotency-Key
HX-Request HX-Target Turbo-Frame Heim Service-Worker
"""
ORDINARY = ORDINARY_TEXT.split()


@pytest.mark.parametrize("name", SPOOFED)
def test_an_identity_header_of_any_product_is_recognised(name: str) -> None:
    """B8."""
    assert is_identity_header(name.encode())


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param(lambda name: name.lower(), id="B3 lower"),
        pytest.param(lambda name: name.upper(), id="B3 upper"),
        pytest.param(lambda name: name.swapcase(), id="B3 swapped"),
        pytest.param(lambda name: name.replace("-", "_"), id="B4 underscores"),
        pytest.param(lambda name: name.replace("-", "."), id="B5 dots"),
        pytest.param(lambda name: name[::-1].replace("-", "_", 1)[::-1], id="B6 mixed"),
        pytest.param(lambda name: name.replace("-", "--"), id="B7 doubled"),
        pytest.param(lambda name: name.replace("-", "").replace("_", ""), id="none"),
        pytest.param(lambda name: f"_{name}_", id="around"),
        pytest.param(lambda name: name.replace("-", "\xa0~'"), id="odd bytes"),
    ],
)
def test_no_spelling_gets_through(spelling: object) -> None:
    assert callable(spelling)
    for name in SPOOFED:
        spelled = str(spelling(name))
        assert is_identity_header(spelled.encode("latin-1")), spelled


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_header_passes(name: str) -> None:
    assert not is_identity_header(name.encode())


def test_every_listed_name_and_prefix_is_recognised() -> None:
    for product, family in FAMILIES.items():
        for name in family.names:
            assert is_identity_header(name.encode()), (product, name)
        for prefix in family.prefixes:
            assert is_identity_header(f"{prefix}Whatever".encode()), (product, prefix)


def test_every_family_lists_something() -> None:
    assert all(family.names or family.prefixes for family in FAMILIES.values())


def test_the_normal_form_is_letters_and_digits() -> None:
    assert normal_form(b"X_Auth-.Id--42\xff") == b"xauthid42"
    assert normal_form(b"--") == b""
    assert not is_identity_header(b"")
