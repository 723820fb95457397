"""`heim-controller run`, as far as it needs no cluster: tests/integration has the rest."""

from __future__ import annotations

import pytest

from heim_controller.arguments import build_parser
from heim_controller.kube.lease import Terms
from heim_controller.run import command, terms_for
from heim_runtime.complaints import UsageError


def test_terms_have_the_proportions_of_client_go() -> None:
    assert terms_for(15) == Terms()


@pytest.mark.parametrize("seconds", [1, 2, 60, 300])
def test_any_duration_makes_terms_under_which_one_leads(seconds: int) -> None:
    terms = terms_for(seconds)
    assert terms.lease == seconds
    assert terms.lease > terms.renew > terms.retry


def test_what_cannot_be_understood_is_said_before_anything_runs() -> None:
    args = build_parser().parse_args(["run", "--proxy=nonsense", "--domain=example.test"])
    with pytest.raises(UsageError):
        command(args)
