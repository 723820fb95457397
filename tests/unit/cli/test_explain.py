from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from heim_config.model import Config
from heim_proxy.access.policy import Allow
from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.cli.explain import explain, explain_request, subject_of
from heim_proxy.edge.head import BadRequest, RequestHead, head_end
from heim_proxy.edge.judge import Client, Forward, Judge, Portal
from heim_proxy.identity.session import Session
from tests.fakes.sessions import Stage
from tests.fakes.snapshots import app, configured, role, snapshot, tcp
from tests.fakes.thorough import examples

ISSUER = "https://idp.example.test"


def person(name: str, *, domain: str = "example.test", groups: tuple[str, ...] = ()) -> Subject:
    email = f"{name}@{domain}"
    return Subject(
        SubjectKind.USER, ISSUER, name, "idp", email=email, domain=domain, groups=frozenset(groups)
    )


# Few values of each kind, so that generated rules and requests meet often.
SUBJECTS = [
    person("alice"),
    person("bob", groups=("sre",)),
    person("carol", domain="other.test", groups=("sre", "dev")),
    Subject(SubjectKind.USER, ISSUER, "1001", "idp"),
    Subject(SubjectKind.SERVICE_ACCOUNT, "heim", "robot", "heim"),
]
MEMBERS = [
    {"user": "alice@example.test"},
    {"user": "carol@other.test"},
    {"group": "sre"},
    {"domain": "example.test"},
    {"issuer": ISSUER, "subject": "1001"},
    {"service_account": "robot"},
]
SEGMENTS = st.sampled_from(["a", "b", "ab", "ü"])
ROUTE_PATHS = st.lists(SEGMENTS, max_size=2).map(lambda parts: "/" + "/".join(parts))
PATTERNS = st.builds(
    lambda exact, parts, slash: exact + "/" + "/".join(parts) + (slash if parts else ""),
    st.sampled_from(["", "", "", "="]),
    st.lists(st.sampled_from(["a", "b", "ab", "*"]), max_size=2),
    st.sampled_from(["", "", "/"]),
)
WORDS = st.sampled_from(["any", "any", "any", "get", "head", "post", "delete", "options", "trace"])
ORDINARY = ["a", "b", "ab", "/a", "/b", "/ab", "/", "?q=/../a"]
ODD = ["//", "/.", "/..", "/../", "%2e%2e/", "%61", "%2F", "%2Fa", ";", ";x", ";/a", "/;/", "/..;",
       "%3b", "%26", "&", "%5c", "%252e", "%25%32e", "ü", "%C3%BC", "%ff", "/.heim", "/.heim;x",
       "/.heimdall", "?", "#a", " ", "\\", "A", "*", "a" * 9000]  # fmt: skip
METHODS = ["GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS", "TRACE", "PURGE", "BREW"]
HOSTS = ["app.example.test"] * 8 + [
    "db.example.test", "APP.example.test:443", "x.wild.example.test", "wild.example.test",
    "x.y.wild.example.test", "unknown.example.test", "auth.example.test", "app.example.test.",
]  # fmt: skip


def requested(choose: random.Random) -> tuple[str, str, str]:
    """A method, a host and what follows it: mostly ordinary, with something odd in it."""
    pieces = choose.choices(ORDINARY, k=choose.randrange(4))
    for _ in range(choose.choice([0, 0, 1, 1, 1, 2])):
        pieces.insert(choose.randrange(len(pieces) + 1), choose.choice(ODD))
    after = "".join(pieces)
    # Not "?…": that would be the same address as "/?…" to a browser.
    return choose.choice(METHODS), choose.choice(HOSTS), after if after[:1] == "/" else "/" + after


TCP = {"tcp": {"upstream": "10.0.0.5:22"}}


