"""What a valid configuration says in vain: worth a warning, not worth refusing to serve."""

from __future__ import annotations

from collections.abc import Iterator

from heim_config.model import Config

__all__ = ["advice"]


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each part of `config` that can have no effect, with its place."""
    return (*_groups(config), *_service_accounts(config))


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
    if config.service_accounts:
        yield (
            "service_accounts: policy and explain know them, but nothing can sign in as one yet: "
            "tokens arrive with the tunnel"
        )
