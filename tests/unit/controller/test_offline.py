"""`heim-controller translate`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from heim_controller.cli import main
from heim_controller.offline import objects_of
from tests.fakes import kube_objects
from tests.fakes.kube_cluster import basics, ingress, tls_secret

FLAGS = ["translate", "--domain=example.test", "--proxy=heim/main", "--from"]


def written(path: Path, *made: Any) -> str:
    flat = [each for one in made for each in ([one] if isinstance(one, dict) else one)]
    path.write_text(yaml.safe_dump_all([apiless(one) for one in flat]))
    return str(path)


def apiless(one: dict[str, Any]) -> dict[str, Any]:
    ours = one["kind"] in ("Proxy", "Backend", "Role", "RoleBinding", "Agent")
    return {"apiVersion": "heim.dev/v1alpha1" if ours else "v1", **one}


def test_manifests_become_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "x.yaml", basics(), kube_objects.web("shop"), ingress("shop/web"))
    assert main([*FLAGS, file]) == 0
    told = capsys.readouterr()
    [backend] = yaml.safe_load(told.out)["backends"]
    assert backend["name"] == "ingress.shop.web"
    assert backend["http"] == [{"path": "/", "upstreams": ["http://10.1.0.1:8080"]}]
    assert "*" not in told.out  # no aliases
    assert told.err.endswith("0 remarks\n")


def test_what_would_not_be_served_is_said_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "x.yaml", ingress("shop/web"))
    assert main([*FLAGS, file]) == 1
    err = capsys.readouterr().err
    assert "error Ingress shop/web spec.rules[0].http.paths[0]: ServiceNotFound: " in err
    assert "\n    Create the Service" in err


def test_ingresses_of_another_controller_are_read_as_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = {"nginx.ingress.kubernetes.io/auth-url": "https://oauth2-proxy.test/auth"}
    theirs = ingress("shop/web", ingressClassName="nginx", notes=note)
    other = ingress("shop/other", ingressClassName="traefik")
    file = written(tmp_path / "x.yaml", kube_objects.web("shop"), theirs, other)
    assert main([*FLAGS, file]) == 0
    assert "ReplacedByHeim" in capsys.readouterr().err
    assert main([*FLAGS, file, "--ingress-class=nginx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["document"]["backends"]] == ["ingress.shop.web"]
    assert {one["reason"] for one in found["diagnostics"]} >= {"ReplacedByHeim", "NoRoles"}
    assert found["diagnostics"][0].keys() >= {"object", "severity", "message", "remedy"}


def test_lists_and_standard_input_are_opened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"kind": "List", "items": [*kube_objects.web("shop"), ingress("shop/web"), None]}
    content = json.dumps(made).encode()

    class Input:
        buffer = io.BytesIO(content)

    monkeypatch.setattr("sys.stdin", Input())
    assert main([*FLAGS, "-"]) == 0
    assert "ingress.shop.web" in capsys.readouterr().out


def test_times_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "kind: Ingress\nmetadata: {name: x, creationTimestamp: 2026-01-01T00:00:00Z}\n"
        "spec: {ingressClassName: a, rules: []}\n---\n---\nplain text\n"
    )
    assert main([*FLAGS, str(file)]) in (0, 1)
    assert "this is a bug" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["{", "a: !!python/object/apply:os.system [true]", "\x00"], ids=range(3)
)
def test_what_is_no_yaml_is_complained_of(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    assert main([*FLAGS, str(file)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "x.yaml is no YAML" in err


def test_roles_of_rbac_are_not_ours() -> None:
    rbac = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "x", "namespace": "shop"},
    }
    found = objects_of([rbac, apiless(kube_objects.role("shop/y"))], kube_objects.SETTINGS)
    assert set(found.roles) == {("shop", "y")}


def test_secrets_among_the_manifests_are_certificates() -> None:
    found = objects_of([tls_secret("shop/web")], kube_objects.SETTINGS)
    assert found.certificates["shop", "web"].names == ("web.example.test",)
    assert found.certificates.get(("shop", "other")) is None


def test_classes_of_ours_leave_others_alone() -> None:
    made = [ingress("shop/web"), ingress("shop/x", ingressClassName="nginx")]
    found = objects_of([kube_objects.ingress_class(), *made], kube_objects.SETTINGS)
    assert set(found.ingress_classes) == {("", "heim")}
    found = objects_of(made, kube_objects.SETTINGS)
    assert set(found.ingress_classes) == {("", "heim"), ("", "nginx")}
