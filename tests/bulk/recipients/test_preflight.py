"""The whole file and the template before the first octet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from threading import get_ident
from typing import ClassVar

import pytest

from asyncsmtp.bulk.recipients.file import RecipientFile, hash_file
from asyncsmtp.bulk.recipients.preflight import run_preflight
from asyncsmtp.bulk.recipients.recipient import Recipient, RowRules
from asyncsmtp.errors import RecipientError, TemplateError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox

PEOPLE = (
    "name,email\n"
    "Nobody,\n"
    "Bob,bob@example.com\n"
    "Eve,eve@example.com\n"
    "Bob again,bob@EXAMPLE.com\n"
    "Odd,odd@ex\u0430mple.com\n"
    "List,a@example.com;b@example.com\n"
    "Bob,bob@example.com\n"
)


class Composer:
    """Writes the name into the content; refuses the names it is told to."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.rows: list[int | None] = []

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        self.rows.append(row)
        if fields["name"] in self.refused:
            raise RecipientError(f"“{fields['name']}” is not liked", row)
        name = " ".join(fields["name"].split())
        text = f"Message-ID: <{message_id}>\r\nDate: {date:%a, %d %b %Y %H:%M:%S %z}\r\n\r\n{name}\r\n"
        return Message(Envelope.of("news@example.org", to), Content.of(text.encode()))


def people(folder: Path, text: str = PEOPLE) -> RecipientFile:
    path = folder / "people.csv"
    path.write_text(text)
    return RecipientFile(path)


async def test_the_report_tells_what_would_happen(tmp_path: Path) -> None:
    """Every row is a recipient, a duplicate or a problem."""
    file = people(tmp_path)
    report = await run_preflight(file)
    assert (report.rows, report.recipients, report.duplicates, report.problems, report.remarks) == (7, 3, 2, 2, 1)
    assert report.repeated == ((4, 2), (7, 2))
    assert [(problem.row, problem.line) for problem in report.problem_rows] == [(1, 2), (6, 7)]
    assert [row.row for row in report.remarked] == [5]
    assert report.first is not None
    assert (report.first.row, report.sample) == (2, None)
    assert (report.header.email, report.header.guessed) == ("email", True)
    assert report.digest == file.digest == await hash_file(file.path)
    assert not report.clean


async def test_the_first_message_is_composed_and_only_that_one(tmp_path: Path) -> None:
    """A template's failure shows before anything is sent; 200,000 messages are composed once, not twice."""
    composer = Composer()
    report = await run_preflight(people(tmp_path), composer)
    assert composer.rows == [2]
    assert report.sample is not None
    assert b"".join(report.sample.content.parts).endswith(b"\r\n\r\nBob\r\n")


async def test_every_message_is_composed_when_asked(tmp_path: Path) -> None:
    """`check` may take its time."""
    composer = Composer()
    await run_preflight(people(tmp_path), composer, compose=None)
    assert composer.rows == [2, 3, 4, 5, 7]


async def test_a_conversion_is_done_in_a_thread_before_its_message_is_composed(tmp_path: Path) -> None:
    """Converting takes longer than a step of the event loop may; rows that are not composed need none."""

    class Converting(Composer):
        threads: ClassVar[list[int]] = []

        def pending_conversion(self, to: Mailbox, fields: Mapping[str, str]) -> Callable[[], None] | None:
            return (lambda: self.threads.append(get_ident())) if fields["name"] != "Eve" else None

    composer = Converting()
    await run_preflight(people(tmp_path), composer, compose=None)
    assert composer.rows == [2, 3, 4, 5, 7]
    assert get_ident() not in composer.threads
    assert len(composer.threads) == 4
    composer.threads.clear()
    await run_preflight(people(tmp_path), composer, compose=0)
    assert composer.threads == []


async def test_a_row_that_cannot_be_composed_is_a_problem_and_the_next_is_tried(tmp_path: Path) -> None:
    """One bad row says nothing of the template."""
    composer = Composer("Bob")
    report = await run_preflight(people(tmp_path), composer)
    assert composer.rows == [2, 3]
    assert report.first is not None
    assert report.first.row == 3
    assert str(report.problem_rows[1]) == "row 2 (line 3): “Bob” is not liked"
    assert report.rows == 7


