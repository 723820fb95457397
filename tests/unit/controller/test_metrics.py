"""What Prometheus reads of the controller."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from heim_controller.metrics import FAMILIES, Readings, exposition

READINGS: Readings = {
    "heim_controller_leader": {(): True},
    "heim_controller_objects": {("ingresses",): 3, ("services",): 4},
    "heim_controller_failures_total": {('a"\n',): 1},
}


def samples(readings: Readings) -> dict[tuple[str, ...], float]:
    text = exposition(lambda: readings).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_values_are_told_under_the_names_of_the_table() -> None:
    found = samples(READINGS)
    assert found["heim_controller_leader",] == 1
    assert found["heim_controller_objects", "services"] == 4
    assert found["heim_controller_failures_total", 'a"\n'] == 1
    assert any(name.startswith("process_") for name, *_ in found)


def test_every_family_is_described_even_without_values() -> None:
    text = exposition(dict).decode()
    for family in FAMILIES:
        assert f"# TYPE {family.name} {family.kind}" in text


def test_names_are_unique_and_counters_say_so() -> None:
    assert len({one.name for one in FAMILIES}) == len(FAMILIES)
    assert all((one.kind == "counter") == one.name.endswith("_total") for one in FAMILIES)
    assert all(one.name.startswith("heim_controller_") for one in FAMILIES)
