"""Suppression lists: who is on one gets nothing, in whatever spelling, and however late he was put there."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncsmtp.bulk.ledger import suppression_list
from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.running import scheduler
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.bulk.suppression import (
    Suppressed,
    SuppressionList,
    erase_from_text_list,
    export_entries,
    format_line,
    import_entries,
    parse_key,
    read_text_list,
)
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import RecipientError, SuppressionError
from tests.bulk.ledger.ledgers import batches, claim_all, deferred, entries, recipient
from tests.bulk.running.test_runner import Plain
from tests.bulk.running.test_scheduler import Noting

NAMES = [
    "ann@example.com",
    "Dan@example.com",
    "bob@EXAMPLE.com",
    "cid@example.net",
    "d@b\u00fccher.example",
    "e@example.org",
]


async def opened(folder: Path, *lists: Path) -> SqliteLedger:
    ledger = await SqliteLedger.open(folder / "news.ledger", name="news", from_domain="example.org", suppressions=lists)
    if not ledger.loaded:
        await ledger.load(batches([recipient(n, name) for n, name in enumerate(NAMES, 1)]))
    return ledger


def listed(path: Path, *addresses: str, reason: str = "") -> Path:
    """A list, in a database or in a file of text as its name says."""
    if path.suffix == ".txt":
        path.write_text("\n".join(addresses) + "\n", encoding="utf-8")
    else:
        kept = SuppressionList(path)
        kept.create()
        kept.add([Suppressed(address, reason) for address in addresses])
    return path


@pytest.mark.parametrize("name", ["no.db", "no.txt"])
@pytest.mark.parametrize(
    ("entry", "rows"),
    [
        ("ann@example.com", [1]),
        ("Ann@EXAMPLE.COM", [1]),
        ("dan@example.com", [2]),
        ("bob@example.com", [3]),
        ("@Example.com", [1, 2, 3]),
        ("d@xn--bcher-kva.example", [5]),
        ("@b\u00fccher.example", [5]),
        ("@ample.com", []),
        ("nobody@example.com", []),
    ],
)
async def test_an_entry_means_its_mailbox_in_every_spelling(
    tmp_path: Path, name: str, entry: str, rows: list[int]
) -> None:
    """TF-11, FT-02: in either case, with needless quotes, by A-labels; a domain is whole."""
    async with await opened(tmp_path, listed(tmp_path / name, entry)) as ledger:
        assert await ledger.suppress() == len(rows)
        assert [found.row for found in await entries(ledger, RowState.SUPPRESSED)] == rows
        assert (await ledger.counts())[RowState.SUPPRESSED] == len(rows)
        assert len(await claim_all(ledger)) == len(NAMES) - len(rows)


@pytest.mark.parametrize("name", ["no.db", "no.txt"])
async def test_who_is_suppressed_while_a_campaign_runs_gets_nothing(tmp_path: Path, name: str) -> None:
    """BL-22: the list is looked at in the transaction that claims."""
    path = listed(tmp_path / name, "somebody@example.com")
    async with await opened(tmp_path, path) as ledger:
        assert await ledger.suppress() == 0
        assert [claim.recipient.row for claim in await ledger.claim(1)] == [1]
        listed(path, "somebody@example.com", "cid@example.net")
        assert [claim.recipient.row for claim in await claim_all(ledger)] == [2, 3, 5, 6]
        (entry,) = await entries(ledger, RowState.SUPPRESSED)
        assert (entry.row, entry.attempts, entry.reply) == (4, 0, "on a suppression list")


async def test_a_deferred_row_that_is_suppressed_is_not_tried_again(tmp_path: Path) -> None:
    """BL-22: who unsubscribes while he is greylisted does not get the mail after all; the reason says why."""
    path = listed(tmp_path / "no.db")
    async with await opened(tmp_path, path) as ledger:
        (claim,) = await ledger.claim(1)
        ledger.settle(deferred(claim, datetime.now(UTC)))
        SuppressionList(path).add([Suppressed("ann@example.com", "unsubscribed \x1b[31m")])
        assert 1 not in [claim.recipient.row for claim in await claim_all(ledger)]
        (entry,) = await entries(ledger, RowState.SUPPRESSED)
        assert (entry.attempts, entry.reply) == (1, "on a suppression list: unsubscribed \\x1b[31m")
        assert (await ledger.counts())[RowState.DEFERRED] == 0


async def test_a_row_in_flight_is_not_suppressed_under_its_own_feet(tmp_path: Path) -> None:
    """What is in hand is answered and settled; the list speaks of what is to come."""
    path = listed(tmp_path / "no.db")
    async with await opened(tmp_path, path) as ledger:
        pool = Noting()
        listed(path, "e@example.org")
        await Run(Plain(), ledger, pool, retry=Retry()).run()
        assert len(pool.domains) == 5
        assert Counter(entry.state for entry in await entries(ledger)) == {RowState.ACCEPTED: 5, RowState.SUPPRESSED: 1}


async def test_several_lists_count_together_and_each_row_once(tmp_path: Path) -> None:
    lists = [
        listed(tmp_path / "a.db", "ann@example.com", "cid@example.net", reason="unsubscribed"),
        listed(tmp_path / "b.db", "ann@example.com"),
        listed(tmp_path / "c.txt", "ann@example.com", "@example.org"),
    ]
    async with await opened(tmp_path, *lists) as ledger:
        assert await ledger.suppress() == 3
        assert await ledger.suppress() == 0


async def test_a_list_that_breaks_while_a_campaign_runs_keeps_its_entries(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A text editor that writes half a line must not unsuppress anybody."""
    path = listed(tmp_path / "no.txt", "cid@example.net")
    async with await opened(tmp_path, path) as ledger:
        path.write_text("cid@example.net\nnot an address\n", encoding="utf-8")
        assert 4 not in [claim.recipient.row for claim in await ledger.claim(4)]
        path.unlink()
        assert len(await claim_all(ledger)) == 2
    assert "its former entries are kept" in caplog.text