@st.composite
def backends(draw: st.DrawFn, name: str) -> dict[str, Any]:
    host = {"host": "*.wild.example.test"} if name == "wild" else {}
    kind = draw(st.sampled_from(["http", "http", "tcp", "both"]))
    if kind == "tcp":
        return {"name": name, **host, **TCP}
    paths = draw(st.lists(ROUTE_PATHS, min_size=1, max_size=3, unique=True))
    http = []
    for path in paths:
        match = draw(st.sampled_from(["prefix", "prefix", "exact"]))
        route: dict[str, Any] = {"path": path, "match": match, "upstream": "http://127.0.0.1:3000"}
        if match == "prefix":
            route["strip_prefix"] = draw(st.booleans())
        http.append(route)
    backend: dict[str, Any] = {
        "name": name,
        "http": http,
        "forward_path": draw(st.sampled_from(["canonical", "raw"])),
    }
    backend.update(host)
    if kind == "both":
        backend.update(TCP)
    elif draw(st.integers(0, 4)) == 0:
        backend["public"] = True
        return backend
    locations = st.lists(st.builds(lambda word, path: {word: path}, WORDS, PATTERNS), min_size=1,
                         max_size=3)  # fmt: skip
    backend["permissions"] = [
        {"name": f"p{index}", "locations": draw(locations)}
        for index in range(draw(st.integers(1, 2)))
    ]
    return backend


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    names = draw(st.sampled_from([("app",), ("app", "db"), ("app", "db", "wild")]))
    made = [draw(backends(name)) for name in names]
    bindable = [
        {"backend": backend["name"], "permission": permission["name"]}
        for backend in made
        for permission in backend.get("permissions", [])
    ] + [{"backend": backend["name"]} for backend in made if "tcp" in backend]
    roles = []
    for index in range(draw(st.integers(1, 3)) if bindable else 0):
        members = draw(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=3, unique_by=str))
        bindings = draw(st.lists(st.sampled_from(bindable), min_size=1, max_size=3, unique_by=str))
        one: dict[str, Any] = {"name": f"r{index}", "members": members, "bindings": bindings}
        if draw(st.integers(0, 7)) == 0:
            one["break_glass"] = True
        roles.append(one)
    return configured(made, roles, service_accounts=[{"name": "robot"}])


async def signed_in(stage: Stage) -> list[Session]:
    return [await stage.sign_in(subject) for subject in SUBJECTS]


def enforced(judge: Judge, session: Session, stage: Stage, asked: tuple[str, str, str]) -> bool:
    """Whether the edge lets a request through, byte for byte as a browser sends the URL."""
    method, host, path = asked
    name = host.partition(":")[0].rstrip(".").lower()
    # What a browser does to a typed address (WHATWG URL): no fragment, other letters encoded.
    after = path.partition("#")[0]
    target = b"".join(
        b"%%%02X" % byte if byte > 0x7F else bytes((byte,)) for byte in after.encode()
    )
    cookie = stage.cookie(session, name)
    data = b"%b %b HTTP/1.1\r\nHost: %b\r\nCookie: __Host-heim=%b\r\n\r\n" % (
        method.encode(), target, host.encode(), cookie,
    )  # fmt: skip
    head = RequestHead()
    try:
        head_end(data)
        head.parse(data)
        verdict = judge.judge(head, Client("203.0.113.9", secure=True, sni=name), stage.now)
    except BadRequest:
        return False
    # Our own pages are everybody's.
    return isinstance(verdict, Forward | Portal)


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    deadline=None,
    max_examples=examples(120),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(configurations(), st.integers(0, 2**32))
def test_explain_equals_enforcement(config: Config, seed: int) -> None:
    choose = random.Random(seed)
    with asyncio.Runner() as runner:
        stage = runner.run(Stage.up())
        sessions = runner.run(signed_in(stage))
        judge = Judge(snapshot(config), stage.sessions)
        for _ in range(60):
            session = choose.choice(sessions)
            method, host, path = asked = requested(choose)
            answer = explain_request(config, session.subject, method, f"https://{host}{path}")
            allowed = enforced(judge, session, stage, asked)
            assert answer.allowed is allowed, (asked, session.subject.name, answer.lines)
            assert answer.lines[0].startswith("ALLOWED" if allowed else "REFUSED")


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    deadline=None,
    max_examples=examples(120),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(configurations())
