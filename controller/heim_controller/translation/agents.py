"""Agent objects to agents of the configuration: the permission to exist, and the targets."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import ValidationError

from heim_config.agents import Agent
from heim_controller.translation.context import Context
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.names import is_label, own_name
from heim_controller.translation.objects import Key, Object, Ref, listed, mapping

__all__ = ["read_agents"]


def read_agents(context: Context) -> dict[Key, dict[str, Any]]:
    """Every Agent that can be accepted, as the configuration has it, by key and in order."""
    found: dict[Key, dict[str, Any]] = {}
    for key in sorted(context.objects.agents):
        # Agents belong to the Backends beside them.
        if not context.policy.backends.takes_namespace(key[0]):
            continue
        read = partial(_read, context)
        agent = context.guarded(Ref("Agent", *key), context.objects.agents[key], read)
        if agent is not None:
            found[key] = agent
    return found


def _read(context: Context, key: Key, agent: Object) -> dict[str, Any] | None:
    ref = Ref("Agent", *key)
    if not is_label(key[0]) or not is_label(key[1]):
        context.findings.add(
            ref, "InvalidObject", "names hold lower-case letters, digits and hyphens"
        )
        return None
    spec = mapping(agent.get("spec"))
    targets = listed(spec.get("targets"))
    wrong = [target for target in targets if not is_label(target)]
    if wrong or not targets:
        message = f"{quoted(wrong[0])} is not the name of a target" if wrong else "has no target"
        context.findings.add(ref, "InvalidSpec", message, field="spec.targets")
        return None
    read: dict[str, Any] = {"name": own_name(*key), "targets": sorted(set(targets))}
    if spec.get("group") is True:
        read["group"] = True
    try:
        # There are few, so the configuration itself may say what else it refuses.
        Agent.model_validate(read)
    except ValidationError as error:
        context.findings.add(ref, "InvalidSpec", str(error.errors()[0]["msg"]))
        return None
    return read