@pytest.mark.parametrize(
    ("name", "octets", "said"),
    [
        ("no.txt", None, "there is no suppression list .*no.txt"),
        (
            "a@x.example",
            None,
            "is a file, and a@x.example is an address: asyncsmtp suppress suppressed.db a@x.example --create",
        ),
        (
            "no.db",
            None,
            "there is no suppression list .*no.db: correct its name, or create it: asyncsmtp suppress .*no.db --create",
        ),
        ("no.txt", b"ann@example.com\nbob\n", "no.txt, line 2: .*: correct the line"),
        ("no.txt", b"\xff\xfea\0", "cannot be read"),
        ("no.db", b"x" * 4096, "cannot be used"),
    ],
)
async def test_a_list_that_cannot_be_used_sends_nothing(
    tmp_path: Path, name: str, octets: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if octets is not None:
        path.write_bytes(octets)
    with pytest.raises(SuppressionError, match=said):
        await opened(tmp_path, path)


async def test_a_database_of_something_else_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "no.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE people (name)")
    for use in (
        lambda: SuppressionList(path).check(),
        lambda: SuppressionList(path).add([Suppressed("a@example.com")]),
    ):
        with pytest.raises(SuppressionError, match="is a database, but not a suppression list: choose another name"):
            use()


def test_a_list_is_its_owner_s_alone_and_tells_what_is_new(tmp_path: Path) -> None:
    """BL-24 holds for it too."""
    kept = SuppressionList(tmp_path / "no.db")
    assert kept.add([Suppressed("ann@example.com", "one"), Suppressed("@example.net")]) == 2
    assert kept.add([Suppressed("ann@EXAMPLE.com", "two"), Suppressed("bob@example.com")]) == 1
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert kept.entries() == [
        Suppressed("@example.net"),
        Suppressed("ann@example.com", "one"),
        Suppressed("bob@example.com"),
    ]
    assert kept.remove(["ann@example.com", "who@example.com"]) == 1
    with pytest.raises(RecipientError):
        kept.add([Suppressed("cid@example.com"), Suppressed("nobody")])
    assert len(kept.entries()) == 2