async def test_a_row_with_a_control_character_in_a_cell_is_always_composed(tmp_path: Path) -> None:
    """MH-01: only the template knows whether the cell stands in a header; row 900 must not be found out at night."""
    name = "A\nBcc: z@example.com"
    odd = f'"{name}",a@example.com\n"D\rE",d@example.com\nF\x1bG,f@example.com\n'
    file = people(tmp_path, "name,email\nB,b@example.com\nC,c@example.com\n" + odd)
    composer = Composer(name)
    report = await run_preflight(file, composer)
    assert composer.rows == [1, 3, 4, 5]
    assert [problem.row for problem in report.problem_rows] == [3]
    assert report.recipients == 4


async def test_a_template_that_fails_ends_the_pre_flight(tmp_path: Path) -> None:
    """TF-04: before the first connection, with the file and line of the template."""

    class Broken(Composer):
        def compose(self, *_: object, **__: object) -> Message:
            raise TemplateError("“nmae” is unknown", "message.html", 3, "nmae")

    with pytest.raises(TemplateError, match=r"message\.html, line 3"):
        await run_preflight(people(tmp_path), Broken())


async def test_rows_may_be_checked_against_the_disk(tmp_path: Path) -> None:
    """A missing attachment of row 3 is told now, not at three in the morning."""
    (tmp_path / "Bob.pdf").touch()

    def there(row: Recipient) -> str:
        name = f"{row.fields['name']}.pdf"
        return "" if (tmp_path / name).is_file() else f"there is no attachment {name}"

    file = people(tmp_path)
    file.rules = RowRules(checks=(there,))
    report = await run_preflight(file)
    assert [problem.row for problem in report.problem_rows] == [1, 3, 4, 5, 6]
    assert report.problem_rows[1].reason == "there is no attachment Eve.pdf"


async def test_the_report_keeps_the_first_few_and_counts_all(tmp_path: Path) -> None:
    """A million problems are a number, not a list."""
    rows = "".join("x,no address\n" for _ in range(300)) + "y,b@example.com\n" * 300
    report = await run_preflight(people(tmp_path, "name,email\n" + rows), show=3)
    assert (report.problems, len(report.problem_rows)) == (300, 3)
    assert report.duplicates == 299
    assert report.repeated == ((302, 301), (303, 301), (304, 301))


async def test_a_file_that_breaks_off_is_refused_whole(tmp_path: Path) -> None:
    """Nothing is sent to its first half."""
    with pytest.raises(RecipientError, match="line 3: row 2 opens a quote that is not closed"):
        await run_preflight(people(tmp_path, 'name,email\nBob,bob@example.com\n"Eve,eve@example.com\n'))


async def test_a_clean_file_passes_strictly(tmp_path: Path) -> None:
    """`--strict` asks for a file with nothing to say about."""
    report = await run_preflight(people(tmp_path, "name,email\nBob,bob@example.com\n"))
    assert report.clean
    report.raise_for_problems()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("Bob,bob@example.com\nEve,\n", r"^row 2: “email” is blank.*\(line 3; in the whole file problems: 1, dupl"),
        ("Bob,bob@example.com\nB,bob@example.com\n", "^row 2: has the mailbox of row 1"),
        ("Odd,odd@ex\u0430mple.com\n", "^row 1: the domain of .* mixes"),
    ],
    ids=["problem", "duplicate", "remark"],
)
async def test_strictly_any_row_that_is_not_clean_is_an_error(tmp_path: Path, rows: str, told: str) -> None:
    """The first one is named, the others counted."""
    report = await run_preflight(people(tmp_path, "name,email\n" + rows))
    with pytest.raises(RecipientError, match=told):
        report.raise_for_problems()


async def test_nobody_to_mail_is_a_report_too(tmp_path: Path) -> None:
    """Whether that is an error is for the command to say."""
    report = await run_preflight(people(tmp_path, "name,email\n"), Composer())
    assert (report.rows, report.recipients, report.first, report.sample) == (0, 0, None, None)


async def test_others_on_the_loop_get_their_turn_while_messages_are_composed(tmp_path: Path) -> None:
    """Each message takes a fraction of a millisecond, and a check may compose all of them."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    rows = "".join(f"N{number},n{number}@example.com\n" for number in range(50))
    await run_preflight(people(tmp_path, f"name,email\n{rows}"), Composer(), compose=None)
    counting.cancel()
    assert turns >= 50
