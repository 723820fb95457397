"""The code flow against a provider that behaves, and against one that lies (H3-H11, I4)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from heim_proxy.identity.fetch import MAX_BODY_BYTES, Fetcher
from heim_proxy.identity.flow import LoginFlow
from heim_proxy.identity.login_errors import (
    LoginError,
    LoginRejected,
    ProviderDown,
    ProviderFault,
)
from heim_proxy.identity.oidc import RETRY_S, Login, OidcLogin
from heim_proxy.identity.providers import ClientSecret, Provider, ProviderType
from tests.fakes.idp import OMIT, REDIRECT, FakeIdp, Lies, rsa_key
from tests.fakes.sessions import ManualClock


@dataclass
class Stand:
    """One relying party and one provider."""

    idp: FakeIdp
    clock: ManualClock
    login: OidcLogin
    provider: Provider

    def flow(self, max_age_s: float | None = None) -> LoginFlow:
        return LoginFlow.begin("idp", now=self.clock.now(), max_age_s=max_age_s)

    async def authorize(self, flow: LoginFlow, *, again: bool = False) -> dict[str, str]:
        """Go to the provider as a browser would; the parameters it sends back."""
        url = await self.login.authorization_url(self.provider, flow, again=again)
        async with aiohttp.ClientSession() as http, http.get(url, allow_redirects=False) as answer:
            query = parse_qs(urlsplit(answer.headers["Location"]).query)
        return {name: values[0] for name, values in query.items()}

    async def sign_in(self, flow: LoginFlow | None = None) -> Login:
        flow = flow or self.flow()
        sent = await self.authorize(flow)
        await self.login.check_issuer(self.provider, sent.get("iss"))
        return await self.login.finish(self.provider, flow, sent["code"], now=self.clock.now())


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    idp, clock = FakeIdp(), ManualClock()
    idp.now = clock.now
    await idp.start()
    secret = tmp_path / "secret"
    secret.write_text(idp.client_secret)
    fetcher = Fetcher(timeout_s=0.4)
    provider = Provider(
        "idp",
        ProviderType.OIDC,
        idp.issuer,
        idp.client_id,
        secret=ClientSecret(file=secret),
        groups_claim="groups",
    )
    login = OidcLogin(fetcher, clock, redirect_uri=lambda: REDIRECT)
    yield Stand(idp, clock, login, provider)
    await fetcher.close()
    await idp.stop()


async def failure(stand: Stand) -> LoginError:
    with pytest.raises(LoginError) as caught:
        await stand.sign_in()
    return caught.value


async def test_somebody_signs_in(stand: Stand) -> None:
    login = await stand.sign_in()
    assert (login.claims.issuer, login.claims.subject) == (stand.idp.issuer, "alice")
    assert login.claims.all["email"] == "alice@example.com"
    assert login.claims.auth_time == stand.clock.now()
    assert login.id_token not in repr(login)


async def test_h5_pkce_is_always_sent_and_the_verifier_fits(stand: Stand) -> None:
    flow = stand.flow()
    await stand.sign_in(flow)
    asked, form = stand.idp.requests[-1], stand.idp.token_forms[-1]
    digest = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest())
    assert asked["code_challenge_method"] == "S256"
    assert asked["code_challenge"] == digest.rstrip(b"=").decode()
    assert form["code_verifier"] == flow.verifier
    assert (asked["state"], asked["nonce"]) == (flow.state, flow.nonce)


async def test_h17_the_redirect_uri_is_the_configured_one(stand: Stand) -> None:
    await stand.sign_in()
    assert stand.idp.requests[-1]["redirect_uri"] == REDIRECT
    assert stand.idp.token_forms[-1]["redirect_uri"] == REDIRECT


async def test_the_secret_is_never_in_a_url(stand: Stand) -> None:
    url = await stand.login.authorization_url(stand.provider, stand.flow())
    assert stand.idp.client_secret not in url
    assert "s3cret" not in url


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_secret_with_odd_characters_arrives(stand: Stand, method: str) -> None:
    stand.idp.lies = Lies(discovery={"token_endpoint_auth_methods_supported": [method]})
    assert (await stand.sign_in()).claims.subject == "alice"


async def test_h22_step_up_asks_for_a_fresh_login_of_limited_age(stand: Stand) -> None:
    flow = stand.flow(max_age_s=600.0)
    await stand.authorize(flow, again=True)
    asked = stand.idp.requests[-1]
    assert (asked["prompt"], asked["max_age"]) == ("login", "600")


async def test_google_is_told_the_organisation_and_asked_to_choose(stand: Stand) -> None:
    stand.provider = replace(
        stand.provider, type=ProviderType.GOOGLE, hosted_domains=frozenset({"example.com"})
    )
    await stand.authorize(stand.flow(), again=True)
    asked = stand.idp.requests[-1]
    assert (asked["prompt"], asked["hd"]) == ("select_account", "example.com")


async def test_h22_an_old_proof_is_refused_when_a_fresh_one_was_asked_for(stand: Stand) -> None:
    stand.idp.lies = Lies(claims={"auth_time": int(stand.clock.now()) - 4000})
    with pytest.raises(LoginRejected):
        await stand.sign_in(stand.flow(max_age_s=600.0))
    assert await stand.sign_in(stand.flow())


@pytest.mark.parametrize(
    ("iss", "required", "good"),
    [
        pytest.param("ours", True, True, id="right"),
        pytest.param(None, True, False, id="missing though promised"),
        pytest.param(None, False, True, id="missing and not promised"),
        pytest.param("https://evil.test", True, False, id="H6 another"),
        pytest.param("https://evil.test", False, False, id="H6 another though not promised"),
        pytest.param("", False, False, id="empty"),
        pytest.param("\udcff", False, False, id="not encodable"),
    ],
)
async def test_h6_the_response_has_to_come_from_this_provider(
    stand: Stand, iss: str | None, required: bool, good: bool
) -> None:
    promise = "authorization_response_iss_parameter_supported"
    stand.idp.lies = Lies(discovery={promise: required})
    given = stand.idp.issuer if iss == "ours" else iss
    if good:
        await stand.login.check_issuer(stand.provider, given)
    else:
        with pytest.raises(LoginRejected):
            await stand.login.check_issuer(stand.provider, given)


async def test_h3_a_code_works_once_and_for_its_own_flow(stand: Stand) -> None:
    flow = stand.flow()
    code = (await stand.authorize(flow))["code"]
    with pytest.raises(LoginRejected):
        await stand.login.finish(stand.provider, stand.flow(), code, now=stand.clock.now())
    with pytest.raises(LoginRejected):
        await stand.login.finish(stand.provider, flow, code, now=stand.clock.now())


@pytest.mark.parametrize("code", ["", "x" * 5000, "made-up"])
async def test_an_impossible_code_is_rejected(stand: Stand, code: str) -> None:
    with pytest.raises(LoginRejected):
        await stand.login.finish(stand.provider, stand.flow(), code, now=stand.clock.now())


@pytest.mark.parametrize(
    ("lies", "kind", "step"),
    [
        pytest.param(Lies(token_status=500), ProviderDown, "token exchange", id="H11 500"),
        pytest.param(Lies(token_status=429), ProviderDown, "token exchange", id="429"),
        pytest.param(Lies(token_delay=5), ProviderDown, "token exchange", id="slow"),
        pytest.param(
            Lies(token_body=b"<html>", token_type="text/html"),
            ProviderFault, "token exchange", id="H11 html",
        ),
        pytest.param(
            Lies(token_body=b"{}", token_status=403), ProviderFault, "token exchange", id="403"
        ),
        pytest.param(
            Lies(token_body=b'{"error":"invalid_client"}', token_status=401),
            ProviderFault, "token exchange", id="our secret is wrong",
        ),
        pytest.param(
            Lies(token_body=b'{"error":"invalid_grant"}', token_status=400),
            LoginRejected, "token exchange", id="code refused",
        ),
        pytest.param(
            Lies(token_body=b'{"error":"temporarily_unavailable"}', token_status=400),
            ProviderDown, "token exchange", id="temporarily unavailable",
        ),
        pytest.param(
            Lies(token={"expires_in": -1}), ProviderFault, "token exchange", id="H11 expires_in -1"
        ),
        pytest.param(
            Lies(token={"expires_in": "soon"}), ProviderFault, "token exchange", id="expires soon"
        ),
        pytest.param(
            Lies(token={"expires_in": True}), ProviderFault, "token exchange", id="expires true"
        ),
        pytest.param(
            Lies(token={"id_token": OMIT}), ProviderFault, "token exchange", id="H11 no id_token"
        ),
        pytest.param(
            Lies(token={"id_token": {"sub": "alice"}}), ProviderFault, "token exchange",
            id="id_token an object",
        ),
        pytest.param(
            Lies(token={"access_token": OMIT}), ProviderFault, "token exchange", id="no access"
        ),
        pytest.param(
            Lies(token={"token_type": "mac"}), ProviderFault, "token exchange", id="token type"
        ),
        pytest.param(
            Lies(token_body=b'{"id_token":"a","id_token":"b"}'), ProviderFault, "token exchange",
            id="id_token twice",
        ),
        pytest.param(
            Lies(token_body=b"x" * (MAX_BODY_BYTES + 1)), ProviderFault, "token exchange",
            id="H11 huge",
        ),
        pytest.param(
            Lies(token_redirect="http://169.254.169.254/"), ProviderFault, "token exchange",
            id="H9 redirect to link-local",
        ),
        pytest.param(Lies(header={"alg": "none"}, unsigned=True), LoginRejected, "ID token",
                     id="I1 alg none, though the provider advertises it"),
        pytest.param(Lies(hmac_with_public_key=True), LoginRejected, "ID token", id="I2 HS256"),
        pytest.param(Lies(sign_with=rsa_key("thief")), LoginRejected, "ID token", id="other key"),
        pytest.param(Lies(claims={"nonce": "other"}), LoginRejected, "ID token", id="H4 nonce"),
        pytest.param(Lies(claims={"nonce": OMIT}), LoginRejected, "ID token", id="H4 no nonce"),
        pytest.param(Lies(claims={"aud": "other"}), LoginRejected, "ID token", id="I6 aud"),
        pytest.param(
            Lies(claims={"iss": "https://evil.test"}), LoginRejected, "ID token", id="I7 iss"
        ),
        pytest.param(Lies(claims={"exp": 1}), LoginRejected, "ID token", id="I8 expired"),
        pytest.param(Lies(claims={"at_hash": "x"}), LoginRejected, "ID token", id="I17 at_hash"),
        pytest.param(Lies(header={"kid": "unknown"}), LoginRejected, "ID token", id="I4 kid"),
        pytest.param(Lies(jwks_status=500), ProviderDown, "signing keys", id="keys 500"),
        pytest.param(Lies(jwks_status=404), ProviderFault, "signing keys", id="keys 404"),
        pytest.param(Lies(jwks_body=b"<html>"), ProviderFault, "signing keys", id="keys html"),
        pytest.param(Lies(jwks_body=b'{"keys":[]}'), LoginRejected, "ID token", id="no keys"),
        pytest.param(Lies(jwks_delay=5), ProviderDown, "signing keys", id="keys slow"),
    ],
)  # fmt: skip
async def test_a_lie_after_the_authorization_is_noticed(
    stand: Stand, lies: Lies, kind: type[LoginError], step: str
) -> None:
    stand.idp.lies = lies
    error = await failure(stand)
    assert (type(error), error.step) == (kind, step)


@pytest.mark.parametrize(
    ("lies", "kind"),
    [
        pytest.param(Lies(discovery={"issuer": "https://evil.test"}), ProviderFault, id="issuer"),
        pytest.param(
            Lies(discovery={"token_endpoint": "http://evil.test/"}), ProviderFault, id="http"
        ),
        pytest.param(
            Lies(discovery_redirect="http://169.254.169.254/"), ProviderFault, id="redirect"
        ),
        pytest.param(Lies(discovery_body=b"x" * 10_000_000), ProviderFault, id="10 MB"),
        pytest.param(Lies(discovery_delay=5), ProviderDown, id="slow"),
        pytest.param(Lies(discovery_status=500), ProviderDown, id="500"),
        pytest.param(Lies(discovery_status=404), ProviderFault, id="404"),
    ],
)
async def test_h9_a_lie_in_the_metadata_is_noticed_before_anybody_is_sent_away(
    stand: Stand, lies: Lies, kind: type[LoginError]
) -> None:
    stand.idp.lies = lies
    with pytest.raises(kind) as caught:
        await stand.login.authorization_url(stand.provider, stand.flow())
    assert caught.value.step == "discovery"


async def test_an_issuer_on_plain_http_elsewhere_is_not_even_asked(stand: Stand) -> None:
    provider = replace(stand.provider, issuer="http://idp.example.test")
    with pytest.raises(ProviderFault):
        await stand.login.authorization_url(provider, stand.flow())


async def test_h10_a_provider_that_was_down_is_used_when_it_is_back(stand: Stand) -> None:
    await stand.idp.stop()
    with pytest.raises(ProviderDown):
        await stand.login.authorization_url(stand.provider, stand.flow())
    await stand.idp.start()
    with pytest.raises(ProviderDown):  # not asked again at once
        await stand.login.authorization_url(stand.provider, stand.flow())
    stand.clock.time += RETRY_S
    assert (await stand.sign_in()).claims.subject == "alice"


async def test_i4_a_rotated_key_is_fetched_once_and_works(stand: Stand) -> None:
    await stand.sign_in()
    stand.clock.time += RETRY_S
    stand.idp.rotate()
    assert (await stand.sign_in()).claims.subject == "alice"
    assert stand.idp.hits["jwks"] == 2


async def test_i4_unknown_kids_cost_one_fetch_per_interval(stand: Stand) -> None:
    await stand.sign_in()
    stand.clock.time += RETRY_S
    before = stand.idp.hits["jwks"]
    for number in range(20):
        stand.idp.lies = Lies(header={"kid": f"forged-{number}"})
        with pytest.raises(LoginRejected):
            await stand.sign_in()
    assert stand.idp.hits["jwks"] == before + 1


async def test_documents_are_fetched_once_for_many_logins(stand: Stand) -> None:
    for _ in range(3):
        await stand.sign_in()
    assert (stand.idp.hits["discovery"], stand.idp.hits["jwks"]) == (1, 1)


async def test_keys_that_cannot_be_refreshed_are_not_trusted_for_ever(stand: Stand) -> None:
    await stand.sign_in()
    stand.idp.lies = Lies(jwks_status=500)
    stand.clock.time += 3601
    assert isinstance(await failure(stand), ProviderDown)


async def test_a_token_without_an_address_is_completed_from_userinfo(stand: Stand) -> None:
    stand.idp.lies = Lies(claims={"email": OMIT, "email_verified": OMIT, "groups": OMIT})
    claims = (await stand.sign_in()).claims.all
    assert claims["email"] == "alice@example.com"
    assert claims["email_verified"] is True
    assert claims["groups"] == ["admins", "developers"]


async def test_userinfo_is_not_asked_when_the_token_says_everything(stand: Stand) -> None:
    await stand.sign_in()
    assert stand.idp.hits["userinfo"] == 0


async def test_an_address_and_its_verification_come_from_one_place(stand: Stand) -> None:
    stand.idp.lies = Lies(
        claims={"email": OMIT, "email_verified": True}, userinfo={"email_verified": OMIT}
    )
    claims = (await stand.sign_in()).claims.all
    assert claims["email"] == "alice@example.com"
    assert "email_verified" not in claims


async def test_what_decides_about_organisations_is_not_taken_from_userinfo(stand: Stand) -> None:
    stand.idp.lies = Lies(claims={"email": OMIT}, userinfo={"hd": "example.com", "tid": "x"})
    claims = (await stand.sign_in()).claims.all
    assert not claims.keys() & {"hd", "tid"}


@pytest.mark.parametrize(
    ("lies", "kind"),
    [
        pytest.param(
            Lies(claims={"email": OMIT}, userinfo={"sub": "bob"}), ProviderFault, id="other person"
        ),
        pytest.param(
            Lies(claims={"email": OMIT}, userinfo={"sub": OMIT}), ProviderFault, id="nobody"
        ),
        pytest.param(
            Lies(claims={"email": OMIT}, userinfo_status=403), ProviderFault, id="refused"
        ),
        pytest.param(Lies(claims={"email": OMIT}, userinfo_status=500), ProviderDown, id="down"),
    ],
)
async def test_userinfo_that_is_not_this_persons_fails_the_login(
    stand: Stand, lies: Lies, kind: type[LoginError]
) -> None:
    stand.idp.lies = lies
    assert isinstance(await failure(stand), kind)


async def test_k3_the_providers_sign_out_gets_the_hint_and_our_page(stand: Stand) -> None:
    url = await stand.login.end_session_url(
        stand.provider, id_token="a.b.c", return_to="https://auth.example.test/.heim/signed-out"
    )
    assert url is not None
    query = parse_qs(urlsplit(url).query)
    assert url.startswith(f"{stand.idp.issuer}/end?")
    assert query["id_token_hint"] == ["a.b.c"]
    assert query["post_logout_redirect_uri"] == ["https://auth.example.test/.heim/signed-out"]
    assert query["client_id"] == ["heim"]


async def test_a_hint_that_would_burst_the_url_is_left_out(stand: Stand) -> None:
    url = await stand.login.end_session_url(
        stand.provider, id_token="x" * 9000, return_to="https://auth.example.test/"
    )
    assert url is not None
    assert "id_token_hint" not in url


async def test_a_provider_without_a_sign_out_has_none(stand: Stand) -> None:
    stand.idp.lies = Lies(discovery={"end_session_endpoint": OMIT})
    assert await stand.login.end_session_url(stand.provider, id_token=None, return_to="") is None


async def test_no_error_quotes_a_code_a_token_or_a_secret(stand: Stand) -> None:
    flow = stand.flow()
    code = (await stand.authorize(flow))["code"]
    body = json.dumps({"error": f"canary {code}", "error_description": code}).encode()
    stand.idp.lies = Lies(token_body=body, token_status=400)
    with pytest.raises(LoginError) as caught:
        await stand.login.finish(stand.provider, flow, code, now=stand.clock.now())
    assert code not in str(caught.value)
    assert "canary" not in str(caught.value)


class TestTroubles:
    async def test_h10_nothing_is_asked_to_know_them(self, stand: Stand) -> None:
        assert stand.login.troubles([stand.provider]) == {"idp": ""}
        assert not stand.idp.requests

    async def test_h10_a_provider_that_is_away_is_one_until_it_answers(self, stand: Stand) -> None:
        await stand.idp.stop()
        assert isinstance(await failure(stand), ProviderDown)
        told = stand.login.troubles([stand.provider])["idp"]
        assert told.startswith("discovery: ")
        assert "connection refused, since " in told
        await stand.idp.start()
        stand.clock.time += RETRY_S
        await stand.sign_in()
        assert stand.login.troubles([stand.provider]) == {"idp": ""}

    async def test_h10_so_is_a_token_endpoint_that_fails(self, stand: Stand) -> None:
        stand.idp.lies = Lies(token_status=503)
        assert isinstance(await failure(stand), ProviderDown)
        assert stand.login.troubles([stand.provider])["idp"].startswith("token exchange: ")

    async def test_h10_a_provider_that_was_changed_starts_anew(self, stand: Stand) -> None:
        await stand.idp.stop()
        await failure(stand)
        moved = replace(stand.provider, issuer="http://127.0.0.1:2")
        assert stand.login.troubles([moved]) == {"idp": ""}
