from __future__ import annotations

import time

import pytest

from heim_config import document
from heim_config.document import parse


def complaints(text: str) -> list[tuple[int | None, str]]:
    found = parse(text)
    return [
        (finding.line or found.lines.get(finding.loc), finding.message)
        for finding in found.findings
    ]


def test_every_value_has_the_line_of_its_key_or_item() -> None:
    found = parse("a: 1\nb:\n  - x: y\n  -\n    z: {deep: [1,\n 2]}\n")
    assert found.data == {"a": 1, "b": [{"x": "y"}, {"z": {"deep": [1, 2]}}]}
    assert found.findings == []
    assert found.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 0, "x"): 3,
        ("b", 1): 5,
        ("b", 1, "z"): 5,
        ("b", 1, "z", "deep"): 5,
        ("b", 1, "z", "deep", 0): 5,
        ("b", 1, "z", "deep", 1): 6,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("15s", "15s"),
        ("0.0.0.0:443", "0.0.0.0:443"),
        ('"no"', "no"),
        ("'2024-01-01'", "2024-01-01"),
        ('"0600"', "0600"),
        ("|\n   no\n", "no\n"),
        ("bücher", "bücher"),
        ("1234.apps.googleusercontent.com", "1234.apps.googleusercontent.com"),
    ],
)
def test_plain_values_are_what_they_look_like(text: str, value: object) -> None:
    found = parse(f"k: {text}")
    assert found.findings == []
    assert found.data == {"k": value}


@pytest.mark.parametrize(
    "word",
    [
        *("no", "No", "NO", "off", "Off", "on", "yes", "YES"),
        *("2024-01-01", "2024-01-01T10:00:00Z"),
        *("0600", "0x1F", "1_000", "0b11", "22:22", "12:30:45"),
        *(".inf", "-.inf", ".nan", "1.5e+3", "12345678901234567890"),
        "=",
    ],
)
def test_words_that_yaml_readers_disagree_on_must_be_quoted(word: str) -> None:
    [(line, message)] = complaints(f"a: 1\nk: {word}")
    assert line == 2
    assert f'"{word}" without quotes' in message
    assert complaints(f'k: "{word}"') == []


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        pytest.param("", 1, "is empty", id="empty"),
        pytest.param("# only a comment\n", 1, "is empty", id="comment"),
        pytest.param("a: 1\n---\nb: 2\n", 2, "second document", id="two documents"),
        pytest.param("a: 1\nb:\n\tc: 2\n", 3, "not valid YAML", id="tab"),
        pytest.param("a: [1, 2\nb: 3\n", 2, "not valid YAML", id="unclosed list"),
        pytest.param("a: 1\nb: c: d\n", 2, "not valid YAML", id="two colons"),
        pytest.param('a: 1\nb: "open\n', 3, "not valid YAML", id="open quote"),
        pytest.param("a: 1\n b: 2\n", 2, "not valid YAML", id="indent"),
        pytest.param("a: 1\nb: \0\n", 2, "U+0000", id="nul"),
        pytest.param("a: 1\n\nb: \x1b[2J\n", 3, "U+001B", id="escape"),
        pytest.param("a: 1\n\ufeffb: 2\n", 2, "U+FEFF", id="bom inside"),
        pytest.param("a: 1\n? [x, y]\n: 2\n", 2, "key that is not a word", id="list as key"),
        pytest.param("a: 1\nb: *nowhere\n", 2, "anchor", id="unknown anchor"),
        pytest.param("a: &a [1, *a]\n", 1, "before its end", id="anchor in itself"),
        pytest.param("a: 1\nb: !!python/object:os.system {}\n", 2, "YAML tag", id="python tag"),
        pytest.param("a: 1\nb: !secret x\n", 2, "YAML tag", id="own tag"),
        pytest.param("a: 1\nb: !!str 3\n", 2, "YAML tag", id="str tag"),
        pytest.param("%FOO\n", 1, "not valid YAML", id="directive"),
        pytest.param("a: @x\n", 1, "not valid YAML", id="reserved character"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, line: int, part: str) -> None:
    [found] = complaints(text)
    assert found[0] == line
    assert part in found[1]


def test_a_tab_is_answered_with_what_to_do() -> None:
    [finding] = parse("a:\n\tb: 1\n").findings
    assert finding.hint is not None
    assert "spaces" in finding.hint


def test_a_byte_order_mark_at_the_start_is_ignored() -> None:
    assert parse("\ufeffa: 1\n").data == {"a": 1}


def test_windows_line_ends_count_as_one_line() -> None:
    assert parse("a: 1\r\nb: 2\r\n").lines[("b",)] == 2


def test_a_key_given_twice_is_told_and_the_first_one_counts() -> None:
    found = parse("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 4\n")
    assert found.data == {"a": 1, "b": {"c": 1, "d": 2}}
    assert [(f.loc, f.line, f.message) for f in found.findings] == [
        (("b", "c"), 5, "is given twice (first on line 3)"),
        (("a",), 6, "is given twice (first on line 1)"),
    ]


def test_merge_keys_are_refused() -> None:
    [(line, message)] = complaints("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n")
    assert (line, message) == (3, "merge keys are not supported")


def test_anchors_repeat_values_with_the_lines_of_their_definition() -> None:
    found = parse("a: &a\n  x: 1\nb: *a\n")
    assert found.data == {"a": {"x": 1}, "b": {"x": 1}}
    assert found.lines[("b",)] == 3
    assert found.lines[("b", "x")] == 2


def test_nested_aliases_cannot_fill_the_memory() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    started = time.process_time()
    [(_, message)] = complaints("\n".join(rows))
    assert "values once aliases are expanded" in message
    assert time.process_time() - started < 4


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="lists"),
        pytest.param("{a: " * 100_000, id="mappings"),
        pytest.param("".join(f"{' ' * i}a:\n" for i in range(400)), id="indents"),
        pytest.param("- " * 50_000, id="dashes"),
    ],
)
def test_deep_nesting_is_refused_and_not_followed(text: str) -> None:
    [(_, message)] = complaints(text)
    assert "nested more than" in message or "not valid YAML" in message


def test_aliases_cannot_nest_deeper_than_the_bound() -> None:
    rows = ["a0: &a0 {x: 1}"]
    rows += [f"a{i}: &a{i} {{k: *a{i - 1}}}" for i in range(1, document.MAX_DEPTH + 2)]
    assert any("nested more than" in message for _, message in complaints("\n".join(rows)))


def test_a_root_that_is_no_mapping_is_data_too() -> None:
    assert parse("- a\n- b\n").data == ["a", "b"]
    assert parse("hello\n").data == "hello"


def test_json_is_read_as_it_is() -> None:
    assert parse('{\n\t"a": [1, true, null, "no", "x\\u00e9"]\n}').data == {
        "a": [1, True, None, "no", "xé"]
    }
