"""A headless Chromium for tests, and what a page did in it.

Nothing leaves the machine: every name but 127.0.0.1 resolves to nothing, and every request to another host than the
page's own is refused and noted. What Chromium itself notes about its network (names looked up, sockets opened, also
ahead of a request, which no page and no policy can tell) is in its net log, see `read_evil`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Route, async_playwright

__all__ = [
    "EVIL",
    "SCHEMES",
    "SIZES",
    "OpenPage",
    "Scheme",
    "find_chromium",
    "launch",
    "launch_profile",
    "open_page",
    "read_evil",
    "watch",
]

Scheme = Literal["light", "dark"]
SIZES = ((1280, 800), (390, 844))
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
SECONDS = 45  # until a page must be there; a loaded machine needs some

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_LOCAL = ("data", "blob", "about", "chrome-error", "file")  # schemes of addresses on this machine
_NAMES = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
EVIL = "evil.example"  # the domain of all that a hostile mail reaches for
EVIL_ADDRESS = "127.66.66.66"  # where its names lead to, so that a look-up without a connection is noted too

# Runs before any script of a page: sums up how far the page moved by itself, and how long it did not answer.
_WATCH = """
window.observed = { shift: 0, longest: 0, violations: [] };
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) observed.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) observed.longest = Math.max(observed.longest, entry.duration);
}).observe({ type: "longtask", buffered: true });
document.addEventListener("securitypolicyviolation", (event) => {
  observed.violations.push(`${event.effectiveDirective}: ${event.blockedURI}`);
});
"""


def find_chromium() -> str | None:
    """Return where Chromium is; None if it is not installed."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


@asynccontextmanager
async def launch() -> AsyncIterator[Browser]:
    """Run Chromium until the block ends."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=[f"--host-resolver-rules={_NAMES}"], timeout=SECONDS * 1000
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def launch_profile(folder: Path, net_log: Path) -> AsyncIterator[BrowserContext]:
    """Run Chromium as a person does until the block ends: with a profile, in which it connects ahead of a request.

    Args:
        net_log: where it writes what it did on the network; complete after the block.
    """
    arguments = [f"--log-net-log={net_log}", f"--host-resolver-rules=MAP *.{EVIL} {EVIL_ADDRESS}, {_NAMES}"]
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            folder, executable_path=find_chromium(), args=arguments, timeout=SECONDS * 1000
        )
        try:
            yield context
        finally:
            await context.close()


def read_evil(net_log: Path, *, kind: str = "") -> list[str]:
    """Return the events of a net log that are about the hosts of hostile mails; all of them, or those of one kind."""
    log = json.loads(net_log.read_text("utf-8"))
    number = log["constants"]["logEventTypes"][kind] if kind else None
    found = [json.dumps(event) for event in log["events"] if number in (None, event["type"])]
    return [event for event in found if EVIL in event or EVIL_ADDRESS in event]


@dataclass
class OpenPage:
    """A page, and what it did that it must not do.

    Attributes:
        refused: addresses on other hosts that it asked for.
        requests: all addresses that it asked for, also those that its own policy has refused.
        complaints: errors of scripts, and warnings of the console.
        frame_complaints: the same of its frames; for a mail it is there that the policy refuses things.
        dialogs: texts of `alert` and the like; each was dismissed.
        popups: addresses of windows that it opened.
    """

    page: Page
    refused: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    frame_complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    popups: list[str] = field(default_factory=list)

    async def go(self, url: str) -> None:
        """Open an address, and wait until all of it is loaded."""
        await self.page.goto(url, wait_until="load")

    async def measure(self) -> dict[str, Any]:
        """Return `shift`, `longest` (milliseconds of a task) and `violations` of the policy so far."""
        observed: dict[str, Any] = await self.page.evaluate("window.observed")
        return observed

    async def find_faults(self, *, colors_only: bool = False) -> list[str]:
        """Return what the accessibility checker finds serious or critical, a line for each element.

        Args:
            colors_only: the contrast of colors alone, which is all that another scheme changes.
        """
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
        options: dict[str, object] = {"iframes": False, "resultTypes": ["violations"]}
        options |= {"runOnly": ["color-contrast"]} if colors_only else {}
        found = await self.page.evaluate("options => axe.run(document, options)", options)
        return [
            f"{each['impact']}: {each['id']}: {node['html'][:200]}: {node['failureSummary'][:200]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]

    async def tab_through(self, most: int = 200) -> list[str]:
        """Press Tab until the focus is where it began; return what had it: the id, the address or the text."""
        name = "e => e.id || e.getAttribute('href') || e.getAttribute('src') || e.innerText.slice(0, 60) || e.tagName"
        names: list[str] = []
        for _ in range(most):
            await self.page.keyboard.press("Tab")
            focused = await self.page.evaluate_handle("document.activeElement")
            if await focused.evaluate("e => e === document.body") or await focused.evaluate("e => Boolean(e.seen)"):
                break
            names.append(await focused.evaluate(name))
            await focused.evaluate("e => { e.seen = true; }")
        return names

    async def is_wider_than_window(self) -> bool:
        """True if the page could be scrolled sideways."""
        wider: bool = await self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return wider


@asynccontextmanager
async def open_page(
    browser: Browser, *, size: tuple[int, int] = SIZES[0], scheme: Scheme = "light"
) -> AsyncIterator[OpenPage]:
    """Open an empty page with cookies of its own until the block ends."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        yield await watch(context)
    finally:
        await context.close()


async def watch(context: BrowserContext, *, refuses: bool = True) -> OpenPage:
    """Open an empty page, and note what it does; what it asks of another host than 127.0.0.1 is refused."""
    context.set_default_timeout(SECONDS * 1000)
    await context.add_init_script(_WATCH)
    shown = OpenPage(await context.new_page())

    async def route(route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.hostname != "127.0.0.1" and address.scheme not in _LOCAL:
            shown.refused.append(route.request.url)
            await route.abort()
        else:
            await route.continue_()

    async def dismiss(dialog: Dialog) -> None:
        shown.dialogs.append(dialog.message)
        await dialog.dismiss()

    def note(message: ConsoleMessage) -> None:
        inside = message.location["url"] in [frame.url for frame in shown.page.frames[1:]]
        if message.type in ("error", "warning"):
            (shown.frame_complaints if inside else shown.complaints).append(message.text)

    if refuses:
        await context.route("**/*", route)
    shown.page.on("dialog", dismiss)
    shown.page.on("console", note)
    shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    shown.page.on("request", lambda request: shown.requests.append(request.url))
    shown.page.on("popup", lambda page: shown.popups.append(page.url))
    return shown
