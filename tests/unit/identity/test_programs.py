"""The parts, joined: they follow the configuration, and speak of the same sessions."""

from __future__ import annotations

from heim_proxy.identity.authorization_codes import CodeProblem, Consent
from heim_proxy.identity.bearer import Bearer, BearerProblem
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.programs import VERIFIER, Desk, challenge_of

HERE = "http://127.0.0.1:49152/callback"


async def test_from_consent_to_a_bearer() -> None:
    desk = await Desk.up()
    programs, person = desk.programs, await desk.stage.sign_in()
    code = programs.codes.issue(
        person, redirect_uri=HERE, challenge=challenge_of(), label="laptop", now=desk.now
    )
    consent = await programs.codes.redeem(
        code.reveal(), redirect_uri=HERE, verifier=VERIFIER, now=desk.now
    )
    assert isinstance(consent, Consent)
    login = await programs.logins.begin(consent, desk.now)
    assert login is not None
    found = await programs.bearers.authenticate(login.access.text.reveal(), desk.now)
    assert isinstance(found, Bearer)
    assert found.session is login.session


async def test_a_change_of_the_configuration_reaches_every_part() -> None:
    desk = await Desk.up()
    programs, login = desk.programs, await desk.log_in()
    code = programs.codes.issue(
        login.session, redirect_uri=HERE, challenge=challenge_of(), label="x", now=desk.now
    )
    desk.login_url = "https://login.example.test"
    assert CodeProblem.INVALID is await programs.codes.redeem(
        code.reveal(), redirect_uri=HERE, verifier=VERIFIER, now=desk.now
    )
    access = login.access.text.reveal()
    assert isinstance(await programs.bearers.authenticate(access, desk.now), BearerProblem)
    desk.login_url = "https://auth.example.test:8443"
    assert isinstance(await programs.bearers.authenticate(access, desk.now), Bearer)
    desk.keys = SigningKeys.parse(SigningKeys.generate_pem())
    assert isinstance(await programs.bearers.authenticate(access, desk.now), BearerProblem)


async def test_devices_keep_their_pace_by_the_same_clock() -> None:
    desk = await Desk.up()
    start = await desk.programs.devices.start(
        "x", "192.0.2.1", desk.now, client_key="192.0.2.1", network="192.0.2.1"
    )
    assert start is not None
    first = await desk.programs.devices.poll(start.device_code.reveal(), desk.now)
    desk.wait(5)
    assert await desk.programs.devices.poll(start.device_code.reveal(), desk.now) is first
