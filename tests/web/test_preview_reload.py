"""Live reload: a file of the campaign is saved, and the page shows it at once, with the same row."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import httpx
import pytest

from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.web.live_campaign import open_live_campaign
from asyncsmtp.web.local_app import serve_locally
from asyncsmtp.web.preview import make_preview_app
from tests.web.test_preview_page import HTML, PEOPLE, Sent, describe, part, settle, write

LIMIT = 0.3  # seconds from the saving of a file to the page that shows it, as a rule
LONGEST = 10  # seconds on a machine that is busy with other things


class Page:
    """A browser that follows the events and reads the page again, as its script does."""

    def __init__(self, client: httpx.AsyncClient, lines: AsyncIterator[str]) -> None:
        self._client = client
        self._lines = lines
        self.state: dict[str, object] = {}

    async def wait_for_event(self) -> None:
        """Wait until something has changed."""
        async with asyncio.timeout(LONGEST):
            async for line in self._lines:
                if line.startswith("data: "):
                    self.state = json.loads(line.removeprefix("data: "))
                    return
        raise AssertionError("the events have ended")

    async def settle(self) -> None:
        """Wait until all rows are checked."""
        while not self.state.get("complete"):
            await self.wait_for_event()

    async def read(self, **chosen: object) -> str:
        """Read the page."""
        answer = await self._client.get("/", params={name: str(value) for name, value in chosen.items()})
        return answer.text

    async def time_until(self, text: str, save: Callable[[], object], **chosen: object) -> float:
        """Save something; return the seconds until the page shows this text."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.to_thread(save)
        async with asyncio.timeout(LONGEST):
            while text not in await self.read(**chosen):
                await self.wait_for_event()
        return loop.time() - begun


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Page]:
    """The page of a campaign, served as the command does."""
    async with (
        open_live_campaign(path, lambda: load_config(path), describe=describe, send=Sent().send) as live,
        serve_locally(make_preview_app(live)) as url,
    ):
        base, _, token = url.partition("/?token=")
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx.AsyncClient(base_url=base, headers=headers, timeout=LONGEST) as client,
            client.stream("GET", "/events") as events,
        ):
            page = Page(client, events.aiter_lines())
            await page.settle()
            yield page
            live.end_changes()


