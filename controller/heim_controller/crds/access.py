"""The kinds Role and RoleBinding: who may do what on which Backends."""

from __future__ import annotations

from typing import Final

from heim_config.access import Member
from heim_config.access import Role as ConfiguredRole
from heim_controller.crds.definition import ACCEPTED, PROGRAMMED, RESOLVED, Column, Kind
from heim_controller.crds.schema import (
    LABEL,
    LABEL_CHARS,
    Rule,
    configured,
    listing,
    reference,
    section,
    text,
)
from heim_controller.kube.resources import ROLE_BINDINGS, ROLES

__all__ = ["ROLE", "ROLE_BINDING"]

_MAX_PERMISSIONS: Final = 256
_MAX_SUBJECTS: Final = 1024
# The longest address that mail can be sent to (RFC 5321, 4.5.3.1: path less brackets).
_MAX_EMAIL_CHARS: Final = 254
_CENTRAL: Final = "Counts in the Proxy's namespace only."

_PERMISSION: Final = section(
    "What the Role gives on one Backend.",
    {
        "backend": reference(
            "A Backend of this namespace; Roles of the Proxy's namespace may write NAMESPACE/NAME."
        ),
        "permission": text(
            "The name of one of its permissions. Without it, its tcp.",
            most=LABEL_CHARS,
            least=1,
            pattern=LABEL,
        ),
    },
    required=("backend",),
)

ROLE: Final = Kind(
    resource=ROLES,
    short="hrole",
    means="What somebody may do: permissions on Backends, and the Ingresses that name it.",
    spec=section(
        "What members may do.",
        {
            "title": text("What people call it.", most=120),
            "description": text("What it is for.", most=1024),
            "permissions": listing(
                "What it gives on Backends. Ingresses name their Roles themselves.",
                _PERMISSION,
                most=_MAX_PERMISSIONS,
            ),
            "approveAgents": configured(ConfiguredRole, "approve_agents", means=_CENTRAL),
            "breakGlass": configured(ConfiguredRole, "break_glass", means=_CENTRAL),
        },
    ),
    named=True,
    conditions=(ACCEPTED, RESOLVED, PROGRAMMED),
    columns=(
        Column("Title", ".spec.title"),
        Column.condition(ACCEPTED),
        Column.condition(RESOLVED),
        Column.condition(PROGRAMMED),
        Column.reason(RESOLVED),
    ),
)

_SUBJECT: Final = section(
    "Who is meant: exactly one of user, group, domain, serviceAccount.",
    {
        "user": configured(Member, "user", most=_MAX_EMAIL_CHARS),
        "group": configured(Member, "group"),
        "provider": configured(Member, "provider"),
        "domain": configured(Member, "domain"),
        "serviceAccount": text(
            "A program, by its name among the service accounts of the chart; not one of "
            "Kubernetes.",
            most=LABEL_CHARS,
            least=1,
            pattern=LABEL,
        ),
    },
    rules=[
        Rule(
            "[has(self.user), has(self.group), has(self.domain), has(self.serviceAccount)]"
            ".filter(x, x).size() == 1",
            "needs exactly one of user, group, domain, serviceAccount",
        ),
        Rule(
            "!has(self.provider) || has(self.group)",
            "only groups belong to a provider",
            field=".provider",
        ),
    ],
)

ROLE_BINDING: Final = Kind(
    resource=ROLE_BINDINGS,
    short="hrb",
    means="Who is in a Role.",
    spec=section(
        "Who is in which Role.",
        {
            "roleRef": section(
                "The Role, which never changes: a binding to another Role is another binding.",
                {
                    "name": text(
                        "A Role of this namespace.", most=LABEL_CHARS, least=1, pattern=LABEL
                    )
                },
                required=("name",),
                rules=[
                    Rule(
                        "self == oldSelf",
                        "roleRef cannot be changed; delete the RoleBinding and create another one",
                        reason="FieldValueForbidden",
                    )
                ],
            ),
            "subjects": listing("Who is in it.", _SUBJECT, most=_MAX_SUBJECTS),
        },
        required=("roleRef",),
    ),
    conditions=(ACCEPTED, RESOLVED, PROGRAMMED),
    columns=(
        Column("Role", ".spec.roleRef.name"),
        Column.condition(ACCEPTED),
        Column.condition(RESOLVED),
        Column.condition(PROGRAMMED),
        Column.reason(ACCEPTED),
    ),
)
