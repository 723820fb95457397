"""A document in ConfigMaps, and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_config.document import MAX_BYTES
from heim_controller.sharding import CAPACITY, MAX_SHARDS, Sheet, TooLargeError, join, split

OWNERS = {"a.example.test": "shop", "b.example.test": "docs"}


def whole(data: list[dict[str, str]]) -> dict[str, str]:
    return {key: value for one in data for key, value in one.items()}


@given(
    st.text(alphabet="abc", max_size=600).map(str.encode),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["shop", "docs"])),
)
def test_what_is_split_can_be_joined(content: bytes, owners: dict[str, str]) -> None:
    data = split(content, owners, shard_bytes=200)
    found = join(whole(data))
    assert found is not None
    assert found.content == content
    assert found.owners == owners
    assert len({key for one in data for key in one}) == sum(len(one) for one in data)


def test_a_document_that_fits_is_in_one_piece_under_its_name() -> None:
    [only] = split(b"{}", OWNERS)
    assert set(only) == {"index.json", "owners.json", "document.json"}
    assert json.loads(only["index.json"])["shards"] == ["document.json"]


def test_the_first_piece_is_beside_the_index_and_each_other_in_a_config_map_of_its_own() -> None:
    data = split(b"x" * 350, {}, shard_bytes=100)
    assert [sorted(key for key in one if key.startswith("document")) for one in data] == [
        [f"document-{number}.json"] for number in range(4)
    ]
    assert all(sum(len(value) for key, value in one.items() if key != "index.json") <= 100
               for one in data)  # fmt: skip


def test_a_document_for_which_there_is_no_room_is_refused() -> None:
    with pytest.raises(TooLargeError, match="9 ConfigMaps hold 898"):
        split(b"x" * 100 * MAX_SHARDS, {}, shard_bytes=100)


def test_the_document_goes_before_the_owners() -> None:
    owners = {f"{number}.example.test": "shop" for number in range(20)}
    [only] = split(b"x" * 90, owners, shard_bytes=100)
    assert only["owners.json"] == "{}"


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"document.json": "{ }"}, id="another hash"),
        pytest.param({"index.json": "["}, id="no index"),
        pytest.param({"index.json": "[]"}, id="an index that is a list"),
        pytest.param({"index.json": '{"version":1,"shards":["other"]}'}, id="a shard is missing"),
        pytest.param({"index.json": '{"version":1,"shards":7}'}, id="no list of shards"),
        pytest.param({"owners.json": "[1]"}, id="owners of another shape"),
        pytest.param({"document.json": "\u00e4"}, id="not ASCII"),
        pytest.param({"document.json": 7}, id="not text"),
    ],
)
def test_what_somebody_else_wrote_is_no_document(changed: dict[str, object]) -> None:
    assert join({**whole(split(b"{}", OWNERS)), **changed}) is None


def test_a_document_without_owners_is_one() -> None:
    data = whole(split(b"{}", OWNERS))
    del data["owners.json"]
    found = join(data)
    assert found == Sheet(b"{}", found.digest, {}) if found else False


def test_what_is_within_capacity_fits_whatever_owners_there_are_and_can_be_loaded() -> None:
    owners = {f"{number}.example.test": "shop" for number in range(18_000)}
    assert len(split(b"x" * CAPACITY, owners)) == MAX_SHARDS
    assert CAPACITY <= MAX_BYTES