def test_a_file_of_text_may_be_a_csv_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "no.csv"
    path.write_text(
        '\ufeffemail,reason\n\n# left\nann@example.com,"bounced, twice"\n @example.net \n', encoding="utf-8"
    )
    assert list(read_text_list(path)) == [Suppressed("ann@example.com", "bounced, twice"), Suppressed("@example.net")]


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b'# left\nann@example.com,"wrote: never again\nbob@example.com,moved\n', "line 2: a quote is opened and not "),
        (b'ann@example.com\r\n\r\nbob@example.com,"a\r\nb"\r\n', "line 3: a quote is opened and not closed: close it"),
        (b'ann@example.com,"never" again\n', "line 1: text follows a closing quote: write a quote inside quotes twice"),
        (b'ann@example.com\n"bob@example.com', "line 2: a quote is opened and not closed"),
        (b"ann@example.com," + b"x" * 200_000, "line 1: .*field limit.*: shorten the line"),
    ],
)
async def test_a_quote_hides_nobody_who_is_listed_behind_it(tmp_path: Path, octets: bytes, said: str) -> None:
    """Each line stands for itself; a list of which some would be let through is not used at all."""
    path = tmp_path / "no.csv"
    path.write_bytes(octets)
    with pytest.raises(SuppressionError, match=f"no.csv, {said}"):
        await opened(tmp_path, path)


def test_a_reason_in_a_file_of_text_is_harmless_and_short(tmp_path: Path) -> None:
    """It is shown by `status` and `results`, as one in a database is."""
    path = tmp_path / "no.csv"
    path.write_text(f"ann@example.com,\x1b[31mgone\nbob@example.com,{'x' * 1000}\n", encoding="utf-8")
    red, long = read_text_list(path)
    assert red.reason == "\\x1b[31mgone"
    assert len(long.reason) == 200


ADDRESSES = st.sampled_from(
    [
        *("@example.edu", "+x@example.com", "'+x@example.com", "''=x@example.com", "-@example.com", "=a@example.com"),
        *("#x@example.com", '"a, b"@example.com', '"#"@example.com', "o'hara@example.com", "'@example.edu"),
        *("@b\u00fccher.example", "ann@EXAMPLE.com"),
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ADDRESSES, st.text("'=+-@#,\"\t\r\n a\x1b\xa0", max_size=8)), unique_by=lambda one: one[0]))
def test_a_list_that_was_printed_is_the_same_list(tmp_path: Path, given: list[tuple[str, str]]) -> None:
    """Nobody who is on it is let through by way of the file, whatever his address or the reason begins with."""
    kept = SuppressionList(tmp_path / f"{uuid4()}.db")
    kept.add([Suppressed(*one) for one in given])
    path = tmp_path / "printed.csv"
    path.write_text("".join(f"{line}\n" for line in ["address,reason", *map(format_line, kept.entries())]), "utf-8")
    assert list(read_text_list(path)) == kept.entries()


def test_a_list_from_a_spreadsheet_has_its_domains(tmp_path: Path) -> None:
    """An apostrophe before what a spreadsheet takes for a formula is none of the address."""
    path = tmp_path / "no.csv"
    path.write_text("'@example.edu,'=left\n '+x@example.com\n", encoding="utf-8")
    assert list(read_text_list(path)) == [Suppressed("@example.edu", "=left"), Suppressed("+x@example.com")]


