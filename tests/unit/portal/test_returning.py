"""Signing out and in again leads back to the application's page, and to no other place (A, K)."""

from __future__ import annotations

import html
import re
from urllib.parse import quote

import pytest

from heim_proxy.identity.cookies import RETURN_COOKIE
from heim_proxy.identity.seal import Purpose
from tests.fakes.idp import OMIT, Lies
from tests.fakes.portal import APP1, APP2, LOGIN, Browser, PortalStand, Reply, query_of
from tests.unit.portal.test_destination import HOSTILE

PAGE = "/d/1?from=now-1h&to=a%2Fb"
ASK = f"/.heim/logout?host={APP1}&rd={quote(PAGE, safe='')}"


def links(reply: Reply) -> dict[str, str]:
    """The links of a page by what they say."""
    found = re.findall(r'<a [^>]*href="([^"]*)"[^>]*>([^<]*)<', reply.text)
    return {text: html.unescape(url) for url, text in found}


async def sign_out(browser: Browser, url: str) -> Reply:
    """Open a sign-out page and press its button; the answer to the form."""
    page = await browser.follow(url)
    action = re.search(r'<form method="post" action="([^"]*)"', page.text)
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert action, page
    assert csrf, page
    return await browser.request(
        "POST",
        html.unescape(action[1]),
        headers={"Origin": f"https://{LOGIN}"},
        form={"csrf": csrf[1]},
    )


async def signed_in(stand: PortalStand) -> Browser:
    browser = stand.browser()
    await browser.open(APP1)
    return browser


async def again(browser: Browser) -> str:
    """Where the signed-out page's link leads."""
    return links(await browser.get("/.heim/signed-out"))["Sign in again"]


