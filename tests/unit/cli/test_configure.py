from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pytest

from heim_config.load import load_text
from heim_proxy.agents.authority import Authority
from heim_proxy.cli.configure import check, init, keygen
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.agent_certificates import authority_pem, key_pem, root_key
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app, role, tcp


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


class TestCheck:
    def prepared(self, tmp_path: Path, **more: object) -> Heim:
        return Heim.prepare(
            tmp_path, backends=[app(), app("two")], roles=[role("r", "app/all")], **more
        )

    def run(self, heim: Heim) -> int:
        return check(argparse.Namespace(config=str(heim.config_file), document=None))

    def test_a_good_configuration_is_summed_up(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.prepared(tmp_path)
        assert self.run(heim) == 0
        out, _ = told(capsys)
        counts = "2 backends on 2 hosts, 1 role, 1 identity provider"
        assert out == f"{heim.config_file}: ok: {counts}\n"

    def test_one_of_each_is_not_several(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = Heim.prepare(tmp_path, backends=[app()], roles=[])
        assert self.run(heim) == 0
        out, _ = told(capsys)
        assert out.endswith("ok: 1 backend on 1 host, 0 roles, 1 identity provider\n")

    def test_a_host_that_no_certificate_is_for_is_warned_of(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = Heim.prepare(
            tmp_path, backends=[app(), app("two")], hosts=("app.example.test", "auth.example.test")
        )
        assert self.run(heim) == 0
        _, err = told(capsys)
        assert "none of them is for two.example.test" in err
        assert err.count("warning: tls") == 1

    def test_a_certificate_that_is_not_there_yet_is_warned_of_where_ours_stands_in(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pair = {"cert_file": "later.crt", "key_file": "later.key"}
        heim = self.prepared(tmp_path, tls={"certificates": [pair], "self_signed": True})
        assert self.run(heim) == 0
        _, err = told(capsys)
        assert "warning: tls.certificates[0]: " in err
        assert "later.crt cannot be read" in err
        heim.document["tls"]["self_signed"] = False
        heim.write()
        assert self.run(heim) == 2

    def test_a_host_that_its_certificate_is_not_listed_for_is_warned_of(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pair = {"cert_file": "tls.crt", "key_file": "tls.key", "hosts": ["app.example.test"]}
        heim = self.prepared(tmp_path, tls={"certificates": [pair]})
        assert self.run(heim) == 0
        _, err = told(capsys)
        assert "none of them is for auth.example.test" in err
        assert "none of them is for two.example.test" in err
        assert "for app.example.test" not in err
        pair["hosts"] = ["elsewhere.test"]
        heim.write()
        assert self.run(heim) == 2
        _, err = told(capsys)
        assert "is for none of the names it is listed for (elsewhere.test)" in err

    def test_a_wildcard_that_does_not_reach_a_nested_host_is_explained(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = Heim.prepare(
            tmp_path,
            backends=[tcp("ssh", host="desktop.ssh.example.test")],
            roles=[role("r", "ssh")],
            hosts=("*.example.test",),
        )
        assert self.run(heim) == 0
        out, err = told(capsys)
        assert out.endswith("ok: 1 backend on 1 host, 1 role, 1 identity provider\n")
        assert err == (
            f"{heim.config_file}: warning: tls.certificates: none of them is for "
            "desktop.ssh.example.test (*.example.test stands for one label: add "
            "*.ssh.example.test); browsers and heim-tunnel will refuse it\n"
        )

    def test_a_key_that_everybody_can_read_is_warned_of(
        self, open_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.prepared(open_path)
        key = open_path / "tls.key"
        key.chmod(0o644)
        assert self.run(heim) == 0
        warning = f"tls.certificates[0]: everybody on this machine can read {key}; "
        assert f"{heim.config_file}: warning: {warning}" in told(capsys)[1]

    def test_tcp_that_no_role_gives_is_warned_of(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = Heim.prepare(tmp_path, backends=[tcp()], hosts=("*.example.test",))
        assert self.run(heim) == 0
        assert "warning: backends[0].tcp: nobody can connect to it" in told(capsys)[1]

    def test_every_mistake_is_told_at_once(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.prepared(tmp_path)
        heim.document["backends"][0]["htp"] = []
        heim.document["roles"][0]["bindings"][0]["backend"] = "ap"
        heim.write()
        assert self.run(heim) == 2
        out, err = told(capsys)
        assert out == ""
        assert "backends[0].htp: unknown key; did you mean http?" in err
        assert "did you mean app?" in err
        assert err.endswith("2 mistakes found\n")

    def test_files_it_names_are_looked_at(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.prepared(tmp_path)
        (tmp_path / "tls.key").unlink()
        assert self.run(heim) == 2
        assert "tls.key" in told(capsys)[1]

    def layered(self, tmp_path: Path) -> Heim:
        """A boot file; its document is in document.json."""
        heim = self.prepared(tmp_path)
        document = {key: heim.document.pop(key) for key in ("backends", "roles", "tls")}
        document["tls"] = {"certificates": [{"secret": "wiki-tls"}]}
        (tmp_path / "document.json").write_text(json.dumps(document))
        heim.document["source"] = {"kubernetes": {"config_map": "heim-configuration"}}
        heim.write()
        return heim

    def test_a_boot_file_alone_is_checked_as_far_as_it_goes(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.layered(tmp_path)
        assert self.run(heim) == 0
        out, err = told(capsys)
        assert "ok: the boot file alone, with 1 identity provider" in out
        assert err == ""

    def test_both_layers_are_checked_together(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.layered(tmp_path)
        file = tmp_path / "document.json"
        both = argparse.Namespace(config=str(heim.config_file), document=str(file))
        assert check(both) == 0
        assert "ok: 2 backends on 2 hosts, 1 role, 1 identity provider" in told(capsys)[0]
        file.write_text('{"backends":[{"name":"a"}],"drain":"1s"}')
        assert check(both) == 2
        err = told(capsys)[1]
        assert f"{file}: backends[0]: needs http, tcp or both" in err
        assert f"{file}: drain: belongs to the boot file" in err

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nowhere.json", "cannot be read: No such file"),
            (".", "index.json cannot be read"),
            ("heim.yaml", "is not JSON at character 0"),
        ],
        ids=["no file", "an empty mount", "no JSON"],
    )
    def test_a_document_that_cannot_be_read_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
    ) -> None:
        heim = self.layered(tmp_path)
        document = str(tmp_path / name)
        assert check(argparse.Namespace(config=str(heim.config_file), document=document)) == 2
        assert message in told(capsys)[1]

    def test_a_file_that_holds_all_takes_no_document(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.prepared(tmp_path)
        assert check(argparse.Namespace(config=str(heim.config_file), document="x")) == 2
        assert "has no source for --document" in told(capsys)[1]

    def test_a_file_that_is_not_there_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert check(argparse.Namespace(config="/nowhere/heim.yaml", document=None)) == 2
        assert "/nowhere/heim.yaml" in told(capsys)[1]

    @pytest.mark.parametrize(
        ("pem", "part"),
        [
            (b"-----BEGIN CERTIFICATE-----", "agents_ca: "),
            (
                authority_pem(root_key(), begins=1e9, expires=1.1e9) + key_pem(root_key()),
                "agents_ca.cert_file: ",
            ),
            (authority_pem(root_key("other")) + key_pem(root_key()), "does not belong to the key"),
        ],
        ids=["no key", "expired", "another key's"],
    )
    def test_an_authority_that_cannot_be_used_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], pem: bytes, part: str
    ) -> None:
        (tmp_path / "ca.pem").write_bytes(pem)
        heim = self.prepared(tmp_path, agents_ca={"cert_file": "ca.pem", "key_file": "ca.pem"})
        assert self.run(heim) == 2
        out, err = told(capsys)
        assert out == ""
        assert part in err

    def test_an_authority_that_fits_is_nothing_to_say(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        certificate, key = Authority.generate_pem(now=time.time())
        (tmp_path / "ca.pem").write_bytes(certificate + key)
        heim = self.prepared(tmp_path, agents_ca={"cert_file": "ca.pem", "key_file": "ca.pem"})
        assert self.run(heim) == 0
        assert "agents_ca" not in told(capsys)[1]

    def test_nothing_secret_is_printed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heim = self.prepared(tmp_path)
        (tmp_path / "client-secret").write_text("hunter2-hunter2")
        assert self.run(heim) == 0
        assert "hunter2" not in "".join(told(capsys))


class TestInit:
    def test_what_is_printed_can_be_loaded(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert init(argparse.Namespace(domain="y.example.com")) == 0
        out, err = told(capsys)
        assert load_text(out, file=Path("/etc/heim/heim.yaml")).domain == "y.example.com"
        assert "heim-proxy check" in err

    @pytest.mark.parametrize("domain", ["", "https://x.example.com", "x.example.com:443", "a b"])
    def test_a_domain_that_is_none_is_wrong_usage(
        self, domain: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert init(argparse.Namespace(domain=domain)) == 2
        out, err = told(capsys)
        assert out == ""
        assert err.startswith("heim-proxy init: --domain: ")


class TestKeygen:
    def test_a_session_key_is_one_line_that_can_be_loaded(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = []
        for _ in range(2):
            assert keygen(argparse.Namespace(kind="session")) == 0
            lines.append(told(capsys)[0])
        assert lines[0] != lines[1]
        assert all(line.count("\n") == 1 for line in lines)
        assert len(KeyRing.parse("".join(lines))) == 2

    def test_an_assertion_key_is_pem_that_can_be_loaded(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert keygen(argparse.Namespace(kind="assertion")) == 0
        keys = SigningKeys.parse(told(capsys)[0].encode())
        assert len(keys.jwks()["keys"]) == 1

    def test_an_authority_is_one_file_that_is_both_of_agents_ca(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert keygen(argparse.Namespace(kind="ca")) == 0
        path = tmp_path / "ca.pem"
        path.write_text(told(capsys)[0])
        made = Authority.load(path, path, login_host="auth.example.com")
        assert made.valid_at(time.time())
