from __future__ import annotations

import pytest

from heim_controller.kube.resources import (
    CONFIG_MAPS,
    INGRESS_CLASSES,
    INGRESSES,
    key_of,
    stripped,
    version_of,
)


def test_paths_are_those_of_the_api() -> None:
    assert CONFIG_MAPS.path() == "/api/v1/configmaps"
    assert CONFIG_MAPS.path("heim", "a.b") == "/api/v1/namespaces/heim/configmaps/a.b"
    assert INGRESSES.path("heim") == "/apis/networking.k8s.io/v1/namespaces/heim/ingresses"
    assert INGRESS_CLASSES.path(None, "heim") == "/apis/networking.k8s.io/v1/ingressclasses/heim"
    assert (str(INGRESSES), str(CONFIG_MAPS)) == ("ingresses.networking.k8s.io", "configmaps")


@pytest.mark.parametrize(
    "word", ["", ".", "..", "a/b", "../secrets", "a?b", "a%2fb", "a b", "a\n", "a#b", "ä", "a\\b"]
)
def test_a_name_never_leads_elsewhere(word: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        CONFIG_MAPS.path("heim", word)
    with pytest.raises(ValueError, match="not the name"):
        CONFIG_MAPS.path(word)


def test_an_object_is_in_a_namespace_or_not_as_its_kind_says() -> None:
    with pytest.raises(ValueError, match="needs a namespace"):
        CONFIG_MAPS.path(None, "a")
    with pytest.raises(ValueError, match="of the cluster"):
        INGRESS_CLASSES.path("heim", "a")


def test_the_key_of_an_object() -> None:
    assert key_of({"metadata": {"name": "a", "namespace": "heim"}}) == ("heim", "a")
    assert key_of({"metadata": {"name": "a"}}) == ("", "a")


@pytest.mark.parametrize(
    "bad", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"name": 1}}]
)
def test_what_has_no_name_is_no_object(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"metadata\.name"):
        key_of(bad)


def test_a_version_is_opaque_and_may_be_missing() -> None:
    assert version_of({"metadata": {"resourceVersion": "7"}}) == "7"
    assert version_of({"metadata": {}}) == version_of({}) == ""


def test_what_nobody_reads_is_stripped() -> None:
    last = "kubectl.kubernetes.io/last-applied-configuration"
    manifest = {
        "metadata": {"name": "a", "managedFields": [{}], "annotations": {last: "{}", "k": "v"}}
    }
    assert stripped(manifest) == {"metadata": {"name": "a", "annotations": {"k": "v"}}}
    assert stripped({"metadata": {"name": "a"}}) == {"metadata": {"name": "a"}}
    assert stripped({}) == {}
