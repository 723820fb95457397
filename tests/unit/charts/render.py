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


def manifests(values: Values) -> dict[str, str]:
    """The text of each template, NOTES.txt among them.

    Raises:
        helm_python.HelmError: What a person would read.
    """
    rendered: dict[str, str] = _chart().render(values=values, name=RELEASE, namespace=NAMESPACE)
    return rendered


def objects(values: Values) -> list[Object]:
    """Every object that would be installed."""
    found: list[Object] = []
    for name, text in manifests(values).items():
        if not name.endswith("NOTES.txt"):
            found += [one for one in yaml.safe_load_all(text) if one]
    return found


def only(found: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (one,) = (o for o in found if o["kind"] == kind and o["metadata"]["name"] == name)
    return one