def test_explain_of_a_stream_equals_enforcement(config: Config) -> None:
    """What the tunnel does: the target of the host or name, then `Grants.connect`."""
    built = snapshot(config)
    for subject in SUBJECTS:
        grants = built.policy.grants(subject)
        for host in set(HOSTS) | {"app", "db", "wild"}:
            name = host.partition(":")[0].rstrip(".").lower()
            target = built.tcp_for(name) or built.tcp.get(name)
            allowed = target is not None and isinstance(grants.connect(target.backend.name), Allow)
            for form in ("{}", "tcp://{}", "https://{}/"):
                answer = explain_request(config, subject, "CONNECT", form.format(host))
                assert answer.allowed is allowed, (host, subject.name, answer.lines)
                assert answer.lines[0].startswith("ALLOWED" if allowed else "REFUSED")


GRAFANA = app(
    "grafana",
    http=[{"path": "/", "upstream": "http://127.0.0.1:3000"}],
    permissions=[
        {"name": "read", "locations": [{"get": "/d"}]},
        {"name": "all", "locations": [{"any": "/"}]},
    ],
)
ROLES = [
    role("viewer", "grafana/read", members=[{"domain": "example.test"}]),
    role("admin", "grafana/all", members=[{"group": "sre"}]),
]
DESKTOP = tcp("desktop", host="desktop.ssh.example.test")
CONFIG = configured(
    [GRAFANA, app("open", public=True), DESKTOP],
    [*ROLES, role("dev", "desktop", members=[{"group": "sre"}, {"service_account": "ci"}])],
    service_accounts=[{"name": "ci"}],
)


@pytest.mark.parametrize(
    ("request_line", "first"),
    [
        ("GET grafana/d/1", "ALLOWED: alice@example.test: GET /d/1 on grafana"),
        ("HEAD grafana/d", "ALLOWED: alice@example.test: HEAD /d on grafana"),
        ("GET grafana/x/../d?q#f", "ALLOWED: alice@example.test: GET /d on grafana"),
        ("POST grafana/d", "REFUSED (no_permission): alice@example.test: POST /d on grafana"),
        ("GET open/", "ALLOWED: everybody: backend open is public"),
        ("GET auth/", "ALLOWED: everybody: Heim's own pages"),
        ("GET grafana/.heim/me", "ALLOWED: everybody: Heim's own pages"),
        ("GET grafana/.heim/me;x", "REFUSED (ambiguous_path): the path can be read in two ways"),
        ("GET grafana/a%2Fb", "REFUSED (ambiguous_path): the path can be read in two ways"),
        ("GET no/x", "REFUSED (not_found): nothing is served at no.example.test/x"),
        ("GET no/.heim", "REFUSED (not_found): nothing is served at no.example.test/.heim"),
        ("GET open/%zz", "REFUSED (bad_request): incomplete percent-encoding in the path"),
        ("TRACE open/", "REFUSED (bad_request): TRACE is not served"),
    ],
)
def test_the_first_line_is_the_decision(request_line: str, first: str) -> None:
    method, _, rest = request_line.partition(" ")
    host, _, path = rest.partition("/")
    who = subject_of(CONFIG, "Alice@example.test")
    answer = explain_request(CONFIG, who, method, f"https://{host}.example.test/{path}")
    assert answer.lines[0] == first


@pytest.mark.parametrize(
    ("url", "first"),
    [
        ("desktop.ssh.example.test", "ALLOWED: bob@example.test: tcp on desktop"),
        ("Desktop.SSH.example.test:443", "ALLOWED: bob@example.test: tcp on desktop"),
        ("tcp://desktop.ssh.example.test", "ALLOWED: bob@example.test: tcp on desktop"),
        ("tcp://desktop.ssh.example.test:22", "ALLOWED: bob@example.test: tcp on desktop"),
        ("https://desktop.ssh.example.test/", "ALLOWED: bob@example.test: tcp on desktop"),
        ("desktop", "ALLOWED: bob@example.test: tcp on desktop"),
        (
            "open.example.test",
            "REFUSED (no_such_target): there is no tcp at open.example.test",
        ),
        ("grafana", "REFUSED (no_such_target): there is no tcp at grafana"),
        ("auth.example.test", "REFUSED (no_such_target): there is no tcp at auth.example.test"),
        ("x.example.test", "REFUSED (no_such_target): there is no tcp at x.example.test"),
    ],
)
def test_the_first_line_about_a_stream_is_the_decision(url: str, first: str) -> None:
    who = subject_of(CONFIG, "bob@example.test", groups=["sre"])
    assert explain_request(CONFIG, who, "CONNECT", url).lines[0] == first


