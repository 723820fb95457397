from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from heim_config.model import Config
from heim_proxy.certs.own import OWN_FILE
from heim_proxy.certs.served import Certificates
from heim_proxy.certs.watch import NoCertificateError
from heim_proxy.observe.metrics import Metrics
from heim_runtime.clock import SystemClock
from tests.fakes.certificates import make_pair
from tests.fakes.snapshots import app, configured


def config(directory: Path, *certificates: dict[str, Any], self_signed: bool = True) -> Config:
    return configured(
        [app(public=True)],
        tls={"certificates": list(certificates), "self_signed": self_signed},
        state={"url": f"sqlite://{directory / 'state' / 'state.db'}"},
    )


def served(directory: Path, *certificates: dict[str, Any]) -> Certificates:
    certificates_ = Certificates(clock=SystemClock())
    certificates_.adopt(certificates_.prepare(config(directory, *certificates), None))
    return certificates_


def scraped(certificates: Certificates) -> list[str]:
    metrics = Metrics(version="1")
    certificates.expose(metrics)
    text = metrics.render().decode()
    return [line for line in text.splitlines() if line.startswith("heim_certificate")]


def test_without_any_certificate_it_makes_one_which_no_metric_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        certificates = served(tmp_path)
    assert (tmp_path / "state" / OWN_FILE).exists()
    assert scraped(certificates) == []
    facts: Any = certificates.facts()
    assert facts["certificates"] == []
    assert facts["hosts"] == {}
    assert len(bytes.fromhex(facts["self_signed"]["sha256"])) == 32
    assert [record.msg for record in caplog.records] == ["cert.self_signed"]


def test_one_of_our_own_is_the_same_after_every_change(tmp_path: Path) -> None:
    certificates = served(tmp_path)
    before: Any = certificates.facts()
    # Nobody reads it again, either.
    (tmp_path / "state" / OWN_FILE).unlink()
    certificates.adopt(certificates.prepare(config(tmp_path), None))
    after: Any = certificates.facts()
    assert before["self_signed"] == after["self_signed"]


def test_it_is_not_made_unless_it_was_asked_for(tmp_path: Path) -> None:
    pair = {"directory": str(tmp_path / "absent")}
    with pytest.raises(NoCertificateError):
        Certificates(clock=SystemClock()).prepare(config(tmp_path, pair, self_signed=False), None)
    assert not (tmp_path / "state").exists()


def test_operators_see_each_pair_and_which_one_a_name_gets(tmp_path: Path) -> None:
    make_pair("a.test", "b.test").write(tmp_path / "good")
    good = {"directory": str(tmp_path / "good"), "hosts": ["a.test"]}
    bad = {"directory": str(tmp_path / "absent"), "hosts": ["c.test"]}
    certificates = served(tmp_path, good, bad)
    facts: Any = json.loads(json.dumps(certificates.facts()))
    first, second = facts["certificates"]
    assert first["name"] == str(tmp_path / "good")
    assert first["hosts"] == ["a.test"]
    assert first["not_after"] > first["loaded_at"] > 0
    assert first["problem"] is None
    assert second["sha256"] is None
    assert second["hosts"] == ["c.test"]
    assert "cannot be read" in second["problem"]
    assert facts["hosts"] == {"a.test": str(tmp_path / "good")}
    assert facts["self_signed"]["sha256"] != first["sha256"]
    info, *_ = [line for line in scraped(certificates) if line.startswith("heim_certificate_info")]
    assert f'serial="{first["serial"]}",sha256="{first["sha256"]}"' in info


def test_facts_hold_no_key(tmp_path: Path) -> None:
    make_pair("a.test").write(tmp_path / "good")
    certificates = served(tmp_path, {"directory": str(tmp_path / "good")})
    assert "PRIVATE" not in json.dumps(certificates.facts()) + repr(certificates)
