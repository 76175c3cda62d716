"""`suppress_rejected`: whom the relay refuses as unknown is put on the list, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import Entry, RowState
from asyncsmtp.bulk.running.refused import BATCH_SIZE, find_list, suppress_after_run, suppress_refused
from asyncsmtp.bulk.suppression import SuppressionList
from asyncsmtp.errors import ConfigError, LedgerError


def refused(
    row: int, code: int | None = 550, status: str | None = "5.1.1", reply: str = "no such user", host: str = "mx:25"
) -> Entry:
    return Entry(row, f"r{row}@x.example", "id@x", RowState.REJECTED, 1, 0, code, status, reply, host, None, None, {})


class Rows:
    """What is asked of a ledger here: rejected rows, and those of a halted run."""

    def __init__(self, entries: Iterable[Entry], halted: Iterable[int] = (), error: Exception | None = None) -> None:
        self.rows = list(entries)
        self.halted = frozenset(halted)
        self.error = error

    async def halted_rows(self) -> frozenset[int]:
        return self.halted

    async def entries(self, states: Iterable[RowState]) -> AsyncGenerator[Entry]:
        assert list(states) == [RowState.REJECTED]
        for entry in self.rows:
            yield entry

    async def flush(self) -> None:
        if self.error is not None:
            raise self.error


async def suppressed(folder: Path, *entries: Entry, halted: Iterable[int] = ()) -> dict[str, str]:
    """Addresses and reasons on the list afterwards; the number that is returned is theirs."""
    path = folder / "gone.db"
    SuppressionList(path).create()
    added = await suppress_refused(Rows(entries, halted), [folder / "people.txt", path])  # type: ignore[arg-type]
    found = {each.address: each.reason for each in SuppressionList(path).entries()}
    assert added == len(found)
    return found


async def test_who_is_refused_as_unknown_is_on_the_list(tmp_path: Path) -> None:
    """With the more exact code of the words; by the words where there is no code."""
    found = await suppressed(
        tmp_path, refused(1), refused(2, 550, None, "user unknown"), refused(3, 550, "5.0.0", "550 5.1.1 user unknown")
    )
    assert found == {
        "r1@x.example": "rejected: 5.1.1",
        "r2@x.example": "rejected: 550",
        "r3@x.example": "rejected: 5.1.1",
    }


async def test_who_is_refused_for_another_reason_is_not(tmp_path: Path) -> None:
    """A policy, a full mailbox, a problem of the file, a relay that was refusing everyone."""
    found = await suppressed(
        tmp_path,
        refused(1, 550, "5.7.1", "blocked"),
        refused(2, 552, "5.2.2", "mailbox full"),
        refused(3, None, None, "550 5.1.1 no such user"),
        refused(4, host=""),
        refused(5),
        halted=[5],
    )
    assert found == {}


@pytest.mark.parametrize("number", [BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 2 * BATCH_SIZE])
async def test_they_are_added_a_thousand_at_a_time(tmp_path: Path, number: int) -> None:
    assert len(await suppressed(tmp_path, *map(refused, range(number)))) == number


async def test_what_fails_is_told_and_left_to_the_next_run(tmp_path: Path) -> None:
    """The result of the run is not lost for it."""
    said: list[str] = []
    path = tmp_path / "gone.db"
    SuppressionList(path).create()
    rows = Rows([refused(1)], error=LedgerError("the disk is full"))
    await suppress_after_run(rows, [path], said.append)  # type: ignore[arg-type]
    assert said == ["suppress_rejected: the disk is full; the next run does it"]
    assert list(SuppressionList(path).entries()) == []
    await suppress_after_run(Rows([refused(1)]), [path], said.append)  # type: ignore[arg-type]
    assert len(list(SuppressionList(path).entries())) == len(said) == 1


def test_a_list_of_text_is_left_to_people() -> None:
    assert find_list([Path("a.txt"), Path("b.db"), Path("c.db")]) == Path("b.db")
    for lists in ([], [Path("a.txt")]):
        with pytest.raises(ConfigError, match="needs a suppression list that is no text file") as caught:
            find_list(lists)
        assert "asyncsmtp suppress suppressed.db --create" in caught.value.advice
