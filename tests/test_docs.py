"""The pages in docs/ are true: tables are those of the code, and links have a target."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

import asyncsmtp
from asyncsmtp.cli.main import COMMANDS, load_command
from docs import list_api, list_man, list_providers, list_settings
from docs.draw_states import PAGE, page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def test_the_page_of_states_is_the_machine_s_own() -> None:
    """Tables written by hand are wrong after the first change: run docs/draw_states.py."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_page_of_public_names_is_the_package_s_own() -> None:
    """It lists the public names and the first lines of their docstrings: run docs/list_api.py."""
    assert list_api.PAGE.read_text(encoding="utf-8") == list_api.page()


def test_the_page_of_settings_is_the_schema_s_own() -> None:
    """A new key would be missing from a page written by hand: run docs/list_settings.py."""
    assert list_settings.PAGE.read_text(encoding="utf-8") == list_settings.page()


def test_the_manual_page_is_the_command_s_own() -> None:
    """An option that was added would be missing from a page written by hand: run docs/list_man.py."""
    page = list_man.PAGE.read_text(encoding="utf-8")
    assert page == list_man.page()
    for name in COMMANDS:
        section = page.split(f'.SH "ASYNCSMTP {name.upper()}"')[1].split("\n.SH ")[0]
        for option in load_command(name).params:
            if isinstance(option, click.Option) and not option.hidden:
                names = [each.replace("-", r"\-") for each in option.opts]
                assert all(rf"\fB{name}\fR" in section for name in names), names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_public_names_in_the_text_are_there(page: Path) -> None:
    """`asyncsmtp.Relay.of(…)` was never a name; blocks are run, but not what stands in a sentence."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`(?:await )?(asyncsmtp(?:\.\w+)+)\(", prose):
        found: object = asyncsmtp
        for part in name.split(".")[1:]:
            assert hasattr(found, part), name
            found = getattr(found, part)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_manual_page_is_rendered_without_a_warning() -> None:
    """What stands on it is what the help says, not what roff makes of its characters."""
    words = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-P-c", "-P-b", "-P-u", str(list_man.PAGE)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    text = " ".join(ended.stdout.split())
    assert "--relay URL" in text
    assert "'Example News <news@example.org>'" in text
    assert "asyncsmtp bulk demo/campaign.toml --sandbox" in text


def test_the_page_of_providers_is_the_data_s_own() -> None:
    """A provider or a refusal without its row helps nobody who looks for it: run docs/list_providers.py."""
    assert list_providers.PAGE.read_text(encoding="utf-8") == list_providers.page()


@pytest.mark.parametrize("policy", ["MTA-STS (RFC 8461)", "DANE (RFC 7672)", "SSLKEYLOGFILE"])
def test_the_pages_say_what_is_left_to_others(policy: str) -> None:
    """TL-12, TL-13, TL-15: a user who needs one of them reads what to use instead."""
    section = (DOCS / "howto" / "operating.md").read_text(encoding="utf-8").split("## What is left to a mail server")[1]
    assert policy in section.split("\n## ")[0]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """A link to a page that was removed leads to an error."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    missing = [link for link in LINK.findall(text) if not (path.parent / link).exists()]
    assert missing == []


def test_the_files_named_in_how_it_works_exist() -> None:
    """Each path is below asyncsmtp/; a file that was moved sends its readers to nothing."""
    named = re.findall(r"`([a-z_/]+\.py)`", (DOCS / "explanation" / "how-it-works.md").read_text(encoding="utf-8"))
    places = [ROOT if name.startswith("tests/") else ROOT / "asyncsmtp" for name in named]
    assert len(named) > 8
    assert [name for name, place in zip(named, places, strict=True) if not (place / name).exists()] == []


@pytest.mark.parametrize("standard", ["MTA-STS", "DANE"])
def test_what_is_left_to_a_mail_server_is_said(standard: str) -> None:
    """TL-12, TL-13: delivery to an MX needs them, and asyncsmtp does not deliver to an MX."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [said] = [paragraph for paragraph in readme.split("\n\n") if standard in paragraph]
    assert "make it the relay" in said
    assert not [path for path in (ROOT / "asyncsmtp").rglob("*.py") if standard in path.read_text(encoding="utf-8")]
