from __future__ import annotations

from heim_runtime.complaints import Complaint, UsageError


def test_a_usage_error_is_a_complaint_with_status_2() -> None:
    assert isinstance(UsageError("x"), Complaint)
    assert UsageError("x").status == 2
    assert Complaint("x").status == 69


def test_a_complaint_is_its_text_and_keeps_the_rest_for_those_who_ask() -> None:
    complaint = Complaint("it is away", 68, detail="status 404")
    assert (str(complaint), complaint.status, complaint.detail) == ("it is away", 68, "status 404")