@pytest.mark.parametrize("microsecond", [1, 999_999, 123_457])
def test_the_time_of_an_entry_is_exact_to_the_microsecond(tmp_path: Path, microsecond: int) -> None:
    """A float of seconds since 1970 has fewer digits."""
    at = datetime(2286, 11, 20, 17, 46, 39, microsecond, tzinfo=UTC)
    path = tmp_path / "gone.db"
    SuppressionList(path).add([Suppressed("ann@example.com")], at)
    with closing(sqlite3.connect(path)) as connection:
        ((us,),) = connection.execute("SELECT at_us FROM suppression").fetchall()
    assert us == 9_999_999_999 * 1_000_000 + microsecond


@pytest.mark.parametrize("name", ["no.db", "no.txt"])
@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ("bob@example.com", "Bob@example.com"),
        ("Jose\u0301@example.com", "jos\u00e9@example.com"),
        ("jos\u00e9@example.com", "JOSE\u0301@example.com"),
        ("@bu\u0308cher.example", "ann@B\u00dcCHER.example"),
    ],
)
async def test_who_is_listed_is_not_mailed_in_another_spelling(tmp_path: Path, name: str, entry: str, row: str) -> None:
    """FT-02: at the claim, which looks at the row's own address, and before."""
    path = listed(tmp_path / name)
    ledger = await SqliteLedger.open(tmp_path / "l.ledger", name="n", from_domain="example.org", suppressions=[path])
    async with ledger:
        await ledger.load(batches([recipient(1, row), recipient(2)]))
        listed(path, entry)
        assert [claim.recipient.row for claim in await claim_all(ledger)] == [2]
        assert await ledger.suppress() == 0
    ledger = await SqliteLedger.open(tmp_path / "m.ledger", name="m", from_domain="example.org", suppressions=[path])
    async with ledger:
        await ledger.load(batches([recipient(1, row), recipient(2)]))
        assert await ledger.suppress() == 1


def test_an_entry_is_removed_in_any_spelling(tmp_path: Path) -> None:
    """FT-02: with needless quotes as well; a second spelling is no second entry."""
    kept = SuppressionList(tmp_path / "no.db")
    spellings = ["Bob@example.com", "bob@EXAMPLE.com", '"bob"@example.com', '"b\\ob"@example.com']
    assert kept.add(map(Suppressed, spellings)) == 1
    assert kept.entries() == [Suppressed("Bob@example.com")]
    assert kept.remove(["BOB@example.com"]) == 1
    assert kept.entries() == []


def test_quotes_alone_do_not_stand_for_a_domain(tmp_path: Path) -> None:
    """FT-02: `""@example.com` is an address, of which nothing is left without its quotes."""
    kept = SuppressionList(tmp_path / "no.db")
    kept.add([Suppressed('""@example.com')])
    assert kept.reasons(["@example.com", '""@example.com']) == {'""@example.com': ""}


