from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from heim_config.identity import Provider
from heim_config.secrets import MAX_BYTES, Secret, SecretError, read_secret, read_secret_file


def provider(**keys: object) -> Provider:
    fields = {
        "name": "p",
        "type": "oidc",
        "client_id": "x",
        "issuer": "https://id.example.com",
        **keys,
    }
    return Provider.model_validate(fields)


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        f"{[secret]}",
        f"{secret!s}",
    ):
        assert "hunter2" not in shown
    assert not hasattr(secret, "__dict__")


def test_a_secret_is_not_pickled_copied_or_hashed() -> None:
    secret = Secret("hunter2")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_secrets_are_equal_when_their_text_is() -> None:
    assert Secret("é") == Secret("é")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b" hunter2 \n", " hunter2 "),
        ("pä$$\n".encode(), "pä$$"),
    ],
)
def test_one_line_end_is_not_part_of_a_secret(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert read_secret(provider(client_secret_file=path)) == Secret(text)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n", "is empty", id="line end"),
        pytest.param(b"  \n", "is empty", id="blank"),
        pytest.param(b"hunter2\n\n", "more than one line", id="two line ends"),
        pytest.param(b"hunter2\nhunter3\n", "more than one line", id="two lines"),
        pytest.param(b"hun\x00ter2", "more than one line", id="nul"),
        pytest.param(b"hunter2\xff", "is not UTF-8 at byte 7", id="not utf-8"),
        pytest.param(b"h" * (MAX_BYTES + 1), "is larger than", id="huge"),
    ],
)
def test_a_file_that_is_no_secret_is_told_without_showing_it(
    tmp_path: Path, content: bytes, part: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(SecretError, match=part) as caught:
        read_secret_file(path)
    assert str(path) in str(caught.value)
    shown = f"{caught.value!r}{caught.value.__cause__!r}"
    assert "hunter" not in shown


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "secret"
    if kind == "directory":
        path.mkdir()
    with pytest.raises(SecretError, match="cannot be read: ") as caught:
        read_secret_file(path)
    assert str(path) in str(caught.value)


def test_a_secret_comes_from_the_environment() -> None:
    found = read_secret(provider(client_secret_env="TOP"), {"TOP": "hunter2"})
    assert found == Secret("hunter2")


@pytest.mark.parametrize(
    ("environment", "part"),
    [({}, "is not set"), ({"TOP": ""}, "is empty"), ({"TOP": "a\nb"}, "line")],
)
def test_a_variable_that_is_no_secret_is_told(environment: dict[str, str], part: str) -> None:
    with pytest.raises(SecretError, match=f"variable TOP.*{part}"):
        read_secret(provider(client_secret_env="TOP"), environment)


def test_what_stands_in_place_of_a_variables_name_is_not_shown() -> None:
    with pytest.raises(ValueError) as caught:
        provider(client_secret_env="hunter2-with-dash!")
    assert "hunter2" not in str(caught.value)
