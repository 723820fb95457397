from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from heim_config.schema import json_schema, raw_schema


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def test_the_schema_refuses_unknown_keys_in_every_section() -> None:
    schema = json_schema()
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False


def test_the_schema_requires_what_a_file_must_have() -> None:
    schema = json_schema()
    assert schema["required"] == ["domain"]
    assert schema["$defs"]["Provider"]["required"] == ["name", "type", "client_id"]
    backend = schema["$defs"]["Backend"]
    assert backend["required"] == ["name"]
    assert backend["anyOf"] == [{"required": ["http"]}, {"required": ["tcp"]}]
    assert schema["$defs"]["TcpService"]["oneOf"] == [
        {"required": ["upstream"]},
        {"required": ["agent", "target"]},
    ]
    assert schema["$defs"]["Agent"]["required"] == ["name", "targets"]


def test_keys_are_spelled_as_in_the_file() -> None:
    assert list(json_schema()["$defs"]["ProxyProtocol"]["properties"]) == ["from"]


def test_durations_are_text_with_their_default_as_people_write_it() -> None:
    lifetime = json_schema()["$defs"]["Session"]["properties"]["lifetime"]
    assert (lifetime["type"], lifetime["default"]) == ("string", "24h")
    assert json_schema()["$defs"]["Backend"]["properties"]["timeouts"]["default"] == {
        "connect": "5s",
        "first_byte": "1m",
        "idle": "15m",
    }


def test_a_list_that_must_not_be_empty_says_so() -> None:
    assert json_schema()["$defs"]["Permission"]["properties"]["locations"]["minItems"] == 1


def test_our_own_words_are_only_in_the_raw_schema() -> None:
    assert any("x-kind" in node for node in nodes(raw_schema()))
    assert not any("x-kind" in node for node in nodes(json_schema()))
    json.dumps(json_schema())
