"""Tables of docs/reference/kubernetes-mapping.md, made from those that the translation runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from heim_controller.translation import nginx_annotations as nginx
from heim_controller.translation.annotations import ANNOTATIONS, PREFIX
from heim_controller.translation.reasons import REASONS

__all__ = ["KUBERNETES_BLOCKS"]


def _annotations() -> str:
    rows = ["| annotation | values | |", "| --- | --- | --- |"]
    for name, one in sorted(ANNOTATIONS.items()):
        rows.append(f"| `{PREFIX}{name}` | {one.values} | {one.means} |")
    return "\n".join(rows)


def _nginx() -> str:
    rows = ["| `nginx.ingress.kubernetes.io/` | what becomes of it |", "| --- | --- |"]
    rows += [f"| `{name}` | {means} |" for name, means in sorted(nginx.READ.items())]
    others = (
        (nginx.REPLACED, "`ReplacedByHeim`; on what needs no login `RestrictionNotKept`"),
        (nginx.RESTRICTING, "`RestrictionNotKept`: 503"),
        (nginx.ROUTING, "`RoutingNotKept`: 503"),
    )
    for names, means in others:
        rows.append(f"| {', '.join(f'`{name}`' for name in sorted(names))} | {means} |")
    return "\n".join(rows)


def _reasons() -> str:
    rows = ["| reason | severity | what it means | what to do |", "| --- | --- | --- | --- |"]
    for reason, one in sorted(REASONS.items()):
        cells = (one.means.replace("|", "\\|"), one.remedy.replace("|", "\\|"))
        rows.append(f"| `{reason}` | {one.severity.value} | {' | '.join(cells)} |")
    return "\n".join(rows)


KUBERNETES_BLOCKS: Mapping[str, Callable[[], str]] = {
    "kubernetes_annotations": _annotations,
    "kubernetes_nginx": _nginx,
    "kubernetes_reasons": _reasons,
}
