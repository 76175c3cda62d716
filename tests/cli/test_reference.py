"""docs/reference says what the program does: every option, key, exit code, and field of its output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from asyncsmtp.bulk.setup.config import KEYS, SECTIONS
from asyncsmtp.bulk.setup.config_types import declared_keys
from asyncsmtp.cli.main import COMMANDS, load_command
from asyncsmtp.cli.output import formats
from asyncsmtp.cli.output.error_messages import ExitCode
from asyncsmtp.testing import Stage
from asyncsmtp.testing.plugin import RelayInThread
from docs import list_commands, list_settings
from tests.cli.ended import Command
from tests.cli.test_webhook import hooking

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one of its level."""
    level = heading.partition(" ")[0]
    assert f"\n{heading}\n" in text, heading
    return text.split(f"\n{heading}\n")[1].split(f"\n{level} ")[0]


def fields(heading: str) -> list[str]:
    """Return the fields in the table below a heading of the page about output."""
    return re.findall(r"^\| `(\w+)` \|", section(page("output.md"), f"## {heading}"), re.MULTILINE)


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_page_of_commands_is_the_program_s_own() -> None:
    """Run docs/list_commands.py."""
    assert page("commands.md") == list_commands.page()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page(name: str) -> None:
    """With its spelling, below its command; hidden ones are not for people."""
    text = section(page("commands.md"), f"## asyncsmtp {name}")
    options = [each for each in load_command(name).params if isinstance(each, click.Option) and not each.hidden]
    assert [opt for each in options for opt in each.opts if f"`{opt}`" not in text] == []
    assert all(each.help for each in options)


def test_every_key_is_on_the_page() -> None:
    """Those of the sections, and those of the tables that may be there several times."""
    for name, key in KEYS.items():
        heading, _, last = name.rpartition(".")
        text = section(page("settings.md"), f"## [{heading or name}]")
        assert f"| `{last}` |" in text if heading else key.help in text, name
    for name, made in list_settings.TABLES.items():
        text = section(page("settings.md"), f"## [{name}]")
        assert [key for key in declared_keys(made) if f"| `{key.rpartition('.')[2]}` |" not in text] == []
    assert re.findall(r"^## \[(\w+)\]$", page("settings.md"), re.MULTILINE) == list(SECTIONS)


def test_every_exit_code_is_on_the_page() -> None:
    """And no other."""
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page("exit-codes.md"), re.MULTILINE)} == set(ExitCode)


@pytest.mark.smtp_relay({Stage.RCPT: {2: "550 5.1.1 no such user"}})
def test_fields_of_bulk_results_status_and_list(command: Command, campaign: Path, smtp_relay: RelayInThread) -> None:
    """Of a run in which one of three is refused."""
    ended = command("bulk", campaign, "--relay", smtp_relay.url, "--yes", "--json")
    found = records(ended.out)
    assert [list(record) for record in found] == [fields("bulk --json")] * 3
    assert {record["state"] for record in found} == {"accepted", "rejected"}
    found = records(command("results", campaign, "--json").out)
    assert [list(record) for record in found] == [[*fields("results --json")[:-1]]] * 3
    [failed] = records(command("results", campaign, "--json", "--failed").out)
    assert list(failed) == fields("results --json")
    assert command("results", campaign).out.splitlines()[0] == ",".join(fields("results --json")[:-1])
    [status] = records(command("status", campaign, "--json").out)
    states = page("output.md").split("The states are ")[1].split(".\n")[0]
    assert list(status) == re.findall("`(.+?)`", states)
    [listed] = records(command("list", campaign.parent, "--json").out)
    assert list(listed) == fields("list --json")


def test_fields_of_send_and_check(command: Command, campaign: Path, smtp_relay: RelayInThread) -> None:
    """Of one message, of a relay, and of a campaign with objections."""
    letter = ("--from", "a@example.org", "--to", "b@example.org", "--subject", "x", "--text", "y")
    [sent] = records(command("send", "--relay", smtp_relay.url, *letter, "--json").out)
    assert list(sent) == fields("send --json")
    text = section(page("output.md"), "## check --json")
    ended = command(
        *("check", "--relay", smtp_relay.url, "--json", "--quit-after", "rcpt", "--to", "b@example.org"),
        *("--from", "a@example.org"),
    )
    [facts] = records(ended.out)
    assert {*facts} <= {*re.findall(r"`(\w+)`", text)}
    findings = records(command("check", campaign, "--json").out)
    assert findings
    assert all(list(record) == fields("check --json") for record in findings)
    assert {record["weight"] for record in findings} <= {"objection", "note"}


def test_fields_of_a_suppression_list(command: Command) -> None:
    command("suppress", "list.db", "ann@example.org", "--reason", "asked")
    [entry] = records(command("suppress", "list.db", "--json").out)
    assert list(entry) == fields("suppress --json")


def test_fields_of_the_webhook(command: Command, campaign: Path, smtp_relay: RelayInThread) -> None:
    """What a server gets is not what --json prints: the number of the attempt has another name."""
    with hooking() as hook:
        command("bulk", campaign, "--relay", smtp_relay.url, "--webhook", hook.url, "--yes")
    assert [list(record) for record in hook.posted] == [fields("The webhook")] * 3


def test_the_columns_of_results_have_their_names_from_one_place() -> None:
    assert fields("results --json")[:-1] == list(formats.COLUMNS)
