"""The configuration's JSON Schema, for editors and for whoever generates configurations."""

from __future__ import annotations

from typing import Any, Final

from heim_config.model import Config

__all__ = ["json_schema", "raw_schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a configuration file. What only `heim-proxy check` can find is not in it."""
    schema = _public(raw_schema())
    return {"$schema": _DIALECT, **schema, "title": "Heim proxy configuration"}


def raw_schema() -> dict[str, Any]:
    """The schema with our own ``x-kind`` of each text, as the reference needs it."""
    return Config.model_json_schema(by_alias=True)


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items() if key != "x-kind"}
    return [_public(item) for item in value] if isinstance(value, list) else value
