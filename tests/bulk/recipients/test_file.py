"""The file on the disk: any block size, constant memory, the digest, and files that are none."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import tracemalloc
from contextlib import aclosing
from pathlib import Path

import pytest

from asyncsmtp.bulk.recipients.file import RecipientFile, hash_file
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient, RowRules
from asyncsmtp.errors import RecipientError

PEOPLE = (
    "\ufeffName;E-Mail;Ort\r\n"
    '"Rossi; Maria";maria@example.com;"Via ""Roma""\r\n7"\r\n'
    "\r\n"
    "Bob;bob@bücher.example;Wien\n"
    "Eve;not an address;Graz\r"
    ";;\r\n"
    "Zoë 😀;zoe@example.com;Linz"
)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "people.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


async def rows_of(file: RecipientFile, size: int = 500) -> list[Recipient | Problem]:
    return [row async for batch in file.batches(size) for row in batch]


async def test_a_file_as_people_have_it_is_read(tmp_path: Path) -> None:
    """A mark, semicolons, quoted line breaks, three kinds of line ends, no end on the last line."""
    rows = await rows_of(RecipientFile(written(tmp_path, PEOPLE)))
    assert [(row.row, row.line) for row in rows] == [(1, 2), (2, 5), (3, 6), (4, 8)]
    assert [str(row.mailbox) for row in rows if isinstance(row, Recipient)] == [
        "maria@example.com",
        "bob@xn--bcher-kva.example",
        "zoe@example.com",
    ]
    first = rows[0]
    assert isinstance(first, Recipient)
    assert dict(first.fields) == {"Name": "Rossi; Maria", "E-Mail": "maria@example.com", "Ort": 'Via "Roma"\r\n7'}
    assert [row.row for row in rows if isinstance(row, Problem)] == [3]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 64])
async def test_the_size_of_a_read_changes_nothing(tmp_path: Path, block: int) -> None:
    """What a disk returns is no boundary of anything."""
    path = written(tmp_path, PEOPLE)
    one, other = RecipientFile(path), RecipientFile(path, block=block)
    assert await rows_of(other) == await rows_of(one)
    assert await other.header() == await one.header()
    assert other.digest == one.digest


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
async def test_batches_have_the_size_asked_for_and_none_is_empty(tmp_path: Path, size: int) -> None:
    """The ledger loads them one by one."""
    file = RecipientFile(written(tmp_path, PEOPLE))
    lengths = [len(batch) async for batch in file.batches(size)]
    assert sum(lengths) == 4
    assert all(length == size for length in lengths[:-1])
    assert 0 < lengths[-1] <= size


async def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    """Nobody to mail is not an error of the file."""
    file = RecipientFile(written(tmp_path, "name,email"))
    assert await rows_of(file) == []
    assert await file.columns() == ("name", "email")


async def test_rules_set_after_the_header_was_read_hold_for_the_rows(tmp_path: Path) -> None:
    """The template is compiled against the columns, and tells what a row must have."""
    file = RecipientFile(written(tmp_path, "email,name\nbob@example.com\n"))
    assert isinstance((await rows_of(file))[0], Problem)
    file.rules = RowRules(needed=frozenset({"email"}))
    assert isinstance((await rows_of(file))[0], Recipient)


async def test_rows_have_the_renamed_columns(tmp_path: Path) -> None:
    """Also the one with the address; the heading has the file's own names."""
    path = tmp_path / "people.csv"
    path.write_bytes(b"E-Mail,name\nann@example.org,Ann\n")
    file = RecipientFile(path)
    file.renames = {"E-Mail": "email"}
    (row,) = [row async for batch in file.batches() for row in batch]
    assert isinstance(row, Recipient)
    assert dict(row.fields) == {"email": "ann@example.org", "name": "Ann"}
    assert (await file.header()).email == "E-Mail"


async def test_the_digest_is_that_of_the_octets(tmp_path: Path) -> None:
    """TF-10: the ledger compares it on resume; the mark and the line ends are part of it."""
    path = written(tmp_path, PEOPLE)
    file = RecipientFile(path)
    assert file.digest is None
    await rows_of(file)
    assert file.digest == await hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_file_that_changes_between_two_passes_is_noticed(tmp_path: Path) -> None:
    """TF-10: what was checked would not be what is sent."""
    path = written(tmp_path, PEOPLE)
    file = RecipientFile(path)
    await rows_of(file)
    path.write_bytes(path.read_bytes() + b"\nx;y@example.com;z")
    with pytest.raises(RecipientError, match="changed while it was read"):
        await rows_of(file)


async def test_a_header_that_changes_under_us_is_noticed(tmp_path: Path) -> None:
    """The cells would stand under other names."""
    path = written(tmp_path, "name,email\nb,b@example.com\n")
    file = RecipientFile(path)
    await file.header()
    path.write_text("email,name\nb@example.com,b\n")
    with pytest.raises(RecipientError, match="changed while it was read"):
        await rows_of(file)


