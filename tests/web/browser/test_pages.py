"""Every page at the width of a desktop and of a phone, light and dark: it can be read, reached and trusted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.web.browser.chromium import SCHEMES, SIZES, OpenPage, Scheme
from tests.web.browser.sites import PAGES, serve_mailbox, serve_message, write_report

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

Open = Callable[..., AbstractAsyncContextManager[OpenPage]]
MAX_SHIFT = 0.01  # of the window; a value below 0.1 is called good, and these pages have no reason to move


@pytest.mark.parametrize("name", PAGES)
async def test_it_can_be_used_by_everyone(tmp_path: Path, open_page: Open, name: str) -> None:
    """Accessible, no wider than the window, nothing moves, nothing is complained of, and no other host is asked."""
    async with PAGES[name](tmp_path) as url, open_page() as shown:
        for width, height in SIZES:
            await shown.page.set_viewport_size({"width": width, "height": height})
            await shown.go(url)
            await expect_sound(shown)


async def expect_sound(shown: OpenPage) -> None:
    """Expect of an open page what holds for each of them, light and dark."""
    await shown.page.emulate_media(color_scheme="light")
    assert await shown.find_faults() == []
    await shown.page.emulate_media(color_scheme="dark")
    assert await shown.find_faults(colors_only=True) == []
    assert not await shown.is_wider_than_window()
    observed = await shown.measure()
    assert observed["shift"] < MAX_SHIFT
    assert observed["violations"] == []
    assert [each for each in shown.complaints if "404 (Not Found)" not in each] == []
    assert shown.refused == []


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_colours_follow_the_scheme(tmp_path: Path, open_page: Open, scheme: Scheme) -> None:
    async with serve_mailbox(tmp_path) as url, open_page(scheme=scheme) as shown:
        await shown.go(url)
        color = await shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(color.removeprefix("rgb(").partition(",")[0])
        assert red > 200 if scheme == "light" else red < 60


async def test_every_mail_is_reached_by_the_keyboard(tmp_path: Path, open_page: Open) -> None:
    """Search, delete, each mail, the next page; Enter opens, and Escape goes back."""
    async with serve_mailbox(tmp_path) as url, open_page() as shown:
        await shown.go(url)
        reached = await shown.tab_through()
        assert reached[:3] == ["q", "Search", "clear"]
        assert sum(each.startswith("/messages/") for each in reached) == 50
        assert reached[-1].endswith("offset=50")
        await shown.page.focus(".mails li:nth-child(2) a")
        await shown.page.keyboard.press("Enter")
        await shown.page.wait_for_url("**/messages/**")
        await shown.page.keyboard.press("Escape")
        await shown.page.wait_for_selector(".mails")


async def test_views_of_a_mail_are_reached_by_the_keyboard(tmp_path: Path, open_page: Open) -> None:
    async with serve_message(tmp_path, "html") as url, open_page() as shown:
        await shown.go(url)
        reached = await shown.tab_through()
        assert reached[0] == "back"
        assert "delete" in reached
        assert [each.partition("view=")[2] for each in reached if "?view=" in each][:6] == [
            "html", "text", "source", "headers", "parts", "dialogue"
        ]  # fmt: skip
        for choice in ("width=tablet", "width=phone", "dark=1", "images=all", "images=off"):
            assert any(each.endswith(choice) for each in reached), choice
        assert any(each.endswith("/html") for each in reached), reached


@pytest.mark.parametrize("size", SIZES)
async def test_every_part_of_a_chart_of_a_report_is_seen(
    tmp_path: Path, open_page: Open, size: tuple[int, int]
) -> None:
    """None is without height or colour, whatever the styles of other pages are; only a table of bars is left out."""
    async with write_report(tmp_path) as url, open_page(size=size) as shown:
        await shown.go(url)
        boxes = await shown.page.evaluate(
            """[...document.querySelectorAll("svg rect")].filter((each) => each.closest("svg").checkVisibility())
            .map((each) => [each.getBoundingClientRect(), getComputedStyle(each), each.closest("svg").classList[0]])
            .map(([{ width, height }, { fill }, kind]) => ({ width, height, fill, kind }))"""
        )
        assert {each["kind"] for each in boxes} == {"bar", "columns"}
        assert [each for each in boxes if each["height"] < (8 if each["kind"] == "bar" else 0.5)] == []
        assert [each for each in boxes if not each["width"] or each["fill"] == "rgb(0, 0, 0)"] == []
