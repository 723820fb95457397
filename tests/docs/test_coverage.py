"""What the program has is in the documentation, and what the documentation names exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heim_config.backends import DIALECTS as CONFIGURED_DIALECTS
from heim_config.schema import raw_schema
from heim_controller.metrics import FAMILIES as CONTROLLER_FAMILIES
from heim_proxy.cli.main import build_parser
from heim_proxy.identity.admission import RefusalReason
from heim_proxy.identity.dialects import DIALECTS
from heim_proxy.observe.access_log import AccessEntry, AccessLog
from heim_proxy.observe.metrics import FAMILIES
from heim_wire.errors import FAILURES, Failure
from tests.docs import facts
from tests.docs.pages import DOCS, PAGES, page
from tests.docs.programs import PROGRAMS, PROXY

_CLI = page("docs/reference/cli.md").text
_ERRORS = page("docs/reference/errors.md").text
_LOGS = page("docs/reference/logs.md").text
_METRICS = page("docs/reference/metrics.md").text
_TROUBLE = page("docs/howto/troubleshooting.md").text
_EVERYTHING = "".join(one.text for one in PAGES)


def _keys(section: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    for key, value in section["properties"].items():
        yield key
        for reference in re.findall(r"#/\$defs/(\w+)", str(value)):
            inner = schema["$defs"][reference]
            if "properties" in inner:
                yield from _keys(inner, schema)


def test_every_configuration_key_is_explained() -> None:
    schema = raw_schema()
    reference = page("docs/reference/configuration.md").text
    keys = set(_keys(schema, schema))
    assert {"domain", "from", "allow_origins"} <= keys
    assert sorted(key for key in keys if f"| `{key}` |" not in reference) == []


def test_every_variable_that_is_named_is_heeded() -> None:
    heeded = {one for program in PROGRAMS for one in (*program.environment, *program.twins())}
    assert set(re.findall(r"HEIM_\w+", _EVERYTHING)) - heeded == set()


def test_every_metric_is_explained() -> None:
    assert sorted(one.name for one in FAMILIES if f"`{one.name}`" not in _METRICS) == []


def test_metrics_that_are_named_exist() -> None:
    known = {one.name for one in (*FAMILIES, *CONTROLLER_FAMILIES)}
    packages = {"heim_config", "heim_proxy", "heim_runtime", "heim_wire", "heim_agent"}
    packages |= {"heim_tunnel", "heim_controller"}
    # What tokens begin with.
    packages |= {"heim_st_", "heim_jt_"}
    named = set(re.findall(r"\bheim_[a-z_]+", _EVERYTHING)) - packages
    assert sorted(named - known) == []


@pytest.mark.parametrize("code", sorted(facts.edge_codes()))
def test_every_error_code_is_explained(code: str) -> None:
    assert f"| `{code}` |" in _ERRORS
    assert f"`{code}`" in _TROUBLE


def test_error_codes_that_are_listed_exist() -> None:
    codes = _ERRORS[_ERRORS.index("### Codes") : _ERRORS.index("## From the sign-in pages")]
    listed = set(re.findall(r"^\| `(\w+)` \|", codes, re.MULTILINE))
    assert listed - facts.edge_codes() == set()


@pytest.mark.parametrize("failure", FAILURES.values(), ids=lambda failure: failure.slug)
def test_every_code_of_the_tunnel_is_explained(failure: Failure) -> None:
    section = _ERRORS[_ERRORS.index("## Codes of the tunnel") :]
    row = re.search(rf"^\| [^|]*`{failure.slug}`.* \| (\d+) \|$", section, re.MULTILINE)
    assert row is not None
    assert int(row[1]) == failure.exit_status


@pytest.mark.parametrize("title", sorted(facts.portal_titles()))
def test_every_sign_in_page_is_explained(title: str) -> None:
    assert f"| {title} |" in _ERRORS
    assert f"**{title}**" in _TROUBLE


def test_sign_in_pages_that_are_listed_exist() -> None:
    pages = _ERRORS[_ERRORS.index("## From the sign-in pages") :]
    listed = set(re.findall(r"^\| ([^|`]+\.) \|", pages, re.MULTILINE))
    assert listed
    assert listed - facts.portal_titles() == set()


@pytest.mark.parametrize("reason", RefusalReason, ids=lambda reason: reason.value)
def test_every_reason_to_refuse_an_account_is_explained(reason: RefusalReason) -> None:
    assert f"`{reason.value}`" in _LOGS
    assert f"| `{reason.value}` |" in _TROUBLE


@pytest.mark.parametrize("event", sorted(facts.audit_events()))
def test_every_audit_event_is_explained(event: str) -> None:
    assert f"| `{event}` |" in _LOGS


@pytest.mark.parametrize("event", sorted(facts.log_events()))
def test_every_log_event_is_explained(event: str) -> None:
    assert re.search(rf"^\| [^|]*`{re.escape(event)}`", _LOGS, re.MULTILINE)


def test_events_that_are_listed_exist() -> None:
    listed = set()
    for row in re.findall(
        r"^\| (`[a-z_]+(?:\.[a-z_]+)*`[^|]*)\| (?:info|warning|error|debug) \|", _LOGS, re.MULTILINE
    ):
        listed |= set(re.findall(r"`([^`]+)`", row))
    assert listed == facts.log_events()


def test_every_end_of_an_exchange_is_explained() -> None:
    ends = facts.access_log_ends()
    assert "client_gone" in ends
    assert sorted(end for end in ends if f"| `{end}` |" not in _LOGS) == []


async def test_fields_of_the_access_log_are_those_that_are_explained(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "access.log")
    whole = AccessEntry(request_id=b"1", method=b"GET", target=b"/", trace_id=b"0" * 32)
    log.record(whole, 0.0)
    log.close()
    line = json.loads((tmp_path / "access.log").read_text())
    section = _LOGS[_LOGS.index("## Access log") : _LOGS.index("**decision**")]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(line)


def test_every_dialect_and_its_headers_are_explained() -> None:
    recipe = page("docs/howto/identity-headers.md").text
    assert set(DIALECTS) == set(CONFIGURED_DIALECTS)
    for dialect, headers in DIALECTS.items():
        assert f"| `{dialect}`" in recipe
        for name, _ in headers:
            assert f"`{name}`" in recipe


def test_the_page_of_the_program_itself_names_every_command() -> None:
    text = build_parser().format_help()
    assert all(name.split()[1] in text for name, _ in PROXY.commands())


def test_reserved_paths_are_those_that_are_served() -> None:
    served = (DOCS.parent / "proxy/heim_proxy/portal/app.py").read_text()
    tables = served[served.index("self._login_host") : served.index("async def answer")]
    paths = set(re.findall(r'"(/[\w./-]*)": \{', tables))
    assert "/.heim/callback" in paths
    reference = page("docs/reference/http.md").text
    assert sorted(path for path in paths if f"| `{path}` |" not in reference) == []
