from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from heim_config import fields
from heim_config.units import Address

LOADING = {"base": Path("/etc/heim")}


def adapt(kind: Any, value: object, *, loading: bool = True) -> Any:
    return TypeAdapter(kind).validate_python(value, context=LOADING if loading else None)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        pytest.param(fields.FilePath, "a/b", Path("/etc/heim/a/b"), id="relative file"),
        pytest.param(fields.FilePath, "/a", Path("/a"), id="absolute file"),
        pytest.param(fields.Duration, "1m", 60.0, id="duration"),
        pytest.param(fields.BindAddress, "0.0.0.0:1", Address("0.0.0.0", 1), id="address"),
        pytest.param(fields.Name, "a-1", "a-1", id="name"),
        pytest.param(fields.EnvName, "_A1", "_A1", id="variable"),
        pytest.param(fields.HeaderName, "X-A", "X-A", id="header"),
        pytest.param(fields.Text, "a b", "a b", id="text"),
    ],
)
def test_values_in_a_file_are_parsed(kind: Any, value: str, expected: object) -> None:
    assert adapt(kind, value) == expected


def test_a_number_of_seconds_is_a_duration_in_code_only() -> None:
    assert adapt(fields.Duration, 5, loading=False) == 5.0
    with pytest.raises(ValidationError):
        adapt(fields.Duration, 5)


@pytest.mark.parametrize("kind", [fields.Flag, fields.Whole, fields.Text, fields.Name])
@pytest.mark.parametrize("value", ["yes", "", 1.0, None, [], b"x"], ids=repr)
def test_nothing_is_converted(kind: Any, value: object) -> None:
    if (kind is fields.Text and value == "yes") or (kind is fields.Name and value == "yes"):
        assert adapt(kind, value) == "yes"
    else:
        with pytest.raises(ValidationError):
            adapt(kind, value)


def test_a_list_with_one_wrong_item_is_not_called_empty() -> None:
    kind = Annotated[tuple[fields.Flag, ...], fields.Filled]
    assert adapt(kind, [True]) == (True,)
    with pytest.raises(ValidationError, match="must not be empty"):
        adapt(kind, [])
    with pytest.raises(ValidationError) as caught:
        adapt(kind, ["x"])
    assert [error["type"] for error in caught.value.errors()] == ["bool_type"]