def old_list(path: Path, *rows: tuple[str, str, str]) -> SuppressionList:
    """A list as asyncsmtp 0.1.0 made it: key, address and reason, in the order of their times."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE suppression (key TEXT PRIMARY KEY, address TEXT NOT NULL, reason TEXT NOT NULL,"
            " at_us BIGINT NOT NULL) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA application_id = {0x61535550}")
        rows_at = [(*row, at) for at, row in enumerate(rows)]
        connection.executemany("INSERT INTO suppression VALUES (?, ?, ?, ?)", rows_at)
    return SuppressionList(path)


OLD = [
    ("Bob@example.com", "Bob@EXAMPLE.com", "first"),
    ("bob@example.com", "bob@example.com", "second"),
    ("@example.net", "@example.net", ""),
    ("jose\u0301@example.com", "jose\u0301@example.com", ""),
]


@pytest.mark.parametrize("use", ["reasons", "entries", "add", "remove", "check"])
def test_an_older_list_is_upgraded_by_whatever_opens_it(tmp_path: Path, use: str) -> None:
    """FT-02: of two spellings the first has the reason; nobody is lost."""
    kept = old_list(tmp_path / "no.db", *OLD)
    if use == "reasons":
        assert kept.reasons(["bob@example.com"]) == {"bob@example.com": "first"}
    elif use == "add":
        assert kept.add([Suppressed("BOB@example.com", "third")]) == 0
    elif use == "remove":
        assert kept.remove(["nobody@example.com"]) == 0
    else:
        getattr(kept, use)()
    assert kept.reasons(["bob@example.com", "jos\u00e9@example.com", "@example.net"]) == {
        "bob@example.com": "first",
        "jos\u00e9@example.com": "",
        "@example.net": "",
    }
    assert kept.remove(["bOb@example.com"]) == 2, "both spellings"
    assert kept.reasons(["bob@example.com"]) == {}


def test_an_older_program_finds_whom_it_found_before(tmp_path: Path) -> None:
    """FT-02: version 0.1.0 may still run a campaign. Its entries would have no key of today: it cannot add any."""
    kept = old_list(tmp_path / "no.db", *OLD)
    kept.add([Suppressed("Ann@example.com", "new")])
    with closing(sqlite3.connect(kept.path)) as connection:
        found = connection.execute("SELECT key, reason FROM suppression ORDER BY at_us").fetchall()
        assert found == [*((key, reason) for key, _, reason in OLD), ("Ann@example.com", "new")]
        with pytest.raises(sqlite3.OperationalError, match="5 columns but 4 values"):
            connection.execute("INSERT INTO suppression VALUES ('x@example.com', '', '', 0) ON CONFLICT DO NOTHING")


def test_an_upgrade_that_is_interrupted_leaves_the_older_list(tmp_path: Path) -> None:
    """FT-02: it is one transaction."""
    kept = old_list(tmp_path / "no.db", *OLD)
    with closing(sqlite3.connect(kept.path)) as connection:
        stop = "BEFORE UPDATE ON suppression WHEN old.key LIKE 'jos%' BEGIN SELECT RAISE(ABORT, 'stopped'); END"
        connection.execute(f"CREATE TRIGGER stop {stop}")
        with pytest.raises(SuppressionError, match="stopped"):
            kept.check()
        assert len(connection.execute("SELECT * FROM suppression").fetchall()[0]) == 4
        connection.execute("DROP TRIGGER stop")
    assert kept.reasons(["bob@example.com"]) == {"bob@example.com": "first"}


def test_a_list_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """FT-02: its keys may mean something else."""
    kept = SuppressionList(tmp_path / "no.db")
    kept.create()
    with closing(sqlite3.connect(kept.path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(SuppressionError, match=r"no\.db is of a newer asyncsmtp \(schema 3\): upgrade asyncsmtp"):
        kept.reasons(["ann@example.com"])


def test_an_older_list_that_cannot_be_written_stops_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-02: it is not read by other keys than its own. Opened read-only, as without the right to write."""
    kept = old_list(tmp_path / "no.db", *OLD)
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda place, **named: connect(place.replace("mode=rw", "mode=ro"), **named)
    )
    with pytest.raises(SuppressionError, match=r"cannot be written to be upgraded: run this once as its owner: asyncs"):
        kept.check()


TEXT = st.text("aBbZz\u00df\u0130\u0131\u00e9E\u0301\u03a3\u03c2\u1e9e\u01c4\u212b\u13a0\uab70", min_size=1, max_size=8)


