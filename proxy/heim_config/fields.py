"""The kinds of value that configuration fields have, and the base of every section.

Each kind parses what people write and describes itself for the JSON Schema. Numbers and booleans
are strict: a YAML ``yes`` or ``"443"`` where the other type is meant is a mistake, never converted.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import core_schema

from heim_config import hosts, paths, units
from heim_config.problems import mistake, show

__all__ = [
    "AnyHost",
    "BindAddress",
    "BindAddressOrSocket",
    "DomainName",
    "Duration",
    "Email",
    "EnvName",
    "FilePath",
    "Filled",
    "Flag",
    "HeaderName",
    "Host",
    "Issuer",
    "KeyDigest",
    "Name",
    "ObjectName",
    "Origin",
    "PathText",
    "Pattern",
    "QualifiedName",
    "Section",
    "TcpAddress",
    "Text",
    "TrustedNetwork",
    "UpstreamUrl",
    "Whole",
    "WildcardHost",
    "base_of",
]

T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_OBJECT: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_STANDARD_BASE64: Final = str.maketrans("-_", "+/")
MAX_TEXT_CHARS: Final = 1024


class Section(BaseModel):
    """A group of keys: immutable, and every key that it does not know is a mistake."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        arbitrary_types_allowed=True,
        # A value in a printed error may be a secret in the wrong place; ours show what they should.
        hide_input_in_errors=True,
    )


def base_of(info: ValidationInfo) -> Path | None:
    """The directory that relative paths start from; None for a model built in code."""
    context = info.context
    return context["base"] if isinstance(context, dict) else None


def _instance_or(kind: type[T], parse: Callable[[object, Path | None], T]) -> PlainValidator:
    """A validator that parses text, and takes a value of `kind` itself from code."""

    def validate(value: object, info: ValidationInfo) -> T:
        return value if isinstance(value, kind) else parse(value, base_of(info))

    return PlainValidator(validate)


def _duration(value: object, info: ValidationInfo) -> float:
    # In code a duration is a number of seconds; in a file a number without a unit is a mistake.
    if info.context is None and isinstance(value, (int, float)):
        return float(value)
    return units.parse_duration(value)


def _file(value: object, base: Path | None) -> Path:
    if not isinstance(value, str) or not value:
        raise mistake("must be the path of a file")
    if "\0" in value or "\n" in value:
        raise mistake(f"{show(value)} is not the path of a file")
    return (base or Path()) / value


def _text(value: str) -> str:
    if not value or value != value.strip():
        raise mistake("must not be empty or begin or end with a space")
    if not value.isprintable() or len(value) > MAX_TEXT_CHARS:
        raise mistake(f"must be one line of at most {MAX_TEXT_CHARS} printable characters")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise mistake(
            f"{show(value)} is not a name",
            "names are up to 63 lower-case letters, digits and inner hyphens",
        )
    return value


def _object_name(value: str) -> str:
    if not _OBJECT.fullmatch(value) or ".." in value:
        raise mistake(
            f"{show(value)} is not the name of an object in Kubernetes",
            "names are up to 253 lower-case letters, digits, and inner hyphens and dots",
        )
    return value


def _qualified_name(value: str) -> str:
    if not _OBJECT.fullmatch(value) or ".." in value:
        raise mistake(
            f"{show(value)} is not a name",
            "names are lower-case letters, digits, and inner hyphens and dots",
        )
    return value


def _env(value: str) -> str:
    if not _ENV.fullmatch(value):
        # Not shown: somebody may have put the secret itself here.
        raise mistake("is not the name of an environment variable", "write the name, not the value")
    return value