async def test_from_an_applications_page_and_back_to_it(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    gone = await sign_out(browser, f"https://{APP1}/.heim/logout?rd={quote(PAGE, safe='')}")
    # At the provider first: what it sends people back to is registered to the letter.
    sent = query_of(gone.location)
    assert sent["post_logout_redirect_uri"] == f"https://{LOGIN}/.heim/signed-out"
    assert APP1 not in gone.location
    page = await browser.follow(gone.location)
    assert links(page)["Sign in again"] == f"https://{APP1}{PAGE}"
    assert f"continue to {APP1}" in page.text


async def test_without_a_sign_out_at_the_provider_too(stand: PortalStand) -> None:
    stand.idp.lies = Lies(discovery={"end_session_endpoint": OMIT})
    browser = await signed_in(stand)
    assert (await sign_out(browser, ASK)).location == "/.heim/signed-out"
    assert await again(browser) == f"https://{APP1}{PAGE}"


async def test_the_page_stays_through_a_change_of_mind(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    assert links(await browser.get(ASK))["Stay signed in"] == f"https://{APP1}{PAGE}"
    assert links(await browser.get("/.heim/logout"))["Stay signed in"] == "/"
    assert browser.jar[LOGIN].keys() == {"__Host-heim"}, "asking changes nothing"


async def test_whoever_is_signed_out_already_gets_back_too(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.follow(f"https://{APP1}/.heim/logout?rd=/x")
    assert await again(browser) == f"https://{APP1}/x"


async def test_a_refused_form_offers_the_page_with_its_destination(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    reply = await browser.request("POST", ASK, form={"csrf": "x"})
    assert reply.status == 403
    assert query_of(links(reply)["Sign out"]) == {"host": APP1, "rd": PAGE}
    assert RETURN_COOKIE not in browser.jar[LOGIN]


async def test_a_sign_out_from_elsewhere_forgets_an_earlier_page(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    await sign_out(browser, ASK)
    await browser.open(APP1)
    await sign_out(browser, "/.heim/logout")
    assert RETURN_COOKIE not in browser.jar[LOGIN]
    assert await again(browser) == "/.heim/login"


@pytest.mark.parametrize("rd", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_rd_is_no_link(stand: PortalStand, rd: str) -> None:
    browser = await signed_in(stand)
    encoded = quote(rd, safe="")
    asked = await browser.get(f"https://{APP1}/.heim/logout?rd={encoded}")
    assert asked.location == f"https://{LOGIN}/.heim/logout"
    await sign_out(browser, f"/.heim/logout?host={APP1}&rd={encoded}")
    assert await again(browser) == "/.heim/login"


@pytest.mark.parametrize(
    "query",
    [
        "host=evil.test&rd=/",
        f"host={LOGIN}&rd=/",
        f"host={APP1}.evil.test&rd=/",
        f"host=evil.test%2F{APP1}&rd=/",
        "rd=/x",
        f"host={APP1}",
        f"host={APP1}&rd=/x&rd=/y",
        f"host={APP1}&host=evil.test&rd=/",
        f"host={APP1}&rd=%ff",
        "%",
    ],
)
async def test_a_query_that_is_not_ours_signs_out_without_a_link(
    stand: PortalStand, query: str
) -> None:
    browser = await signed_in(stand)
    assert (await sign_out(browser, f"/.heim/logout?{query}")).status == 303
    assert browser.session() is None
    assert await again(browser) == "/.heim/login"


def sealed(stand: PortalStand, payload: str, *, purpose: Purpose = Purpose.RETURN) -> str:
    return stand.stage.sealer.seal(
        payload.encode(), purpose=purpose, host=LOGIN, name=RETURN_COOKIE
    )


@pytest.mark.parametrize(
    "kind",
    ["garbage", "another purpose", "another host", "too old", "of the future", "gone host",
     "hostile path", "another version", "no number"],
)  # fmt: skip
async def test_a_cookie_that_is_not_ours_or_no_longer_is_no_link(
    stand: PortalStand, kind: str
) -> None:
    now = stand.clock.now()
    good = f"{now!r}\n{APP1}\n/x"
    value = {
        "garbage": "AAAA",
        "another purpose": sealed(stand, good, purpose=Purpose.LOGIN),
        "another host": stand.stage.sealer.seal(
            good.encode(), purpose=Purpose.RETURN, host=APP1, name=RETURN_COOKIE
        ),
        "too old": sealed(stand, f"{now - 600!r}\n{APP1}\n/x"),
        "of the future": sealed(stand, f"{now + 60!r}\n{APP1}\n/x"),
        "gone host": sealed(stand, f"{now!r}\ngone.example.test\n/x"),
        "hostile path": sealed(stand, f"{now!r}\n{APP1}\n//evil.test"),
        "another version": sealed(stand, f"{now!r}\n{APP1}"),
        "no number": sealed(stand, f"x\n{APP1}\n/x"),
    }[kind]
    browser = stand.browser()
    browser.jar[LOGIN] = {RETURN_COOKIE: sealed(stand, good)}
    assert await again(browser) == f"https://{APP1}/x"
    browser.jar[LOGIN] = {RETURN_COOKIE: value}
    assert await again(browser) == "/.heim/login"


async def test_a_cookie_that_is_there_twice_is_no_link(stand: PortalStand) -> None:
    now = stand.clock.now()
    first, second = (sealed(stand, f"{now!r}\n{host}\n/") for host in (APP1, APP2))
    cookie = f"{RETURN_COOKIE}={first}; {RETURN_COOKIE}={second}"
    page = await stand.browser().get("/.heim/signed-out", Cookie=cookie)
    assert links(page)["Sign in again"] == "/.heim/login"


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/x?" + "y" * 1021, "/x?" + "y" * 1021),
        ("/x?" + "y" * 1022, "/x"),
        ("/" + "x" * 1500, "/"),
    ],
    ids=["fits", "without its query", "its host"],
)
async def test_a_long_address_does_not_make_a_large_cookie(
    stand: PortalStand, path: str, kept: str
) -> None:
    browser = await signed_in(stand)
    await sign_out(browser, f"/.heim/logout?host={APP1}&rd={quote(path, safe='')}")
    assert len(browser.jar[LOGIN][RETURN_COOKIE]) < 1600
    assert await again(browser) == f"https://{APP1}{kept}"


async def test_the_link_has_the_port_people_use(stand: PortalStand) -> None:
    stand.port = ":8443"
    browser = stand.browser()
    browser.jar[LOGIN] = {RETURN_COOKIE: sealed(stand, f"{stand.clock.now()!r}\n{APP1}\n/x")}
    assert await again(browser) == f"https://{APP1}:8443/x"