def test_a_refused_stream_says_why() -> None:
    who = subject_of(CONFIG, "alice@example.test")
    answer = explain_request(CONFIG, who, "CONNECT", "desktop.ssh.example.test")
    assert answer.lines[:2] == (
        "REFUSED (no_role): alice@example.test: tcp on desktop",
        "  You have no role that gives access to desktop.",
    )
    assert not answer.allowed


THROUGH = configured(
    [
        app("grafana", http=[{"path": "/", "agent": "office", "target": "web"}]),
        app("open", public=True, http=[{"path": "/", "agent": "office", "target": "web"}]),
        {"name": "desktop", "tcp": {"agent": "office", "target": "ssh"}},
    ],
    [role("dev", "desktop", "grafana/all", members=[{"user": "bob@example.test"}])],
    agents=[{"name": "office", "targets": ["ssh", "web"]}],
)


@pytest.mark.parametrize("name", ["bob", "alice"])
@pytest.mark.parametrize(
    ("method", "url", "target"),
    [
        ("CONNECT", "desktop.example.test", "ssh"),
        ("CONNECT", "desktop", "ssh"),
        ("GET", "https://grafana.example.test/", "web"),
        ("GET", "https://open.example.test/", "web"),
    ],
)
def test_what_goes_through_an_agent_is_said_to(
    name: str, method: str, url: str, target: str
) -> None:
    answer = explain_request(THROUGH, subject_of(THROUGH, f"{name}@example.test"), method, url)
    assert answer.lines[-1] == (
        f"it goes to target {target} of agent office, which checks it again by its own list"
    )
    assert answer.allowed is (name == "bob" or "open" in url)


def test_what_goes_through_none_is_not() -> None:
    who = subject_of(CONFIG, "bob@example.test", groups=["sre"])
    for method, url in (("CONNECT", "desktop"), ("GET", "https://grafana.example.test/")):
        assert "agent" not in str(explain_request(CONFIG, who, method, url).lines)


def test_a_browser_finds_nothing_where_there_is_tcp_alone() -> None:
    who = subject_of(CONFIG, "bob@example.test", groups=["sre"])
    answer = explain_request(CONFIG, who, "GET", "https://desktop.ssh.example.test/")
    assert answer.lines == ("REFUSED (not_found): nothing is served at desktop.ssh.example.test/",)


TOKEN = "t" * 20
SOLVED = configured(
    [app("grafana")],
    acme_challenges=[
        {"host": host, "token": TOKEN, "upstreams": ["http://10.1.2.3:8089"]}
        for host in ("grafana.example.test", "auth.example.test", "new.example.test")
    ],
)
SOLVER = (
    "ALLOWED: everybody: an ACME challenge for {}, on plain http only",
    "it goes to http://10.1.2.3:8089, without cookies and identity",
)


@pytest.mark.parametrize("host", ["grafana.example.test", "auth.example.test", "new.example.test"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_challenge_is_said_to_be_one(host: str, method: str) -> None:
    url = f"http://{host}/.well-known/acme-challenge/{TOKEN}"
    who = subject_of(SOLVED, "alice@example.test")
    answer = explain_request(SOLVED, who, method, url)
    assert answer.allowed
    assert answer.lines == (SOLVER[0].format(host), SOLVER[1])


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", f"https://grafana.example.test/.well-known/acme-challenge/{TOKEN}"),
        ("POST", f"http://grafana.example.test/.well-known/acme-challenge/{TOKEN}"),
        ("GET", f"http://grafana.example.test/.well-known/acme-challenge/{TOKEN}?x"),
        ("GET", f"http://grafana.example.test/.well-known/acme-challenge/{TOKEN[1:]}x"),
        ("GET", f"http://grafana.example.test/.well-known//acme-challenge/{TOKEN}"),
    ],
)
def test_what_only_looks_like_a_challenge_is_judged(method: str, url: str) -> None:
    answer = explain_request(SOLVED, subject_of(SOLVED, "alice@example.test"), method, url)
    assert not answer.allowed
    assert "ACME" not in str(answer.lines)


