"""The kind Agent: a machine that may dial out to the proxy and serve targets through it."""

from __future__ import annotations

from typing import Final

from heim_config.agents import MAX_TARGETS_CHARACTERS
from heim_config.agents import Agent as ConfiguredAgent
from heim_controller.crds.definition import ACCEPTED, PROGRAMMED, RESOLVED, Column, Kind
from heim_controller.crds.schema import (
    LABEL,
    LABEL_CHARS,
    Rule,
    configured,
    listing,
    section,
    text,
)
from heim_controller.kube.resources import AGENTS

__all__ = ["AGENT"]

_MAX_TARGETS: Final = 128

AGENT: Final = Kind(
    resource=AGENTS,
    short="hagent",
    means="A machine that keeps a connection to the proxy and serves targets through it. That it "
    "is here is the permission to exist; a join token or somebody's approval lets it in. Its name "
    "in the configuration, NAMESPACE.NAME, has 63 characters at most.",
    spec=section(
        "What may be asked of it.",
        {
            "targets": listing(
                " ".join((ConfiguredAgent.model_fields["targets"].description or "").split()),
                text("A target.", most=LABEL_CHARS, least=1, pattern=LABEL),
                most=_MAX_TARGETS,
                least=1,
                unique=True,
                rules=[
                    Rule(
                        f"self.map(t, size(t) + 1).sum() <= {MAX_TARGETS_CHARACTERS}",
                        f"have more than {MAX_TARGETS_CHARACTERS} characters together; give some "
                        "to another Agent",
                    )
                ],
            ),
            "group": configured(ConfiguredAgent, "group"),
        },
        required=("targets",),
    ),
    named=True,
    conditions=(ACCEPTED, RESOLVED, PROGRAMMED),
    columns=(
        Column("Targets", ".spec.targets"),
        Column.condition(ACCEPTED),
        Column.condition(PROGRAMMED),
        Column.reason(ACCEPTED),
    ),
)
