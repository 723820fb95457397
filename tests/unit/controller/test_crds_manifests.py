from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from heim_controller.crds.definition import Kind
from heim_controller.crds.manifests import KINDS, definitions, render, write
from heim_controller.kube.resources import AGENTS, BACKENDS, PROXIES, ROLE_BINDINGS, ROLES
from tests.unit.charts.render import CHART, objects, only, values_of

TEMPLATES = CHART / "templates" / "crds"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.plural)
def test_the_chart_has_what_is_rendered_now(kind: Kind) -> None:
    committed = (TEMPLATES / f"{kind.resource.plural}.yaml").read_text()
    assert committed == render(kind), "run: python -m heim_controller.crds"


def test_the_chart_has_no_kind_that_is_gone() -> None:
    assert {path.stem for path in TEMPLATES.iterdir()} == {kind.resource.plural for kind in KINDS}


def test_every_kind_that_the_controller_follows_is_there() -> None:
    assert {kind.resource for kind in KINDS} == {
        PROXIES, BACKENDS, ROLES, ROLE_BINDINGS, AGENTS,
    }  # fmt: skip


def test_what_helm_makes_of_it_is_the_definition() -> None:
    found = objects(values_of("minimal"))
    for made in definitions():
        rendered = only(found, "CustomResourceDefinition", made["metadata"]["name"])
        assert rendered["spec"] == made["spec"]


def test_kinds_are_kept_unless_values_say_otherwise() -> None:
    def annotations(**crds: bool) -> dict[str, str]:
        found = objects({**values_of("minimal"), "crds": crds})
        name = "backends.heim.dev"
        made: dict[str, str] = only(found, "CustomResourceDefinition", name)["metadata"][
            "annotations"
        ]
        return made

    assert annotations()["helm.sh/resource-policy"] == "keep"
    assert "helm.sh/resource-policy" not in annotations(keep=False)


def test_kinds_are_left_out_when_values_say_so() -> None:
    found = objects({**values_of("minimal"), "crds": {"enabled": False}})
    assert not [one for one in found if one["kind"] == "CustomResourceDefinition"]


def test_nothing_in_an_explanation_is_taken_for_a_template() -> None:
    for made in definitions():
        assert "{{" not in yaml.safe_dump(made)


def test_files_of_kinds_that_are_gone_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "rpcpermissions.yaml").write_text("x: 1\n")
    written = write(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(written)