async def test_a_pass_left_early_closes_the_file_and_claims_no_digest(tmp_path: Path) -> None:
    """Half a file has no fingerprint; an open file would be a ResourceWarning, which fails this test."""
    file = RecipientFile(written(tmp_path, PEOPLE))
    async with aclosing(file.batches(1)) as batches:
        await anext(batches)
    assert file.digest is None


async def test_an_error_comes_after_the_rows_before_it(tmp_path: Path) -> None:
    """The reader of a broken file still learns how far it was good."""
    file = RecipientFile(written(tmp_path, 'name,email\na,a@example.com\n"b,b@example.com\n'))
    async with aclosing(file.batches(1)) as batches:
        assert [row.row for row in await anext(batches)] == [1]
        with pytest.raises(RecipientError, match="line 3: row 2 opens a quote"):
            await anext(batches)


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "\0"])
def test_an_invalid_delimiter_is_refused(delimiter: str) -> None:
    """The csv module would raise a TypeError."""
    with pytest.raises(RecipientError, match="is not a valid delimiter"):
        RecipientFile("people.csv", delimiter=delimiter)


async def test_what_is_no_readable_file_is_one_sentence(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe (which would be waited for, and empty the second time), a NUL in the name."""
    os.mkfifo(tmp_path / "pipe")
    for path, told in [
        (tmp_path / "none.csv", "none.csv cannot be read: No such file or directory"),
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a file"),
        (Path("a\0b"), "cannot be read"),
    ]:
        with pytest.raises(RecipientError, match=told):
            await RecipientFile(path).header()
        with pytest.raises(RecipientError, match=told):
            await hash_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    """Rights are the second most frequent reason."""
    path = written(tmp_path, PEOPLE)
    path.chmod(0)
    with pytest.raises(RecipientError, match="cannot be read: Permission denied"):
        await RecipientFile(path).header()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
async def test_a_file_that_fails_while_it_is_read_is_one_sentence() -> None:
    """A disk breaks, a share goes away: the first page of memory stands for it."""
    with pytest.raises(RecipientError, match="the recipients /proc/self/mem cannot be read: Input/output error"):
        await hash_file("/proc/self/mem")


async def test_others_on_the_loop_get_their_turn_while_a_file_is_read(tmp_path: Path) -> None:
    """An application keeps answering; a batch of thousands of rows is not one long step."""
    file = RecipientFile(written(tmp_path, "email\n" + "".join(f"b{i}@example.com\n" for i in range(5000))))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await rows_of(file, size=5000)
    counting.cancel()
    assert turns > 5000 / 64


async def peak_memory(path: Path) -> int:
    tracemalloc.start()
    try:
        async for _ in RecipientFile(path).batches():
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """RE-06, TF-08: four times the rows, the same peak."""
    row = "Rossi,maria@example.com,Via Roma 7,Milano,2024\r\n" * 100
    small = await peak_memory(written(tmp_path, "name,email,street,city,since\n" + row * 120))
    large = await peak_memory(written(tmp_path, "name,email,street,city,since\n" + row * 480))
    assert large < 1.2 * small
    assert large < 16 * 1024 * 1024


async def test_half_a_gigabyte_behind_an_open_quote_is_refused_in_little_memory(tmp_path: Path) -> None:
    """TF-08: the quote is found missing after a megabyte, not after the file."""
    path = written(tmp_path, 'name,email\n"a,a@example.com\n')
    os.truncate(path, 500 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(RecipientError, match="line 2: row 1"):
            await rows_of(RecipientFile(path, email="email"))
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


async def test_a_header_is_used_by_another_reading(tmp_path: Path) -> None:
    """What was detected in a file is not detected again: neither the columns nor the encoding."""
    path = tmp_path / "people.csv"
    path.write_text("a title\n\nE-Mail;Name\nann@example.org;Ännchen\n", encoding="cp1252")
    first, second = (RecipientFile(path, encoding="cp1252") for _ in range(2))
    header = await first.header()
    second.share_header(first)
    assert await second.header() is header
    assert await second.columns() == ("E-Mail", "Name")
    assert [row.fields["Name"] async for batch in second.batches() for row in batch] == ["Ännchen"]


async def test_a_reading_that_is_cancelled_leaves_no_file_open(tmp_path: Path) -> None:
    """At whatever moment, also while a thread opens the file; pytest reports one that is closed by the collector."""
    path = written(tmp_path, "email\n" + "ann@example.org\n" * 200)

    async def read() -> None:
        async with aclosing(RecipientFile(path).batches()) as batches:
            async for _ in batches:
                pass

    for moment in range(60):
        reading = asyncio.create_task(read())
        await asyncio.sleep(moment / 20_000)
        reading.cancel()
        await asyncio.wait({reading})
    gc.collect()
