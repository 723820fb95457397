"""security.md A: where `rd` may lead, by table and by generated corpus."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_proxy.portal.destination import Goal, goal_of, own_page, page_of

APP1 = "app1.example.test"
HOSTS = {APP1: f"https://{APP1}", "app2.example.test": "https://app2.example.test:8443"}
BINDING = "A" * 42 + "A"

HOSTILE = {
    "A1": "//evil.test",
    "A1 three": "///evil.test",
    "A1 scheme": "https:///evil.test",
    "A2": "/\\evil.test",
    "A2 two": "\\\\evil.test",
    "A3": "/%5cevil.test",
    "A3 twice": "/%255cevil.test",
    "A4": "/%09/evil.test",
    "A4 raw": "/\t/evil.test",
    "A5": "/%0d%0aLocation:https://evil.test",
    "A5 raw": "/\r\nLocation: https://evil.test",
    "A6": "https:evil.test",
    "A6 one slash": "https:/evil.test",
    "A6 http": "http:www.evil.test",
    "A6 plain http to ours": f"http://{APP1}/",
    "A7": f"https://{APP1}.evil.test/",
    "A8": "https://evil-example.test/",
    "A9": f"https://{APP1}@evil.test/",
    "A10": f"https://evil.test\\.{APP1}",
    "A10 slash": f"https://evil.test\\@{APP1}",
    "A11": f"https://{APP1}:443@evil.test",
    "A12": "javascript:alert(1)",
    "A12 case": "JaVaScRiPt:alert(1)",
    "A12 data": "data:text/html,x",
    "A13": f"https://{APP1}%2eevil.test",
    "A15": "https://аpp1.example.test",
    "A15 Kelvin": "https://app1.example.test".replace("p", "\u212a", 1),
    "A16": f"https://{APP1}:8443/",
    "A16 the other way": "https://app2.example.test/",
    "A18": "/" + "x" * 3000,
    "A18 url": f"https://{APP1}/" + "x" * 3000,
    "A19 login": "/.heim/login?rd=/",
    "A19 callback": "/.heim/callback",
    "A19 encoded": "/%2eheim/login",
    "A19 by dots": "/x/../.heim/login",
    "A19 url": f"https://{APP1}/.heim/login",
    "empty": "",
    "relative": "evil.test",
    "space": "/ /evil.test",
    "question": f"https://{APP1}?@evil.test\\",
    "no path": "https://",
    "port": f"https://{APP1}:/",
    "port long": f"https://{APP1}:0443/",
    "userinfo": f"https://@{APP1}/",
    "brackets": "https://[::1]/",
    "nul": "/\0",
    "unicode slash": "/／evil.test",
}


def goal(host: str | None, rd: str | None, binding: str | None = BINDING) -> Goal:
    return goal_of(host, rd, binding, origin_of=HOSTS.get)


@pytest.mark.parametrize("rd", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("host", [APP1, None, "evil.test"])
def test_a_hostile_rd_leads_to_a_start_page_of_ours(rd: str, host: str | None) -> None:
    found = goal(host, rd)
    assert found.host in (None, APP1)
    assert found.path in ("/", "/?@evil.test\\") if "?@" in rd else found.path == "/"


@pytest.mark.parametrize(
    ("host", "rd", "expected"),
    [
        pytest.param(APP1, "/x?y=1", Goal(APP1, "/x?y=1", BINDING), id="path"),
        pytest.param(APP1, None, Goal(APP1, "/", BINDING), id="no rd"),
        pytest.param(None, None, Goal(), id="nothing"),
        pytest.param(None, "/x", Goal(), id="a path of nobody"),
        pytest.param("evil.test", "/x", Goal(), id="unknown host"),
        pytest.param("auth.example.test", "/x", Goal(), id="the login host is no backend"),
        pytest.param("APP1.Example.Test.", "/x", Goal(APP1, "/x", BINDING), id="host canonical"),
        pytest.param(None, f"https://{APP1}/x", Goal(APP1, "/x"), id="URL without binding"),
        pytest.param(APP1, f"https://{APP1}/x", Goal(APP1, "/x", BINDING), id="URL of the host"),
        pytest.param(
            APP1, "https://app2.example.test:8443/x", Goal("app2.example.test", "/x"),
            id="URL of another host of ours loses the binding",
        ),
        pytest.param(None, "https://APP1.example.test./x", Goal(APP1, "/x"), id="A14 canonical"),
        pytest.param(None, f"https://{APP1}:443/x", Goal(APP1, "/x"), id="default port"),
        pytest.param(None, f"https://{APP1}", Goal(APP1, "/"), id="URL without a path"),
        pytest.param(None, f"https://{APP1}?a=b", Goal(APP1, "/?a=b"), id="URL with a query only"),
        pytest.param(APP1, "/a//b/%2F?u=https://x.test/", Goal(APP1, "/a//b/%2F?u=https://x.test/",
                     BINDING), id="odd but ours"),
    ],
)  # fmt: skip
def test_a_goal_of_ours_is_kept(host: str | None, rd: str | None, expected: Goal) -> None:
    assert goal(host, rd) == expected


@pytest.mark.parametrize("binding", ["", "x", "A" * 42, "A" * 44, "=" * 43, "é" * 43])
def test_a_binding_that_is_none_is_dropped(binding: str) -> None:
    assert goal(APP1, "/x", binding) == Goal(APP1, "/x")


PARTS = (
    *("https:", "http:", "javascript:", "//", "/", "\\", "@", ":", "443", ".", "..", "?", "#", ";"),
    *("evil.test", APP1, "auth.example.test", ".heim", "x", "-", "&", "[", "]", "é", "／"),
    *("%2f", "%5c", "%09", "%00", "%252f", "%0d%0a", "\t", "\n", " "),
)


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join), st.booleans())
def test_a20_no_composition_of_tricks_leaves_our_hosts(text: str, decode: bool) -> None:
    found = goal(None, unquote(text) if decode else text)
    assert found.host is None or found.host in HOSTS
    # What follows the origin always starts a path, so nothing in it can name another host.
    assert found.path.startswith("/")
    assert not found.path.startswith(("//", "/\\"))
    assert found.path.isascii()
    assert found.path.isprintable()


@given(st.text(max_size=60), st.text(max_size=30))
def test_a20_no_text_at_all_leaves_our_hosts(rd: str, host: str) -> None:
    found = goal(host, rd)
    assert found.host is None or found.host in HOSTS
    assert found.path.startswith("/")


@pytest.mark.parametrize("rd", [*HOSTILE.values(), f"https://{APP1}/x"], ids=[*HOSTILE, "absolute"])
def test_a_page_is_a_path_and_nothing_that_needs_reading(rd: str) -> None:
    assert page_of(APP1, rd, origin_of=HOSTS.get) is None


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.test", APP1.upper(), f"{APP1}.", f"{APP1}:443", f"{APP1}/",
     f"{APP1}@evil.test", "app1.example.test".replace("p", "\u212a", 1)],
)  # fmt: skip
def test_a_page_is_on_a_backends_host_in_its_canonical_form(host: str | None) -> None:
    everything = {str(host): "https://evil.test"} if host != "evil.test" else {}
    assert page_of(host, "/x", origin_of=everything.get) is None


def test_a_page_keeps_its_query() -> None:
    assert page_of(APP1, "/x?y=/z", origin_of=HOSTS.get) == Goal(APP1, "/x?y=/z")
    assert page_of(APP1, None, origin_of=HOSTS.get) is None


OWN = [
    "/.heim/device",
    "/.heim/devices",
    "/.heim/agents",
    "/.heim/cli/authorize",
    "/.heim/cli/authorize?redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcallback&state=a-b_c.d~e",
]


@pytest.mark.parametrize("rd", OWN)
def test_own_pages_are_where_people_may_come_back_to(rd: str) -> None:
    assert goal_of(None, rd, BINDING, origin_of=HOSTS.get) == Goal(None, rd)
    assert own_page(rd) == rd


@pytest.mark.parametrize("rd", OWN)
def test_an_applications_host_cannot_send_people_to_them(rd: str) -> None:
    assert goal_of(APP1, rd, BINDING, origin_of=HOSTS.get) == Goal(APP1, "/", BINDING)
    assert goal_of("evil.test", rd, BINDING, origin_of=HOSTS.get) == Goal()
    assert page_of(APP1, rd, origin_of=HOSTS.get) is None


@pytest.mark.parametrize(
    "rd",
    [
        *HOSTILE.values(),
        "/.heim/logout",
        "/.heim/me",
        "/.heim/cli/token",
        "/.heim/cli/authorize/",
        "/.heim/cli/authorizex",
        "/.heim/devicesx",
        "/.heim/cli//authorize",
        "/.heim/cli/authorize/../../login",
        "/.heim/cli/authorize#x",
        "/.heim/cli/authorize?x#y",
        "/.heim/cli/authorize?x\r\nLocation: //evil.test",
        "/.heim/cli/authorize?x y",
        "/.heim/cli/authorize?x\\y",
        "/.heim/cli/authorize;x",
        "/.HEIM/device",
        "/.heim/%64evice",
        "/.heim/device\n",
        "/.heim/devicé",
        "https://auth.example.test/.heim/device",
        "//auth.example.test/.heim/device",
        "/.heim/device?" + "x" * 2048,
    ],
)
def test_nothing_else_is_an_own_page(rd: str) -> None:
    assert own_page(rd) is None
    assert goal_of(None, rd, None, origin_of={}.get) == Goal()
