"""Fixtures of the tests in a real browser: one Chromium for all of them, and pages to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.interop.requiring import required

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.web.browser.chromium import OpenPage

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder: it needs a browser, and shares one event loop with it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A running Chromium; without it the tests are skipped with the reason, unless they are required."""
    from tests.web.browser.chromium import find_chromium, launch  # late: Playwright is loaded for these tests only

    required(None if find_chromium() else "chromium is not installed")
    async with launch() as running:
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Callable[..., AbstractAsyncContextManager[OpenPage]]:
    """Open a page of one size and scheme: `async with open_page(size=(390, 844), scheme="dark") as shown`."""
    from tests.web.browser.chromium import open_page

    return partial(open_page, browser)
