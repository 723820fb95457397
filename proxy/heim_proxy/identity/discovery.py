"""A provider's metadata (OpenID Connect Discovery 1.0), reduced to what we use and believe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from authlib.oauth2 import rfc9207
from authlib.oidc import rpinitiated
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url

from heim_proxy.identity.fetch import MAX_BODY_BYTES, Fetcher, place
from heim_proxy.identity.login_errors import ProviderFault
from heim_proxy.identity.providers import Provider, is_loopback_host
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = ["ALGORITHMS", "Metadata", "fetch_metadata", "parse_metadata"]

STEP: Final = "discovery"
# Asymmetric only: with an HMAC algorithm, whoever may verify may also forge. In our order.
ALGORITHMS: Final = ("RS256", "ES256", "PS256", "EdDSA")
MAX_URL_CHARS: Final = 2048

# What we rely on; a provider is not refused for the parts of its metadata that we never read.
_CHECKED: Final = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "response_types_supported",
    "token_endpoint_auth_methods_supported",
)
_URL_CHARS: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where a provider's endpoints are and what it promises.

    `auth_method` is how the token endpoint wants the client secret. `iss_required` is RFC 9207's
    promise that every authorization response names its issuer.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    algorithms: tuple[str, ...]
    auth_method: str
    iss_required: bool


async def fetch_metadata(fetcher: Fetcher, provider: Provider) -> Metadata:
    """Fetch and check a provider's metadata.

    Raises:
        ProviderDown: It cannot be fetched.
        ProviderFault: It is not usable.
    """
    if not (provider.issuer.startswith("https://") or provider.loopback):
        raise ProviderFault(STEP, "the issuer is neither https nor on loopback")
    url = get_well_known_url(provider.issuer, external=True)
    answer = await fetcher.get(url, step=STEP, ca_file=provider.ca_file)
    if answer.status != 200:
        raise ProviderFault(STEP, f"{place(url)}: HTTP {answer.status}")
    return parse_metadata(answer.body, provider)


def parse_metadata(body: bytes, provider: Provider) -> Metadata:
    """Check a metadata document against the configured provider.

    The issuer must be the configured one to the byte (Discovery 1.0, 4.3), and every endpoint
    https; http only on loopback, and only when the issuer itself is http on loopback.

    Raises:
        ProviderFault: With the first thing that is wrong.
    """
    try:
        model = OpenIDProviderMetadata(read_object(body, max_bytes=MAX_BODY_BYTES))
    except StrictJsonError as error:
        raise ProviderFault(STEP, f"the metadata {error}") from error
    # Compared before anything else is believed, in messages too.
    if model.get("issuer") != provider.issuer:
        raise ProviderFault(STEP, "the metadata names another issuer than the configuration")
    try:
        for name in _CHECKED:
            getattr(model, f"validate_{name}")()
        rpinitiated.OpenIDProviderMetadata(model).validate_end_session_endpoint()
        rfc9207.AuthorizationServerMetadata(
            model
        ).validate_authorization_response_iss_parameter_supported()
    except (ValueError, TypeError, AttributeError) as error:
        raise ProviderFault(STEP, f"the metadata is not valid: {type(error).__name__}") from error
    if "code" not in _strings(model, "response_types_supported", ("code",)):
        raise ProviderFault(STEP, "the provider does not offer the code flow")
    return Metadata(
        issuer=provider.issuer,
        authorization_endpoint=_required(model, "authorization_endpoint", provider),
        token_endpoint=_required(model, "token_endpoint", provider),
        jwks_uri=_required(model, "jwks_uri", provider),
        userinfo_endpoint=_endpoint(model, "userinfo_endpoint", provider),
        end_session_endpoint=_endpoint(model, "end_session_endpoint", provider),
        algorithms=_algorithms(model),
        auth_method=_auth_method(model, provider),
        iss_required=model.get("authorization_response_iss_parameter_supported") is True,
    )


def _required(model: dict[str, Any], name: str, provider: Provider) -> str:
    url = _endpoint(model, name, provider)
    if url is None:
        raise ProviderFault(STEP, f"the metadata has no {name}")
    return url


def _endpoint(model: dict[str, Any], name: str, provider: Provider) -> str | None:
    url = model.get(name)
    if url is None:
        return None
    if isinstance(url, str) and len(url) <= MAX_URL_CHARS and _URL_CHARS.fullmatch(url):
        try:
            parts = urlsplit(url)
            host = parts.hostname
            _ = parts.port
        except ValueError:
            host = None
        if host and "@" not in parts.netloc and not parts.fragment and "\\" not in url:
            if parts.scheme == "https":
                return url
            # An https issuer that sends us to http is a downgrade, even on loopback.
            if parts.scheme == "http" and provider.loopback and is_loopback_host(host):
                return url
    raise ProviderFault(STEP, f"the metadata's {name} is not an https URL")


def _algorithms(model: dict[str, Any]) -> tuple[str, ...]:
    # RS256 is what every provider must support (Core 1.0, 15.1), so that is what silence means.
    advertised = _strings(model, "id_token_signing_alg_values_supported", ("RS256",))
    usable = tuple(name for name in ALGORITHMS if name in advertised)
    if not usable:
        raise ProviderFault(STEP, f"the provider signs with none of {', '.join(ALGORITHMS)}")
    return usable


def _auth_method(model: dict[str, Any], provider: Provider) -> str:
    if not provider.secret.configured:
        return "none"
    # client_secret_basic is the default when the metadata is silent (Discovery 1.0, 3).
    offered = _strings(model, "token_endpoint_auth_methods_supported", ("client_secret_basic",))
    for method in ("client_secret_basic", "client_secret_post"):
        if method in offered:
            return method
    raise ProviderFault(STEP, "the token endpoint does not take a client secret")


def _strings(model: dict[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = model.get(name)
    if value is None:
        return default
    if not isinstance(value, list):
        raise ProviderFault(STEP, f"the metadata's {name} is not a list")
    return tuple(item for item in value if isinstance(item, str))