def _header(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise mistake(f"{show(value)} is not a header name")
    return value


def _key_digest(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else ""
    try:
        # base64 as tools print it: padded or not, after ssh's "SHA256:", in either alphabet.
        encoded = text.removeprefix("SHA256:").rstrip("=").translate(_STANDARD_BASE64) + "="
        digest = (
            bytes.fromhex(text) if len(text) == 64 else base64.b64decode(encoded, validate=True)
        )
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise mistake(
            f"{show(value)} is not a SHA-256 digest", "write its 64 hexadecimal digits, or base64"
        )
    return digest


class _NotEmpty:
    """A list with at least one item.

    pydantic's own `min_length` counts valid items only, and would call a list with one wrong item
    empty besides.
    """

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(_not_empty, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "minItems": 1}


def _not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    if not items:
        raise mistake("must not be empty")
    return items


def _schema(kind: str, *examples: str, **more: object) -> WithJsonSchema:
    """Text of a kind, which the reference shows as the key's type."""
    return WithJsonSchema({"type": "string", "x-kind": kind, "examples": list(examples), **more})


Filled: Final = _NotEmpty()
Flag = StrictBool
Whole = StrictInt
Text = Annotated[StrictStr, AfterValidator(_text)]
Name = Annotated[
    StrictStr,
    AfterValidator(_name),
    _schema("name", "grafana", pattern=f"^{_NAME.pattern}$"),
]
ObjectName = Annotated[
    StrictStr,
    AfterValidator(_object_name),
    _schema("object in Kubernetes", "heim-configuration", pattern=f"^{_OBJECT.pattern}$"),
]
# Of what Kubernetes may name: shop.grafana is grafana in the namespace shop.
QualifiedName = Annotated[
    StrictStr,
    AfterValidator(_qualified_name),
    _schema("name", "grafana", "shop.grafana", pattern=f"^{_OBJECT.pattern}$"),
]
EnvName = Annotated[StrictStr, AfterValidator(_env), _schema("variable", "GOOGLE_SECRET")]
HeaderName = Annotated[StrictStr, AfterValidator(_header), _schema("header", "X-Request-Id")]

Duration = Annotated[
    float,
    PlainValidator(_duration),
    PlainSerializer(units.format_duration, when_used="json"),
    _schema("duration", "15s", "8h", pattern=r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"),
]
FilePath = Annotated[Path, _instance_or(Path, _file), _schema("file", "secrets/google")]
Host = Annotated[str, PlainValidator(hosts.parse_host), _schema("host", "app.example.com")]
DomainName = Annotated[str, PlainValidator(hosts.parse_host), _schema("domain", "example.com")]
WildcardHost = Annotated[
    str,
    PlainValidator(lambda value: hosts.parse_host(value, wildcard=True)),
    _schema("host or wildcard", "app.example.com", "*.dev.example.com"),
]
AnyHost = Annotated[
    str,
    PlainValidator(lambda value: "*" if value == "*" else hosts.parse_host(value, wildcard=True)),
    _schema("host, wildcard or *", "app.example.com", "*.dev.example.com", "*"),
]
Email = Annotated[
    str, PlainValidator(hosts.parse_email), _schema("e-mail address", "alice@example.com")
]
Issuer = Annotated[
    str, PlainValidator(hosts.parse_issuer), _schema("issuer URL", "https://id.example.com")
]
Origin = Annotated[
    str, PlainValidator(hosts.parse_origin), _schema("origin", "https://app.example.com")
]
UpstreamUrl = Annotated[
    hosts.Upstream,
    _instance_or(hosts.Upstream, lambda value, base: hosts.parse_upstream(value, base=base)),
    PlainSerializer(str),
    _schema("upstream", "http://127.0.0.1:3000", "https://app.internal", "unix:/run/app.sock"),
]
TcpAddress = Annotated[
    hosts.Upstream,
    _instance_or(hosts.Upstream, lambda value, base: hosts.parse_tcp(value, base=base)),
    PlainSerializer(str),
    _schema("host:port or socket", "10.0.0.5:22", "[::1]:22", "db.internal:5432", "unix:/run/db"),
]
PathText = Annotated[str, PlainValidator(paths.parse_path), _schema("path", "/", "/api")]
Pattern = Annotated[
    str, PlainValidator(paths.parse_pattern), _schema("pattern", "/", "=/a", "/users/*/profile")
]
BindAddress = Annotated[
    units.Address,
    _instance_or(
        units.Address, lambda value, base: units.parse_address(value, base=base, unix=False)
    ),
    PlainSerializer(str),
    _schema("address", "0.0.0.0:443", "[::]:443"),
]
BindAddressOrSocket = Annotated[
    units.Address,
    _instance_or(
        units.Address, lambda value, base: units.parse_address(value, base=base, unix=True)
    ),
    PlainSerializer(str),
    _schema("address or socket", "127.0.0.1:9440", "unix:/run/heim/admin.sock"),
]
KeyDigest = Annotated[
    bytes,
    PlainValidator(_key_digest),
    PlainSerializer(bytes.hex),
    _schema("SHA-256 of a key", "3f" * 32),
]
TrustedNetwork = Annotated[
    units.Network,
    PlainValidator(units.parse_network),
    _schema("network", "10.0.0.0/8", "2001:db8::/32"),
]
