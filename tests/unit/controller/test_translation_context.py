"""What every reader shares: hosts that may be had, and objects that cannot be read."""

from __future__ import annotations

import pytest

from heim_controller.translation.context import Context
from heim_controller.translation.objects import Key, Object, Ref
from tests.fakes.kube_objects import SETTINGS, cluster, ingress, proxy

WEB = Ref("Ingress", "shop", "web")


def context() -> Context:
    made = proxy(ingress={"hostSuffixes": [{"suffixes": ["example.test"]}]})
    return Context.of(cluster(made, ingress("shop/web")), SETTINGS)


@pytest.mark.parametrize(
    ("written", "host", "said"),
    [
        ("A.example.test", "a.example.test", []),
        ("", "*", []),
        (None, "*", []),
        ("a.other.test", None, ["HostNotAllowed"]),
        ("auth.example.test", None, ["LoginHostClaimed"]),
        ("10.0.0.1", None, ["InvalidHost"]),
        (7, None, ["InvalidHost"]),
    ],
)
def test_a_host_is_canonical_or_said_to_be_wrong(
    written: object, host: str | None, said: list[str]
) -> None:
    found = context()
    assert found.host(WEB, written, "spec") == host
    assert [one.reason for one in found.findings.sorted()] == said


@pytest.mark.parametrize("error", [KeyError("x"), TypeError(), ValueError(), AttributeError()])
def test_an_object_that_cannot_be_read_is_said_and_left_out(error: Exception) -> None:
    found = context()

    def read(key: Key, made: Object) -> str:
        raise error

    assert found.guarded(WEB, {}, read) is None
    assert [one.reason for one in found.findings.sorted()] == ["InvalidObject"]


def test_only_ours_are_read() -> None:
    assert list(context().ingresses) == [("shop", "web")]
