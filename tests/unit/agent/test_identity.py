from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from heim_agent.identity import CERTIFICATE, IDENTITY, KEY, Identity
from heim_agent.key import AgentKey
from heim_agent.places import Places
from heim_runtime.complaints import Complaint
from tests.fakes.agent_streams import LOGIN_URL, Signer, identity_of
from tests.fakes.lane_host import AGENT, Root

ROOT, SIGNER = Root(), Signer()


@pytest.fixture
def joined(tmp_path: Path) -> Identity:
    return identity_of(tmp_path, SIGNER, ROOT)


def newer(identity: Identity, begins: float = 3600.0) -> bytes:
    return ROOT.certificate(identity.key._private.public_key(), begins=begins)


def split(identity: Identity, tmp_path: Path) -> Places:
    """The same files, as a unit has them: the seed is mounted, the state is another directory."""
    return Places(
        config="agent.toml",
        state=str(tmp_path / "run"),
        seed=identity.places.seed,
        seed_is_mounted=True,
    )


def test_what_was_joined_is_loaded(joined: Identity) -> None:
    found = Identity.load(joined.places)
    assert (found.agent, found.login_url) == (AGENT, LOGIN_URL)
    assert found.key.thumbprint == joined.key.thumbprint
    assert found.certificate == joined.certificate
    assert (found.roots, found.keys) == ((ROOT.jwk,), (SIGNER.jwk,))
    assert found.expires - found.not_before == 24 * 3600
    assert found.ca_file is None


def test_only_we_may_read_the_key(joined: Identity) -> None:
    mode = os.stat(f"{joined.places.state}/{KEY}").st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_authorities_are_kept_beside_it_and_forgotten_with_another_join(joined: Identity) -> None:
    joined.save_joined(b"-----BEGIN CERTIFICATE-----")
    found = Identity.load(joined.places)
    assert found.ca_file == f"{joined.places.seed}/authorities.pem"
    joined.save_joined(None)
    assert Identity.load(joined.places).ca_file is None


def test_a_renewed_certificate_and_new_pins_survive_a_restart(joined: Identity) -> None:
    fresh, other = newer(joined), Root()
    joined.renew(fresh)
    joined.pin(roots=[ROOT.jwk, other.jwk], keys=[])
    found = Identity.load(joined.places)
    assert found.certificate == fresh
    assert found.expires > 0
    assert found.roots == (ROOT.jwk, other.jwk)
    assert found.keys == ()


def test_pins_that_are_the_same_are_not_written_again(joined: Identity) -> None:
    path = f"{joined.places.state}/{IDENTITY}"
    before = os.stat(path).st_ino
    joined.pin(roots=[ROOT.jwk], keys=[SIGNER.jwk])
    assert os.stat(path).st_ino == before


def test_with_a_mounted_seed_only_the_state_is_written(joined: Identity, tmp_path: Path) -> None:
    service = Identity.load(split(joined, tmp_path))
    fresh = newer(service)
    service.renew(fresh)
    assert sorted(os.listdir(tmp_path / "run")) == [CERTIFICATE, IDENTITY]
    assert Identity.load(service.places).certificate == fresh
    assert Identity.load(joined.places).certificate != fresh


def test_what_an_earlier_join_left_in_the_state_does_not_count(
    joined: Identity, tmp_path: Path
) -> None:
    service = Identity.load(split(joined, tmp_path))
    service.renew(newer(service))
    again = identity_of(tmp_path, SIGNER, ROOT)
    found = Identity.load(split(again, tmp_path))
    assert found.key.thumbprint == again.key.thumbprint
    assert found.certificate == again.certificate


@pytest.mark.parametrize(
    "spoil",
    [
        lambda where: (where / IDENTITY).write_text("{"),
        lambda where: (where / IDENTITY).write_text("[]"),
        lambda where: (where / CERTIFICATE).write_text("no certificate"),
        lambda where: (where / CERTIFICATE).unlink(),
    ],
    ids=["half an identity", "a list", "no certificate in it", "no certificate"],
)
def test_a_damaged_state_falls_back_to_what_was_joined(
    joined: Identity, tmp_path: Path, spoil: object
) -> None:
    service = Identity.load(split(joined, tmp_path))
    service.save()
    assert callable(spoil)
    spoil(tmp_path / "run")
    assert Identity.load(service.places).certificate == joined.certificate


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (KEY, None, "has not joined.*heim-agent join"),
        (KEY, b"nonsense", "is damaged.*heim-agent join"),
        (KEY, AgentKey.generate().to_pem(), "a key and no identity for it.*heim-agent join"),
        (IDENTITY, None, "a key and no identity for it"),
        (IDENTITY, b"{", "is damaged"),
        (CERTIFICATE, b"nonsense", "is damaged"),
    ],
    ids=["no key", "no key in it", "another key", "no identity", "half of one", "no certificate"],
)
def test_what_is_missing_or_damaged_is_said_with_what_to_do(
    joined: Identity, name: str, content: bytes | None, told: str
) -> None:
    path = Path(joined.places.state) / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(Complaint, match=told):
        Identity.load(joined.places)


@pytest.mark.parametrize("field", ["agent", "login_url", "roots"])
def test_an_identity_without_a_field_is_damaged(joined: Identity, field: str) -> None:
    path = Path(joined.places.state) / IDENTITY
    found = json.loads(path.read_text())
    del found[field]
    path.write_text(json.dumps(found))
    with pytest.raises(Complaint, match="is damaged"):
        Identity.load(joined.places)


def test_another_keys_certificate_is_not_taken(joined: Identity) -> None:
    with pytest.raises(ValueError, match="another key"):
        joined.renew(ROOT.certificate(AgentKey.generate()._private.public_key()))
    with pytest.raises(ValueError):
        joined.renew(b"no certificate")


@pytest.mark.parametrize(
    "pins",
    [
        {"roots": [], "keys": []},
        {"roots": [ROOT.jwk] * 17, "keys": []},
        {"roots": [ROOT.jwk | {"d": "secret"}], "keys": []},
        {"roots": "all", "keys": []},
        {"roots": [ROOT.jwk], "keys": [7]},
    ],
    ids=["no root", "too many", "a private key", "no list", "no key"],
)
def test_pins_that_are_none_change_nothing(joined: Identity, pins: dict[str, list[object]]) -> None:
    with pytest.raises(ValueError):
        joined.pin(**pins)  # type: ignore[arg-type]
    assert (joined.roots, joined.keys) == ((ROOT.jwk,), (SIGNER.jwk,))


def test_a_state_that_cannot_be_written_is_logged_and_the_new_certificate_counts(
    joined: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    blocked = Places(config="c", state=str(tmp_path / "file" / "x"), seed=joined.places.seed)
    identity = Identity.load(blocked)
    fresh = newer(identity)
    identity.renew(fresh)
    assert identity.certificate == fresh
    assert identity.unsaved is not None
    assert "cannot save to" in identity.unsaved
    assert [record.getMessage() for record in caplog.records] == ["identity.unsaved"]
    assert caplog.records[0].levelno == logging.ERROR
    assert Identity.load(joined.places).certificate == joined.certificate
    (tmp_path / "file").unlink()
    assert identity.save()
    assert identity.unsaved is None
    assert Identity.load(blocked).certificate == fresh


def test_it_shows_no_secret(joined: Identity) -> None:
    assert repr(joined) == f"<Identity '{AGENT}' at {LOGIN_URL} {joined.key.fingerprint}>"
