"""The preview in a browser: a saved file is shown at once, the keys go through the rows, one message is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median

import pytest
from playwright.async_api import Page

from asyncsmtp.web.local_app import serve_locally
from asyncsmtp.web.preview import make_preview_app
from tests.web.browser.chromium import OpenPage
from tests.web.test_preview_page import Sent, following, write

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

Open = Callable[..., AbstractAsyncContextManager[OpenPage]]
ROWS = 300
PEOPLE = "email,name\n" + "".join(f"p{number}@example.org,Name {number}\n" for number in range(1, ROWS + 1))
LONGEST = 15  # seconds on a busy machine
LIMIT = 0.3  # seconds from the saving of a file to the frame that shows it, as a rule
SOURCE = "(document.querySelector('#body iframe:last-of-type') || {}).src"


@asynccontextmanager
async def opened(folder: Path, open_page: Open, sent: Sent | None = None) -> AsyncIterator[Page]:
    """The page of a campaign, at row 7."""
    async with (
        following(write(folder, PEOPLE), sent) as live,
        serve_locally(make_preview_app(live, 7)) as url,
        open_page() as shown,
    ):
        await shown.go(url)
        yield shown.page
        assert shown.refused == []
        live.end_changes()


async def wait_until(page: Page, expression: str, value: object) -> None:
    """Wait until an expression has a value; the policy of the page forbids to do that within it."""
    async with asyncio.timeout(LONGEST):
        while (found := await page.evaluate(expression)) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert found == value


async def wait_for_row(page: Page, row: int) -> None:
    await wait_until(page, "document.getElementById('message').dataset.row", str(row))


async def test_twenty_edits_of_a_template_are_shown(tmp_path: Path, open_page: Open) -> None:
    """In the frame, which is replaced only when the new one is loaded; the row stays."""
    loop, times = asyncio.get_running_loop(), []
    async with opened(tmp_path, open_page) as page:
        for edit in range(20):
            before = await page.evaluate(SOURCE)
            begun = loop.time()
            (tmp_path / "message.html").write_text(f"<p>Edit {edit}, {{{{ name }}}}</p>", encoding="utf-8")
            await wait_until(page, f"{SOURCE} !== {json.dumps(before)}", True)
            await wait_until(page, "document.querySelectorAll('#body iframe').length", 1)
            times.append(loop.time() - begun)
            assert await page.frame_locator("#body iframe").locator("p").inner_text() == f"Edit {edit}, Name 7"
            assert await page.evaluate("document.getElementById('message').dataset.row") == "7"
    print("milliseconds to the frame:", [round(1000 * each) for each in times], round(1000 * median(times)))
    assert median(times) <= 3 * LIMIT  # the browser runs on the same two cores as everything else


async def test_a_broken_template_is_shown_and_its_repair(tmp_path: Path, open_page: Open) -> None:
    """With the line; what was typed into the form stays."""
    async with opened(tmp_path, open_page) as page:
        template = tmp_path / "message.html"
        text = template.read_text("utf-8")
        await page.fill("#to", "me@example.org")
        template.write_text("<p>\n{{ oops", encoding="utf-8")
        assert "{{ oops" in await page.locator("#fault .wrong").inner_text()
        template.write_text(text, encoding="utf-8")
        await page.locator("#body iframe").wait_for()
        assert await page.locator("#fault .fault").count() == 0
        assert await page.input_value("#to") == "me@example.org"
        await wait_for_row(page, 7)


async def test_keys_go_through_the_rows(tmp_path: Path, open_page: Open) -> None:
    """j, k, and the arrows within the list; over its pages; / and Escape; the views by their numbers; and back."""
    async with opened(tmp_path, open_page) as page:
        await page.keyboard.press("j")
        await wait_for_row(page, 8)
        await page.keyboard.press("k")
        await wait_for_row(page, 7)
        await page.focus("#rows a[aria-current]")
        await page.keyboard.press("ArrowDown")
        await wait_for_row(page, 8)
        await wait_until(page, "document.activeElement.dataset.row", "8")
        await page.keyboard.press("/")
        await page.keyboard.type("p100@")
        await wait_until(page, "document.querySelectorAll('#rows li').length", 1)
        await wait_until(page, "document.activeElement.id", "q")
        await page.fill("#q", "")
        await wait_until(page, "document.querySelectorAll('#rows li').length", 100)
        await page.keyboard.press("Escape")
        await page.click('#rows a[data-row="100"]')
        await wait_for_row(page, 100)
        await page.keyboard.press("j")
        await wait_for_row(page, 101)
        await wait_until(page, "document.querySelector('#rows li a').dataset.row", "101")
        await page.keyboard.press("2")
        await page.locator("#body pre").wait_for()
        await page.go_back()
        await page.locator("#body iframe").wait_for()
        await wait_for_row(page, 101)


async def test_a_message_is_sent_from_the_page(tmp_path: Path, open_page: Open) -> None:
    sent = Sent()
    async with opened(tmp_path, open_page, sent) as page:
        await page.fill("#to", "me@example.org")
        await page.press("#to", "Enter")
        await wait_until(page, "document.getElementById('sent').textContent", sent.result.sentence)
        await page.keyboard.press("Tab")
        assert sent.found == [(7, "me@example.org")]


async def test_the_page_says_when_the_command_has_ended(tmp_path: Path, open_page: Open) -> None:
    async with following(write(tmp_path)) as live, open_page() as shown:
        async with serve_locally(make_preview_app(live)) as url:
            await shown.go(url)
            assert not await shown.page.locator("#ended").is_visible()
            live.end_changes()
        await shown.page.locator("#ended").wait_for()