@given(TEXT)
@pytest.mark.slow
def test_a_key_is_the_key_of_all_its_spellings(local: str) -> None:
    """FT-02: idempotent, whatever the letters; each normal form and each case has the same one."""
    key = parse_key(f"{local}@example.com")
    assert parse_key(key) == key
    for form in ("NFC", "NFD"):
        assert parse_key(f"{unicodedata.normalize(form, local)}@example.com") == key
    assert parse_key(f"{local.casefold()}@example.com") == key


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Neither half a file nor a temporary one; a file that is no export is not replaced."""
    path = tmp_path / "gone.csv"
    export_entries([Suppressed("ann@example.org", "bounced")], path)
    before = path.read_bytes()
    assert before.startswith(b"address,reason\nann@example.org,")

    def broken() -> Iterator[Suppressed]:
        yield Suppressed("bob@example.org")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_entries(broken(), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["gone.csv"]
    export_entries([Suppressed("bob@example.org")], path)
    assert b"bob@example.org" in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "people.csv").write_text("email,name\n", encoding="utf-8")
    with pytest.raises(SuppressionError, match=r"people\.csv is not an exported list: choose another name"):
        export_entries([], tmp_path / "people.csv")
    with pytest.raises(SuppressionError, match="cannot be written: No such file or directory: choose another place"):
        export_entries([], tmp_path / "nowhere" / "gone.csv")


def test_a_list_is_created_once(tmp_path: Path) -> None:
    """Its owner's alone; where it cannot be, that is one sentence."""
    path = tmp_path / "gone.db"
    SuppressionList(path).create()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    SuppressionList(path).add([Suppressed("ann@example.org")])
    SuppressionList(path).create()
    assert len(SuppressionList(path).entries()) == 1
    with pytest.raises(SuppressionError, match="cannot be created: No such file or directory: choose another"):
        SuppressionList(tmp_path / "nowhere" / "gone.db").create()


def test_an_import_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that size is read; of one more byte it is told to import it in parts."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"email\nann@example.org\n")
    size = path.stat().st_size
    monkeypatch.setattr(suppression_list, "MAX_IMPORT", size)
    assert [each.address for each in import_entries(path)[0]] == ["ann@example.org"]
    monkeypatch.setattr(suppression_list, "MAX_IMPORT", size - 1)
    with pytest.raises(SuppressionError, match=r"in\.csv has more than 0 MiB: import it in parts"):
        import_entries(path)


# Entries of people whose data was removed: a hash in place of the address.

ANN_HASH = "sha256:" + hashlib.sha256(b"ann@example.com").hexdigest()


@pytest.mark.parametrize("name", ["no.db", "no.txt"])
@pytest.mark.parametrize("spelling", ["ann@example.com", "ANN@Example.com", '"ann"@example.com'])
async def test_a_hash_suppresses_whose_address_it_was(tmp_path: Path, name: str, spelling: str) -> None:
    """In a database and in a file of text; and nobody else."""
    entry = spelling if name == "no.db" else format_line(Suppressed(spelling))
    path = listed(tmp_path / name, entry, "bob@example.com", reason="asked by Ann@example.com")
    if name == "no.db":
        assert SuppressionList(path).erase("Ann@example.com", dry_run=True) == 1
        assert SuppressionList(path).erase("Ann@example.com") == 1
        assert SuppressionList(path).erase("Ann@example.com") == 0
    else:
        assert erase_from_text_list(path, "Ann@example.com") == 1
        assert list(read_text_list(path)) == [Suppressed(ANN_HASH), Suppressed("bob@example.com")]
    assert b"ann" not in path.read_bytes().lower()
    async with await opened(tmp_path, path) as ledger:
        assert await ledger.suppress() == 2
        assert [found.row for found in await entries(ledger, RowState.SUPPRESSED)] == [1, 3]


def test_a_hash_goes_from_list_to_list(tmp_path: Path) -> None:
    """By export and import, and by a file of text as it is."""
    first, second = listed(tmp_path / "a.db", "ann@example.com", reason="unsubscribed"), tmp_path / "b.db"
    SuppressionList(first).erase("ann@example.com")
    export_entries(SuppressionList(first).entries(), tmp_path / "all.csv")
    found, left_out = import_entries(tmp_path / "all.csv")
    assert (found, left_out) == ([Suppressed(ANN_HASH, "unsubscribed")], [])
    SuppressionList(second).add(found)
    assert SuppressionList(second).reasons(["ann@example.com"]) == {"ann@example.com": "unsubscribed"}
    assert list(read_text_list(tmp_path / "all.csv")) == found


