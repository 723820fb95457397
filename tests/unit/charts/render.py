"""The chart as the real Helm engine renders it (helm-python-sdk has Helm's own library in it)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

__all__ = ["CASES", "CHART", "NAMESPACE", "RELEASE", "Values", "manifests", "objects", "values_of"]

CHART = Path(__file__).parents[3] / "charts" / "heim"
CASES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
NAMESPACE = "heim-system"
RELEASE = "heim"

Values = dict[str, Any]
Object = dict[str, Any]


@cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def values_of(case: str) -> Values:
    """The values file of that name in charts/heim/ci."""
    found: Values = yaml.safe_load((CHART / "ci" / f"{case}.yaml").read_text())
    return found


def manifests(values: Values, *, upgrade: bool = False) -> dict[str, str]:
    """The text of each template, NOTES.txt among them; of the first installation, or of another.

    Raises:
        helm_python.HelmError: What a person would read.
    """
    rendered: dict[str, str] = _chart().render(
        values=values, name=RELEASE, namespace=NAMESPACE, is_install=not upgrade, is_upgrade=upgrade
    )
    return rendered


def objects(values: Values, *, upgrade: bool = False) -> list[Object]:
    """Every object that would be installed."""
    found: list[Object] = []
    for name, text in manifests(values, upgrade=upgrade).items():
        if not name.endswith("NOTES.txt"):
            # The kinds are 1,600 lines: ten times as fast in C.
            found += [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]
    return found


def only(found: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (one,) = (o for o in found if o["kind"] == kind and o["metadata"]["name"] == name)
    return one
