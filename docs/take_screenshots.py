"""Take the pictures in docs/images with a headless Chromium: `python docs/take_screenshots.py`.

The campaign is the sample of `asyncsmtp init`, rehearsed in a folder that is removed again. Dates and times differ each
time, so no test compares the pictures.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

from asyncsmtp.cli.main import main
from asyncsmtp.testing import Maildir
from asyncsmtp.web.local_app import serve_locally
from asyncsmtp.web.mailbox import make_mailbox_app

IMAGES = Path(__file__).resolve().parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = "1100,720"
READING_TIME = 3  # seconds in which all rows are checked


def take(addresses: Mapping[str, str]) -> None:
    """Take a picture of each address, by the name of its file."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"there is no {BROWSERS[0]}: install it")
    IMAGES.mkdir(exist_ok=True)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}"]
    for name, address in addresses.items():
        picture = f"--screenshot={IMAGES / name}"
        subprocess.run([browser, *options, picture, address], check=True, capture_output=True, timeout=60)  # noqa: S603


async def take_mailbox(maildir: Path) -> None:
    """Take the pictures of the sandbox's mails."""
    *_, last = Maildir(maildir).mails()
    async with serve_locally(make_mailbox_app(maildir, "welcome")) as url:
        message = url.replace("/?", f"/messages/{last.path.name}?")
        await asyncio.to_thread(take, {"mailbox.png": url, "message.png": message})


async def take_preview(campaign: Path) -> None:
    """Take the picture of the preview, of a campaign in which not every row can be mailed."""
    recipients = campaign.parent / "people.csv"
    first, second, *others = recipients.read_text("utf-8").splitlines(keepends=True)
    recipients.write_text("".join([first, second.replace("@", "(at)", 1), *others]), encoding="utf-8")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asyncsmtp", "preview", campaign, "--no-open", "--row", "3"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert command.stdout is not None
        address = (await command.stdout.readline()).decode().strip()
        await asyncio.sleep(READING_TIME)
        await asyncio.to_thread(take, {"preview.png": address})
    finally:
        command.terminate()
        await command.wait()


def run() -> None:
    """Rehearse the sample, and take all pictures."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # so that the report has no path but demo/…
        campaign = Path("demo/campaign.toml")
        main(["init", str(campaign.parent), "--rows", "1000"])
        main(["bulk", str(campaign), "--sandbox", "--yes"])
        asyncio.run(take_mailbox(campaign.parent / "welcome.sandbox.maildir"))
        main(["report", str(campaign), "--sandbox"])
        asyncio.run(take_preview(campaign))
        take({"report.png": (campaign.parent / "welcome.sandbox.report.html").absolute().as_uri()})


if __name__ == "__main__":
    run()