def test_whose_entry_is_a_hash_is_there_already(tmp_path: Path) -> None:
    """Adding the address again does not bring it back; removing it removes the hash."""
    kept = SuppressionList(listed(tmp_path / "no.db", "ann@example.com"))
    kept.erase("ann@example.com")
    assert kept.add([Suppressed("Ann@example.com", "again"), Suppressed(ANN_HASH)]) == 0
    assert kept.entries() == [Suppressed(ANN_HASH)]
    assert kept.remove(["ann@EXAMPLE.com"]) == 1
    assert kept.reasons(["ann@example.com"]) == {}


@pytest.mark.parametrize("by", ["erase", "add"])
def test_an_older_program_refuses_a_list_with_hashes(tmp_path: Path, by: str) -> None:
    """It would mail these people. One without hashes stays as it was."""
    kept = SuppressionList(listed(tmp_path / "no.db", "ann@example.com"))

    def version() -> int:
        with closing(sqlite3.connect(kept.path)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])

    assert version() == 1
    kept.erase("ann@example.com") if by == "erase" else kept.add([Suppressed(ANN_HASH)])
    kept.add([Suppressed("bob@example.com")])
    assert version() == 2


@pytest.mark.parametrize("wrong", ["@example.com", ANN_HASH, "nobody"])
def test_only_an_address_can_be_erased(tmp_path: Path, wrong: str) -> None:
    kept = SuppressionList(listed(tmp_path / "no.db", "ann@example.com"))
    with pytest.raises(RecipientError):
        kept.erase(wrong)


def test_the_other_lines_of_a_file_stay_as_they_are(tmp_path: Path) -> None:
    """Comments, order, spaces, the mark of UTF-8 and the permissions: people keep it."""
    path = tmp_path / "no.txt"
    path.write_bytes(
        b'\xef\xbb\xbfann@example.com,"by ann@example.com"\r\n# a remark \r\n bob@example.com \r\n\nzoe@example.com'
    )
    path.chmod(0o640)
    assert erase_from_text_list(path, "nobody@example.com") == 0
    assert erase_from_text_list(path, "ann@example.com", dry_run=True) == 1
    assert b"ann@" in path.read_bytes()
    assert erase_from_text_list(path, "ann@example.com") == 1
    first, rest = path.read_bytes().split(b"\n", 1)
    assert first == b"\xef\xbb\xbf" + f"{ANN_HASH},by forgotten".encode()
    assert rest == b"# a remark \r\n bob@example.com \r\n\nzoe@example.com"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["no.db", "no.txt"])
@pytest.mark.parametrize("hold", ["rate", "domain", "pause"])
async def test_who_is_listed_while_his_row_waits_claimed_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hold: str
) -> None:
    """A claim may wait for hours; the list is looked at again before the message begins."""
    monkeypatch.setattr(scheduler, "CHECK_INTERVAL", 0.01)
    path = listed(tmp_path / name, "somebody@example.com")
    async with await opened(tmp_path, path) as ledger:
        pool = Noting()
        rate = Rate.parse_all("5/s")
        policy = RatePolicy(rate) if hold == "rate" else RatePolicy(domains={"example.org": rate, "example.com": rate})
        run = Run(Plain(), ledger, pool, retry=Retry(), concurrency=1, rate_policy=policy if hold != "pause" else None)
        seen: list[int] = []

        async def watch(claim: Claim, settlement: Settlement) -> None:
            if not seen:
                listed(path, "somebody@example.com", "@example.com", "e@example.org", reason="unsubscribed")
                if hold == "pause":
                    run.pause()
                    asyncio.get_running_loop().call_later(0.1, run.resume)
            seen.append(settlement.row)

        await run.run(watch)
        assert len(pool.domains) == len(seen) < len(NAMES)
        assert Counter(entry.state for entry in await entries(ledger)) == {
            RowState.ACCEPTED: len(seen),
            RowState.SUPPRESSED: len(NAMES) - len(seen),
        }
        bob = (await entries(ledger))[2]
        assert (bob.attempts, bob.reply.partition(":")[0]) == (0, "on a suppression list")