@pytest.mark.parametrize(
    "url",
    ["", "http://desktop.ssh.example.test", "ssh://desktop.ssh.example.test", "a b", "[::1",
     "https://desktop.ssh.example.test/x", "desktop.ssh.example.test/x", "desktop?x", "desktop#x",
     "bob@desktop.ssh.example.test", "desktop:99999", "tcp://", "ä_.example"],
)  # fmt: skip
def test_a_host_that_is_none_is_a_wrong_question(url: str) -> None:
    with pytest.raises(ValueError):
        explain_request(CONFIG, subject_of(CONFIG, "bob@example.test"), "CONNECT", url)


def test_a_decision_says_which_rule_and_what_would_change_it() -> None:
    alice = subject_of(CONFIG, "alice@example.test")
    allowed = "\n".join(
        explain_request(CONFIG, alice, "GET", "https://grafana.example.test/d").lines
    )
    assert "by role viewer: grafana/read get /d" in allowed
    refused = "\n".join(
        explain_request(CONFIG, alice, "PUT", "https://grafana.example.test/d").lines
    )
    assert "role admin" in refused
    assert "what would change it" in refused
    bob = subject_of(CONFIG, "bob@example.test", groups=["sre"])
    assert explain_request(CONFIG, bob, "PUT", "https://grafana.example.test/d").allowed


def test_names_may_be_written_as_people_read_them() -> None:
    backend = app("buch", host="bücher.example", permissions=[
        {"name": "all", "locations": [{"any": "/büro"}]}
    ])  # fmt: skip
    config = configured([backend], [role("r", "buch/all")])
    alice = subject_of(config, "alice@example.test")
    for url in ("https://bücher.example/büro", "https://xn--bcher-kva.example/b%C3%BCro",
                "https://BÜCHER.example:443/büro/x"):  # fmt: skip
        assert explain_request(config, alice, "GET", url).allowed
    assert not explain_request(config, alice, "GET", "https://bücher.example/buro").allowed


@pytest.mark.parametrize(
    "url",
    ["", "grafana.example.test/", "ftp://grafana.example.test/", "https:///x", "https://a b/",
     "https://[::1/", "//grafana.example.test/", "https://grafana.example.test:99999/",
     "https://a..b/", "https://ä_.example/"],
)  # fmt: skip
def test_an_address_that_is_none_is_a_wrong_question(url: str) -> None:
    with pytest.raises(ValueError):
        explain_request(CONFIG, subject_of(CONFIG, "alice@example.test"), "GET", url)


