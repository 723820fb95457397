"""What a valid configuration says in vain: worth a warning, not worth refusing to serve."""

from __future__ import annotations

from collections.abc import Iterator

from heim_config.model import Config

__all__ = ["advice"]


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each part of `config` that can have no effect, with its place."""
    return (
        *_groups(config),
        *_service_accounts(config),
        *_unreached(config),
        *_unused_targets(config),
    )


def _groups(config: Config) -> Iterator[str]:
    silent = {
        provider.name
        for provider in config.identity.providers
        if provider.type == "google" or provider.groups_claim is None
    }
    default = config.identity.providers[0].name if len(config.identity.providers) == 1 else None
    for number, role in enumerate(config.roles):
        for position, member in enumerate(role.members):
            provider = member.provider or default
            if member.group is not None and provider in silent:
                yield (
                    f"roles[{number}].members[{position}].group: nobody can be in it: "
                    f"provider {provider} tells no groups; name people by user or domain"
                )


def _service_accounts(config: Config) -> Iterator[str]:
    """Roles in which a program is in vain: it signs in with a token, and only for tcp."""
    for number, role in enumerate(config.roles):
        if role.break_glass or any(binding.permission is None for binding in role.bindings):
            continue
        for position, member in enumerate(role.members):
            if member.service_account is not None and role.bindings:
                yield (
                    f"roles[{number}].members[{position}].service_account: "
                    f"{member.service_account} gains nothing by it: service tokens are for "
                    f"heim-tunnel, and role {role.name} gives only http"
                )


def _unreached(config: Config) -> Iterator[str]:
    """Backends that no ordinary role leads to, by http or by tcp."""
    given = {
        (binding.backend, binding.permission is None)
        for role in config.roles
        for binding in role.bindings
    }
    others = any(role.break_glass for role in config.roles)
    who = "only break-glass roles reach it" if others else "nobody can connect to it"
    for number, backend in enumerate(config.backends):
        name = backend.name
        if backend.http and not backend.public and (name, False) not in given:
            permission = backend.permissions[0].name if backend.permissions else "..."
            first = "" if backend.permissions else "give it a permission, and "
            yield (
                f"backends[{number}].http: {who}: {first}add a role with the binding "
                f"{{backend: {name}, permission: {permission}}}"
            )
        if backend.tcp is not None and (name, True) not in given:
            yield f"backends[{number}].tcp: {who}: add a role with the binding {{backend: {name}}}"


def _unused_targets(config: Config) -> Iterator[str]:
    """Targets of agents that no backend leads to."""
    used = {
        (way.agent, way.target)
        for backend in config.backends
        for way in (*backend.http, *((backend.tcp,) if backend.tcp is not None else ()))
    }
    for number, agent in enumerate(config.agents):
        for position, target in enumerate(agent.targets):
            if (agent.name, target) not in used:
                yield (
                    f"agents[{number}].targets[{position}]: no backend leads to {target} of agent "
                    f"{agent.name}: write {{agent: {agent.name}, target: {target}}} in its tcp or "
                    "http"
                )
