"""One path of a backend: to upstreams, or to a target of an agent."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from heim_config.fields import (
    AnyHost,
    Flag,
    Name,
    PathText,
    QualifiedName,
    Section,
    Text,
    UpstreamUrl,
)
from heim_config.hosts import Upstream
from heim_config.problems import mistake

__all__ = ["HttpRoute"]


class HttpRoute(Section):
    """One path of a backend and where its requests go."""

    path: PathText
    """The path that is matched. Required. The longest matching prefix wins, an exact path before
    any prefix."""

    host: AnyHost | None = None
    """The one of the backend's hosts that the route is for. Default: all of them."""

    match: Literal["prefix", "exact"] = "prefix"
    """prefix covers the path and everything below it, ending at a slash; exact only the path
    itself. Default: prefix."""

    upstream: UpstreamUrl | None = None
    """http://host:port, https://host:port or unix:/path, without a path. Exactly one of `upstream`
    and `upstreams` is required, or `agent` with `target`."""

    upstreams: tuple[UpstreamUrl, ...] | None = None
    """Several upstreams that serve the same; requests are spread over them."""

    agent: QualifiedName | None = None
    """The agent that its requests go through, instead of an upstream. Needs `target`."""

    target: Name | None = None
    """Which of the agent's targets. Needs `agent`."""

    scheme: Literal["http", "https"] = "http"
    """What the agent's target speaks. Default: http. https is TLS from the proxy to the target,
    which the agent cannot read: it needs `upstream_tls` with `server_name`, because a target has no
    host name of its own, or with `insecure`."""

    unavailable: Text | None = None
    """Why there is nowhere to send its requests, instead of an upstream: they are answered 503, and
    reach no broader route. The reason is for logs and `explain`; people do not see it."""

    strip_prefix: Flag = False
    """Remove `path` from the front of the path that the upstream receives. Default: false, so that
    the links an upstream makes keep working."""

    @model_validator(mode="after")
    def _check_upstream(self) -> HttpRoute:
        ways = {"upstream": self.upstream, "upstreams": self.upstreams, "agent": self.agent}
        ways["unavailable"] = self.unavailable
        given = [key for key, value in ways.items() if value is not None]
        if self.target is not None and self.agent is None:
            raise mistake("needs agent: whose target it is", at=("target",))
        if len(given) != 1:
            raise mistake("needs exactly one of upstream, upstreams and agent with target")
        if self.upstreams == ():
            raise mistake("is an empty list: there is nowhere to send requests", at=("upstreams",))
        if self.agent is not None and self.target is None:
            raise mistake("needs target: which of the agent's", at=("agent",))
        if "scheme" in self.model_fields_set and self.agent is None:
            hint = "an upstream's URL says it"
            raise mistake("is only for a target of an agent", hint, at=("scheme",))
        if self.strip_prefix and self.match == "exact":
            raise mistake("strip_prefix needs match: prefix", at=("strip_prefix",))
        return self

    @property
    def endpoints(self) -> tuple[Upstream, ...]:
        """Its upstreams, however they were written; empty for a target of an agent, or for none."""
        return (self.upstream,) if self.upstream is not None else (self.upstreams or ())