def replace(path: Path, text: str) -> None:
    """Save as many editors do: into a new file, which takes the place of the old one."""
    new = path.with_name(f".{path.name}.swp")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def rewrite(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def keep_and_write(path: Path, text: str) -> None:
    """Save as vim does with `backupcopy=no`: the old file gets another name first."""
    path.rename(path.with_name(path.name + "~"))
    path.write_text(text, encoding="utf-8")


async def test_twenty_edits_are_shown_at_once(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Of the template, the CSV and the campaign file, saved in each way; the chosen row stays."""
    path = write(tmp_path, "email,name\n" + "".join(f"p{number}@example.org,Name {number}\n" for number in range(1000)))
    texts = {each: (tmp_path / each).read_text("utf-8") for each in ("message.html", "people.csv", "campaign.toml")}
    times = []
    async with opened(path) as page:
        for edit in range(20):
            name, word = [*texts][edit % 3], f"edit{edit}"
            text = {
                "message.html": texts[name].replace("Hello", f"Hello {word}"),
                "people.csv": texts[name].replace("Name 6\n", f"Name {word}\n"),
                "campaign.toml": texts[name].replace("News for", f"{word} for"),
            }[name]
            save = (rewrite, replace, keep_and_write)[edit // 3 % 3]
            times.append(await page.time_until(word, lambda: save(tmp_path / name, text), row=7, view="source"))  # noqa: B023
            html = await page.read(row=7)
            assert "p6@example.org" in part(html, "facts")
            assert 'data-row="7" aria-current="true"' in html
    shown = [round(1000 * each) for each in times]
    record_property("milliseconds", shown)
    print("milliseconds from the saving to the page:", shown, "median:", round(1000 * median(times)))
    assert median(times) <= LIMIT, shown


@pytest.mark.parametrize("save", [rewrite, replace, keep_and_write])
async def test_a_broken_template_and_its_repair(tmp_path: Path, save: Callable[[Path, str], None]) -> None:
    """The error with its line; then the message again, at the same row."""
    async with opened(write(tmp_path)) as page:
        template = tmp_path / "message.html"
        broken = "<p>\n{% if name %}\n<b>{{ name }</b>\n"
        taken = await page.time_until("message.html, line 3", lambda: save(template, broken), row=2)
        assert "The campaign cannot be previewed" in part(await page.read(row=2), "fault")
        taken += await page.time_until("News for Bob", lambda: save(template, HTML), row=2)
        assert part(await page.read(row=2), "fault") == ""
        assert taken < LONGEST


async def test_every_file_of_the_campaign_is_followed(tmp_path: Path) -> None:
    """Includes, also one that was missing, attachments, suppression lists; recipients of another name."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "stop.txt").write_text("", encoding="utf-8")
    (tmp_path / "files/Ann.txt").write_text("one", encoding="utf-8")
    (tmp_path / "files/terms.txt").write_text("terms", encoding="utf-8")
    html = "{% include 'parts/foot.html' %}"
    path = write(
        tmp_path,
        html=html,
        suppression='"stop.txt"',
        attachments='["files/terms.txt"]',
        optional_attachments='["files/{{ name }}.txt"]',
    )
    async with opened(path) as page:
        assert "foot.html" in part(await page.read(), "fault")
        foot = tmp_path / "parts/foot.html"
        await page.time_until("the foot", lambda: rewrite(foot, "the foot of {{ name }}"), view="source")
        await page.time_until("another", lambda: replace(foot, "another foot of {{ name }}"), view="source")
        terms = tmp_path / "files/terms.txt"
        await page.time_until("bmV3IHRlcm1z", lambda: rewrite(terms, "new terms"), view="source")
        await page.time_until("Bob.txt", lambda: rewrite(tmp_path / "files/Bob.txt", "two"), view="parts", row=2)
        stop = tmp_path / "stop.txt"
        await page.time_until("is on a suppression list", lambda: rewrite(stop, "cid@example.org\n"), row=3)
        rewrite(tmp_path / "others.csv", "email,name\nzoe@example.org,Zoe\n")
        moved = path.read_text("utf-8").replace("people.csv", "others.csv")
        await page.time_until("News for Zoe", lambda: rewrite(path, moved))
        others = tmp_path / "others.csv"
        await page.time_until("News for Zack", lambda: rewrite(others, "email,name\nzack@example.org,Zack\n"))


async def test_a_row_far_down_is_shown_while_the_others_are_checked(tmp_path: Path) -> None:
    """A template is saved: the message of row 19,999 does not wait for those before it."""
    people = "email,name\n" + "".join(f"p{number}@example.org,Name {number}\n" for number in range(20_000))
    async with opened(write(tmp_path, people)) as page:
        save = lambda: rewrite(tmp_path / "message.html", HTML.replace("Hello", "Servus"))  # noqa: E731
        taken = await page.time_until("Servus", save, row=19_999, view="source")
        assert page.state["complete"] is False
        assert taken < LONGEST
        await page.settle()
        assert page.state["checked"] == 20_000


async def test_files_of_others_in_the_folder_change_nothing(tmp_path: Path) -> None:
    """A ledger that is written, or a log: nothing is read again."""
    async with opened(write(tmp_path)) as page:
        before = page.state["version"]
        for number in range(5):
            rewrite(tmp_path / "news.ledger-wal", str(number))
            await asyncio.sleep(0.05)
        await page.time_until("Hi Ann", lambda: rewrite(tmp_path / "message.txt", "Hi {{ name }}"), view="text")
        html = await page.read()
        found = re.search(r'data-version="(\d+)"', html)
        assert found
        assert int(found[1]) <= int(str(before)) + 2  # a file may be seen empty before it is seen written


async def test_a_csv_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """In the end the page has what the file has."""
    path = write(tmp_path)
    people = tmp_path / "people.csv"
    async with opened(path) as page:
        for number in range(30):
            with people.open("a", encoding="utf-8") as file:
                file.write(f"more{number}@example.org,More {number}\n")
        async with asyncio.timeout(LONGEST):
            while "33 rows" not in part(await page.read(), "state"):
                await page.wait_for_event()
        await page.settle()
        rewrite(people, PEOPLE)
        async with asyncio.timeout(LONGEST):
            while "3 rows all can" not in part(await page.read(), "state"):
                await page.wait_for_event()


@pytest.mark.parametrize("delay", [0, 0.02, 0.1, 0.25])
async def test_it_ends_whatever_it_is_doing(tmp_path: Path, delay: float) -> None:
    """While files are read, rows are checked, or a change has just been seen; nothing of it is left."""
    people = "email,name\n" + "".join(f"p{number}@example.org,Name {number}\n" for number in range(5000))
    path = write(tmp_path, people)
    async with asyncio.timeout(6 * LONGEST):
        for saved in (False, True):
            async with open_live_campaign(path, lambda: load_config(path), describe=describe, send=Sent().send) as live:
                if saved:
                    await settle(live)
                    rewrite(tmp_path / "message.html", HTML.replace("Hello", f"Hello {delay}"))
                await asyncio.sleep(delay)
    assert not [thread for thread in threading.enumerate() if thread.name == "asyncsmtp: preview"]