class TestSubjects:
    def test_a_person_is_known_by_a_verified_address(self) -> None:
        who = subject_of(CONFIG, "Alice@Example.test", groups=["sre"])
        assert (who.kind, who.issuer, who.provider) == (SubjectKind.USER, ISSUER, "idp")
        assert (who.email, who.domain) == ("alice@example.test", "example.test")
        assert who.groups == {"sre"}

    def test_a_service_account_is_named(self) -> None:
        who = subject_of(CONFIG, "service:ci")
        assert (who.kind, who.name) == (SubjectKind.SERVICE_ACCOUNT, "ci")

    @pytest.mark.parametrize(
        ("who", "provider", "words"),
        [
            ("service:none", None, "no service account 'none'"),
            ("alice", None, "neither an e-mail address nor"),
            ("@example.test", None, "neither an e-mail address nor"),
            ("alice@", None, "neither an e-mail address nor"),
            ("älice@example.test", None, "neither an e-mail address nor"),
            ("alice@example.test", "none", "no provider 'none'"),
        ],
    )
    def test_nobody_is_told_why(self, who: str, provider: str | None, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            subject_of(CONFIG, who, provider=provider)

    def several(self, **keys: Any) -> Config:
        provider = {"type": "oidc", "client_id": "heim", "client_secret_env": "IDP_SECRET"}
        first = {**provider, "name": "one", "issuer": "https://one.test", "domains": ["one.test"]}
        second = {**provider, "name": "two", "issuer": "https://two.test", "domains": ["two.test"]}
        return configured([app()], identity={"providers": [first, second]})

    def test_with_several_providers_one_must_be_named(self) -> None:
        with pytest.raises(ValueError, match="--provider one or two"):
            subject_of(self.several(), "alice@one.test")
        assert subject_of(self.several(), "a@two.test", provider="two").issuer == "https://two.test"

    def test_somebody_whom_the_provider_does_not_vouch_for_cannot_sign_in(self) -> None:
        with pytest.raises(ValueError, match=r"one\.test is not in domains of two"):
            subject_of(self.several(), "alice@one.test", provider="two")

    def test_without_a_provider_nobody_can_sign_in(self) -> None:
        config = configured([app(public=True)], identity={"providers": []})
        with pytest.raises(ValueError, match="nobody can sign in"):
            subject_of(config, "alice@example.test")


class TestCommand:
    def run(self, tmp_path: Path, *, who: str = "alice@example.test", method: str = "get",
            url: str = "https://app.example.test/",
            members: list[dict[str, str]] | None = None) -> int:  # fmt: skip
        path = tmp_path / "heim.yaml"
        document: dict[str, Any] = {
            "version": 1,
            "domain": "example.test",
            "tls": {"certificates": [{"cert_file": "tls.crt", "key_file": "tls.key"}]},
            "identity": {"providers": [{
                "name": "idp", "type": "oidc", "issuer": ISSUER, "client_id": "heim",
                "client_secret_file": "secret",
            }]},
            "roles": [role("r", "app/all", "ssh")],
            "backends": [app(), tcp()],
            "service_accounts": [{"name": "ci"}],
        }  # fmt: skip
        if members is not None:
            document["roles"][0]["members"] = members
        path.write_text(yaml.safe_dump(document))
        return explain(
            argparse.Namespace(
                config=str(path), who=who, group=[], provider=None, method=method, url=url
            )
        )

    def test_a_public_backend_does_not_depend_on_who_asks(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(tmp_path, who="nobody", url="https://app.example.test/.heim/me") == 0
        assert "everybody" in capsys.readouterr().out

    def test_groups_are_not_guessed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.run(tmp_path, members=[{"group": "sre"}])
        assert "name them with --group" in capsys.readouterr().err
        self.run(tmp_path)
        assert capsys.readouterr().err == ""

    def test_allowed_is_0_and_on_stdout(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(tmp_path) == 0
        told = capsys.readouterr()
        assert told.out.startswith("ALLOWED: alice@example.test: GET / on app\n  by role r: ")
        assert told.err == ""

    def test_refused_is_1(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(tmp_path, who="mallory@example.test") == 1
        assert capsys.readouterr().out.startswith("REFUSED (no_role): mallory@example.test")

    def test_a_stream_is_asked_about_by_its_host(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(tmp_path, method="connect", url="ssh.example.test") == 0
        assert capsys.readouterr().out.startswith(
            "ALLOWED: alice@example.test: tcp on ssh\n  by role r: ssh tcp\n"
        )
        assert self.run(tmp_path, who="bob@x.test", method="CONNECT", url="ssh.example.test") == 1
        assert self.run(tmp_path, method="CONNECT", url="ssh.example.test/x") == 2

    def test_a_service_account_is_told_to_ask_about_streams(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.run(tmp_path, who="service:ci")
        assert "ask with CONNECT HOST" in capsys.readouterr().err
        self.run(tmp_path, who="service:ci", method="CONNECT", url="ssh.example.test")
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("wrong", [{"who": "nobody"}, {"url": "app"}])
    def test_a_wrong_question_is_2_and_on_stderr(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, str]
    ) -> None:
        assert self.run(tmp_path, **wrong) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("heim-proxy explain: ")

    def test_a_configuration_that_cannot_be_used_is_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "heim.yaml"
        path.write_text("version: 1\nbackens: []\n")
        args = argparse.Namespace(
            config=str(path), who="a@b.c", group=[], provider=None, method="GET", url="https://a/"
        )
        assert explain(args) == 2
        assert "did you mean backends?" in capsys.readouterr().err
