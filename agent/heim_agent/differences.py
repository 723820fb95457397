"""Where agent.toml and the proxy's configuration name targets differently.

Both have a list of names, written by different people; a name that only one of them has shows
otherwise when somebody connects. A proxy with very many targets tells only some.
"""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import Final

__all__ = ["Differences", "of_status"]

# Names in one line.
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Differences:
    """Names that only one side has, sorted.

    Attributes:
        missing: The proxy asks for them, and agent.toml does not have them.
        unasked: agent.toml has them, and the proxy never asks for them.
    """

    missing: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()

    @classmethod
    def between(
        cls, asked: Collection[str], served: Collection[str], *, whole: bool = True
    ) -> Differences:
        """Compare.

        Args:
            asked: What the proxy says it may ask for.
            served: What agent.toml has.
            whole: Whether `asked` is all of it; if not, nothing can be said about `unasked`.
        """
        return cls(
            tuple(sorted(set(asked) - set(served))),
            tuple(sorted(set(served) - set(asked))) if whole else (),
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.unasked)

    def lines(self) -> Iterator[str]:
        """For people: what differs, and what to do about it."""
        import difflib

        missing, unasked = list(self.missing), list(self.unasked)
        for name in self.missing[:_SHOWN]:
            near = difflib.get_close_matches(name, unasked, 1)
            if near:
                missing.remove(name)
                unasked.remove(near[0])
                yield (
                    f"the proxy asks for {name}, agent.toml has {near[0]}: spell them the same, "
                    "here or under agents: in the proxy's configuration"
                )
        if missing:
            yield (
                f"the proxy asks for {_some(missing)}, which agent.toml does not have: add "
                f"[targets.{missing[0]}] to it, or take the name out of agents: in the proxy's "
                "configuration"
            )
        if unasked:
            yield (
                f"nobody asks for {_some(unasked)}: the proxy's configuration does not list that "
                "for this agent, under agents:"
            )


def of_status(
    found: Mapping[str, object], served: Collection[str] | None = None
) -> Differences | None:
    """The differences that `status.json` shows; None when no lane has told what is asked for.

    Args:
        found: The file's content, of whichever version.
        served: What agent.toml has; None for what the running agent has of it.
    """
    if served is None:
        serves = found.get("serves")
        if not isinstance(serves, list):
            return None
        served = _names(serves)
    lanes = found.get("lanes")
    told = [
        (_names(lane["targets"]), lane.get("targets_whole") is True)
        for lane in (lanes if isinstance(lanes, list) else [])
        if isinstance(lane, dict) and isinstance(lane.get("targets"), list)
    ]
    if not told:
        return None
    asked = {name for names, _ in told for name in names}
    return Differences.between(asked, served, whole=all(whole for _, whole in told))


def _names(found: Iterable[object]) -> list[str]:
    return [name for name in found if isinstance(name, str)]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
