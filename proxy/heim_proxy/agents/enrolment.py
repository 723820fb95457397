"""Letting agents in: from a join token, or somebody's approval, to a name bound to a key.

An enrolment is a session row of kind `agent`: its subject is the agent's name, its secret hash the
thumbprint of the key. Configuration says which agents may exist; here is decided which machine is
one. Strangers learn nothing by asking: whether a name exists is told to who holds a token for it,
or to who may approve.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, assert_never

from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.agents import join_tokens
from heim_proxy.agents.agent_keys import AgentKey, BadRequestError
from heim_proxy.agents.authority import Authority, CertificateRefused
from heim_proxy.agents.enrolled import (
    Asked,
    Enrolled,
    EnrolProblem,
    JoinRefused,
    Refusal,
    Waiting,
    enrolment_of,
    label_of,
    name_taken,
    not_configured,
    token_used,
)
from heim_proxy.identity.device_codes import (
    INTERVAL_S,
    CodePurpose,
    DeviceCodes,
    DeviceProblem,
    SlowDown,
)
from heim_proxy.identity.device_codes import LIFETIME_S as WAITING_S
from heim_proxy.identity.feed import in_time
from heim_proxy.routing import AgentGrant
from heim_proxy.store.base import (
    DeviceRow,
    EnrolFailure,
    JoinTokenRow,
    SessionRow,
    Store,
)
from heim_runtime.clock import Clock

__all__ = [
    "Asked",
    "EnrolProblem",
    "Enrolled",
    "Enrolments",
    "JoinRefused",
    "Refusal",
    "Waiting",
]

# As heim_config has them: an Agent of Kubernetes is <namespace>.<name>.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)


class Enrolments:
    """Who is which agent. One per process; every method may raise StoreUnavailable."""

    __slots__ = ("_approves", "_authority", "_codes", "_enrolled", "_permitted", "_store")

    def __init__(
        self,
        store: Store,
        *,
        authority: Callable[[], Authority],
        permitted: Callable[[], Mapping[str, AgentGrant]],
        approves: Callable[[Subject], bool],
        clock: Clock,
        enrolled: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: Where enrolments, tokens and those who wait are.
            authority: Of the present configuration.
            permitted: The agents of the present configuration (`snapshot.agents`).
            approves: Whether somebody may let agents in, by the present configuration.
            clock: Measures the pace of polling.
            enrolled: Told the name of every agent that was let in.
        """
        self._store: Final = store
        self._enrolled: Final = enrolled
        self._authority: Final = authority
        self._permitted: Final = permitted
        self._approves: Final = approves
        self._codes: Final = DeviceCodes(store, clock, purpose=CodePurpose.AGENT)

    async def join(self, token: str, csr: bytes, *, device: str, now: float) -> Enrolled:
        """Burn a join token for an enrolment and a certificate.

        The token is burned only by an enrolment: a name that is taken, or a request that cannot be
        used, costs nobody their token.

        Args:
            token: As received, ``heim_jt_…``.
            csr: PKCS #10 in DER; only its key is taken.
            device: What the machine calls itself; made printable and cut.
            now: Seconds since the epoch.

        Raises:
            JoinRefused: with any of the refusals but BUSY.
        """
        row = await self._token(token, now)
        grant = self._grant(row.name)
        return await self._enrol(grant, _key(csr), label=device, now=now, token=row)

    async def ask(
        self,
        name: str,
        csr: bytes,
        *,
        device: str,
        client: str,
        client_key: str,
        network: str,
        now: float,
        version: str = "",
    ) -> Asked:
        """Let an agent wait for somebody's approval, whether or not there is one of that name.

        Args:
            name: What it would be.
            csr: PKCS #10 in DER; only its key is taken.
            device: What the machine calls itself; people see it before they approve.
            client: The address that asks; people see that, too.
            client_key: What counts as one client, the same as for rates.
            network: What shares a fair part of the room when it is full.
            now: Seconds since the epoch.
            version: Of its program, fit for pages; people see that, too.

        Raises:
            JoinRefused: BAD_CSR, BUSY, or NOT_CONFIGURED for what cannot be a name at all.
        """
        if _NAME.fullmatch(name) is None:
            # Not shown: it is a stranger's, of any length.
            raise not_configured("that name")
        key = _key(csr)
        start = await self._codes.start(
            label_of(device),
            client,
            now,
            client_key=client_key,
            network=network,
            agent=name,
            key=key.der,
            version=version,
        )
        if start is None:
            raise JoinRefused(
                Refusal.BUSY,
                "too many agents and devices wait to be let in",
                "try again in some minutes, or use a join token",
            )
        return Asked(start.device_code, start.user_code, WAITING_S, INTERVAL_S, key.fingerprint)

    async def find(self, user_code: str, now: float) -> Waiting | None:
        """Who waits under a code from `device_codes.user_code_of`; None when nobody does."""
        row = await self._codes.find(user_code, now)
        if row is None:
            return None
        key = AgentKey.from_der(row.key)
        grant = self._permitted().get(row.agent)
        refusal: JoinRefused | None = None
        if grant is None:
            refusal = not_configured(f"agent {row.agent}")
        elif not grant.group:
            keys = {one.secret_hash for one in await self.live(row.agent)}
            refusal = name_taken(row.agent) if keys - {key.thumbprint} else None
        return Waiting(
            name=row.agent,
            fingerprint=key.fingerprint,
            label=row.label,
            version=row.version,
            client=row.client,
            created=row.created,
            expires=row.expires,
            targets=() if grant is None else tuple(sorted(grant.targets)),
            group=grant is not None and grant.group,
            refusal=refusal,
        )

    async def decide(self, user_code: str, *, sid: str, now: float) -> bool:
        """Approve in the name of session `sid`, or deny with an empty one.

        Whether that session's person may approve is the caller's to know.

        Returns:
            False when nobody waits under that code any more.
        """
        return await self._codes.decide(user_code, sid=sid, now=now)

    async def take(self, device_code: str, now: float) -> Enrolled | EnrolProblem | SlowDown:
        """What an agent that waits is told; an approval becomes an enrolment once.

        Raises:
            JoinRefused: NAME_TAKEN or NOT_CONFIGURED: approved, and impossible meanwhile.
        """
        taken = await self._codes.take(device_code, now)
        match taken:
            case DeviceRow():
                return await self._approved(taken, now)
            case SlowDown():
                return taken
            case DeviceProblem.PENDING:
                return EnrolProblem.PENDING
            case DeviceProblem.DENIED:
                return EnrolProblem.DENIED
            case DeviceProblem.EXPIRED:
                return EnrolProblem.EXPIRED
            case _:
                assert_never(taken)

    async def live(self, name: str) -> tuple[SessionRow, ...]:
        """The enrolments of a name that have not ended, newest first."""
        return tuple(await in_time(self._store.list_enrolments(name)))

    async def bound(self, name: str, thumbprint: bytes) -> SessionRow | None:
        """The enrolment that binds a name to a key and has not ended; None when there is none."""
        found = await in_time(self._store.list_enrolments(name, key=thumbprint))
        return next(iter(found), None)

    async def _token(self, token: str, now: float) -> JoinTokenRow:
        presented = join_tokens.parse(token)
        row = await in_time(self._store.get_join_token(presented.id)) if presented else None
        if presented is None or row is None or not join_tokens.proves(presented, row):
            raise JoinRefused(
                Refusal.TOKEN_UNKNOWN,
                "this is not a join token of this proxy, or it was revoked",
                "create one: heim-proxy agent token create NAME",
            )
        if row.used is not None:
            raise token_used(row.name)
        if row.expires <= now:
            raise JoinRefused(
                Refusal.TOKEN_EXPIRED,
                f"the join token for agent {row.name} has expired",
                f"create another one: heim-proxy agent token create {row.name}",
            )
        return row

    def _grant(self, name: str) -> AgentGrant:
        grant = self._permitted().get(name)
        if grant is None:
            raise not_configured(f"agent {name}")
        return grant

    async def _approved(self, row: DeviceRow, now: float) -> Enrolled | EnrolProblem:
        approver = await in_time(self._store.get_session(row.sid))
        if approver is None or approver.ended is not None or approver.expires <= now:
            # Whoever lost a signed-in machine and ended its session lets nobody in with it.
            return EnrolProblem.DENIED
        if not self._approves(_subject(approver)):
            # Nor does who may not any more: a machine has ten minutes to come for its certificate.
            return EnrolProblem.DENIED
        key = AgentKey.from_der(row.key)
        return await self._enrol(self._grant(row.agent), key, label=row.label, now=now)

    async def _enrol(
        self,
        grant: AgentGrant,
        key: AgentKey,
        *,
        label: str,
        now: float,
        token: JoinTokenRow | None = None,
    ) -> Enrolled:
        """Issue first, enrol then: what cannot have a certificate is not enrolled."""
        name, authority = grant.name, self._authority()
        try:
            certificate = authority.issue(key.public, name=name, now=now)
            expires = authority.verify(certificate, now=now).expires
        except CertificateRefused as error:
            raise JoinRefused(
                Refusal.BUSY, str(error), "tell whoever runs the proxy to look at agents_ca"
            ) from None
        made = await in_time(
            self._store.enrol(
                enrolment_of(name, key, label_of(label), now),
                group=grant.group,
                replace=token is not None and token.replace,
                token=token.id if token is not None else "",
            )
        )
        if made is EnrolFailure.NAME_TAKEN:
            raise name_taken(name)
        if made is EnrolFailure.TOKEN_OVER:
            raise token_used(name)
        self._enrolled(name)
        return Enrolled(
            made.row, certificate, expires, grant, key.fingerprint, replaced=made.replaced
        )


def _subject(row: SessionRow) -> Subject:
    """Whose session it is; only people's approve."""
    return Subject(
        SubjectKind.USER,
        issuer=row.issuer,
        subject=row.subject,
        provider=row.provider,
        email=row.email,
        domain=row.domain,
        groups=frozenset(row.groups),
    )


def _key(csr: bytes) -> AgentKey:
    try:
        return AgentKey.from_request(csr)
    except BadRequestError as error:
        hint = "is this a heim-agent of the same version?"
        raise JoinRefused(Refusal.BAD_CSR, str(error), hint) from None
