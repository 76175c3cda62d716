"""Loading of recipients: Message-IDs, keys, suppression lists, and the check that the content is unchanged."""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeAlias

from asyncsmtp.bulk.ledger.copies import find_keys, join_keys
from asyncsmtp.bulk.ledger.interfaces import Claim, Entry, RowState, number_copy
from asyncsmtp.bulk.ledger.queries import CampaignRow, Queries, RecipientValues, RowKey, Script
from asyncsmtp.bulk.ledger.suppression_list import (
    ERASED,
    SuppressionList,
    hash_key,
    is_hash,
    is_text_list,
    parse_key,
    read_text_list,
)
from asyncsmtp.bulk.ledger.transitions import (
    BATCH_SIZE,
    EXPIRED,
    FORGOTTEN,
    GROUPED,
    IN_MESSAGE_OF,
    MAX_REPLY,
    ROWS_KEY,
    batch_number,
    find_message_row,
)
from asyncsmtp.bulk.recipients.recipient import (
    GroupedRow,
    Problem,
    Recipient,
    RecipientWithCopies,
    RowFields,
    address_key,
)
from asyncsmtp.errors import LedgerError, LedgerMismatch, RecipientError, SuppressionError, check_type
from asyncsmtp.mail.mime import GroupedFields
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "EntryScript",
    "Fingerprint",
    "ListedRows",
    "Loader",
    "MessageIdFactory",
    "RepeatedAddress",
    "SuppressionLookup",
    "check_fingerprint",
    "list_changes",
    "list_paths",
    "read_entries_by_row",
    "read_fingerprint",
    "report_repeats",
    "unload_changed",
    "upgrade_keys",
]

_log = logging.getLogger("asyncsmtp.ledger")


class SuppressionLookup:
    """Lookup in all suppression lists of a run. Every method blocks; one thread may use it at a time.

    A database is read as it is at that moment. A text file is read again when it has changed; its entries are in a
    temporary database, which SQLite moves to the disk when it is large, so that memory is bounded.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._databases = [SuppressionList(path) for path in paths if not is_text_list(path)]
        self._versions = {path: (0, 0) for path in paths if is_text_list(path)}
        self._texts: sqlite3.Connection | None = None
        self._has_hashes = False  # in the files of text

    def __bool__(self) -> bool:
        return bool(self._databases or self._versions)

    def open(self) -> None:
        """Check the databases, and read the text files. Raises SuppressionError: a list cannot be used."""
        for database in self._databases:
            database.check()
        if self._versions:
            self._texts = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._texts.execute("CREATE TABLE listed (key TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID")
            self._read_texts(self._texts, required=True)

    def version(self) -> tuple[tuple[int, int], ...]:
        """Return what differs when a list has changed: time and size of the files."""
        databases = (f"{database.path}{end}" for database in self._databases for end in ("", "-wal"))
        return tuple(_stamp(path) for path in (*map(str, self._versions), *databases))

    def reasons(self, keys: Collection[str]) -> Mapping[str, str]:
        """Return the reason of each of these mailbox keys that is listed, itself or its domain.

        Raises:
            SuppressionError: a database cannot be used.
        """
        domains = {key: f"@{key.rpartition('@')[2]}" for key in keys}
        wanted = {*domains, *domains.values()}
        found = self._find_in_texts(wanted)
        for database in self._databases:
            found |= database.reasons(wanted)
        return {key: found.get(key, found.get(at, "")) for key, at in domains.items() if key in found or at in found}

    def close(self) -> None:
        """Close the temporary database; a second call does nothing."""
        if self._texts is not None:
            self._texts.close()

    def _find_in_texts(self, keys: Collection[str]) -> dict[str, str]:
        if self._texts is None:
            return {}
        self._read_texts(self._texts, required=False)
        names = {key: key for key in keys} | ({hash_key(key): key for key in keys} if self._has_hashes else {})
        find = "SELECT key, reason FROM listed WHERE key IN (SELECT value FROM json_each(?))"
        found = self._texts.execute(find, (json.dumps([*names]),)).fetchall()
        return {names[each]: reason for each, reason in found}

    def _read_texts(self, connection: sqlite3.Connection, *, required: bool) -> None:
        """Read the text files again if one has changed; unless `required`, keep the entries if one cannot be read."""
        try:
            versions = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in self._versions}
            if versions == self._versions:
                return
            entries = [(parse_key(entry.address), entry.reason) for path in versions for entry in read_text_list(path)]
        except OSError as error:
            if required:
                raise SuppressionError(f"there is no suppression list {error.filename}: correct its name") from error
            _log.warning("a suppression list is gone; its entries are kept: %s", error)
            return
        except SuppressionError as error:
            if required:
                raise
            _log.warning("a suppression list cannot be read; its former entries are kept: %s", error)
            return
        self._versions = versions
        self._has_hashes = any(is_hash(key) for key, _ in entries)
        with connection:
            connection.execute("BEGIN")
            connection.execute("DELETE FROM listed")
            connection.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?)", entries)


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


_ListedFinder = Callable[[Mapping[int, tuple[RowState, str]]], Awaitable[Mapping[int, tuple[RowState, str]]]]


class ListedRows:
    """Those of the claimed rows that are on a suppression list by now: they are looked up where a list has changed."""

    def __init__(self) -> None:
        self._version: object = ()  # of no lists
        self._rows: Mapping[int, str] = {}

    async def update(
        self, version: object, list_unsent: Callable[[], Sequence[tuple[Claim, RowState]]], find: _ListedFinder
    ) -> Mapping[int, str]:
        """Return the rows with the reason of each.

        Args:
            version: of the lists, read before this. list_unsent: returns the rows. find: as `copies.find_listed`.
        """
        if version != self._version:
            unsent, listed = list_unsent(), dict[int, str]()
            for first in range(0, len(unsent), BATCH_SIZE):
                found = await find(find_keys(unsent[first : first + BATCH_SIZE]))
                listed |= {row: reason for row, (_, reason) in found.items()}
            self._version, self._rows = version, listed
        return self._rows


def list_paths(parameter: str, paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the paths given as `parameter`. Raises TypeError: one of them is not a path."""
    check_type(parameter, paths, list, tuple)
    for path in paths:
        check_type(parameter, path, str, os.PathLike)
    return [Path(path) for path in paths]


MAX_NAMED_CHANGES = 3

Fingerprint: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""What a fingerprint is made of: names that users know, each with a digest; or a function that returns it.

A function is called, perhaps in a thread, when a campaign that has begun is opened, and at the end of a load: so the
digest of a file that is loaded need not be known before it is read.
"""


def read_fingerprint(fingerprint: Fingerprint) -> dict[str, str]:
    """Return a fingerprint; blocks if it is a function that does."""
    return dict(fingerprint() if callable(fingerprint) else fingerprint)


def check_fingerprint(fingerprint: object) -> None:
    """Raise TypeError for what is no fingerprint, and is not None."""
    if not callable(fingerprint):
        check_type("fingerprint", fingerprint, Mapping, None)


_to_json = json.JSONEncoder(check_circular=False).encode
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]


class MessageIdFactory:
    """Message-IDs of a campaign.

    They are the same on every attempt, different for other content, and cannot be traced back to the address.

    Args:
        config: what the fingerprint is made of, as the ledger stores it, for rows that are added; else "".
        domain: of the Message-IDs.
        secret: the campaign's key; None: a new one.
    """

    def __init__(self, name: str, config: str, domain: str, secret: bytes | None = None) -> None:
        self.secret = secret or secrets.token_bytes(32)
        self._domain = domain
        self._prefix = f"{name}\0{config}\0".encode("utf-8", "surrogatepass")

    def make(self, key: str) -> str:
        """Return the Message-ID, without angle brackets, for the mailbox with this key."""
        digest = hmac.digest(self.secret, self._prefix + key.encode("utf-8"), "sha256")
        return f"{_base32(digest)}@{self._domain}"


class Loader:
    """One load, in steps of one transaction: `insert` for each batch, then `finish`.

    The transaction is begun by `Queries.begin`, or by `begin_addition` for a further file. A load of a
    whole file writes the campaign last, so that half a file is never sendable.

    Args:
        parts: what the fingerprint is made of.
        from_domain: the domain of the Message-IDs.
    """

    def __init__(self, queries: Queries, name: str, parts: Fingerprint, from_domain: str) -> None:
        self._queries = queries
        self._name = name
        self._parts = parts
        self._message_ids = MessageIdFactory(name, "", from_domain)  # with a new secret, so other content has others
        self._last_row = 0  # of those that were there before
        self._is_addition = False
        self._has_groups = False
        self._forgotten: Mapping[str, int] | None = None  # read with the first rows

    def begin_addition(self) -> Script[None]:
        """Begin a load of further rows: they follow the last row, with Message-IDs by the campaign's own key."""
        if (yield from self._queries.read_value(EXPIRED)) is not None:
            why = "the addresses of this campaign were removed, as its retention says, so nobody would be recognised"
            raise LedgerError(f"{why}: begin a new campaign")
        yield from self._queries.begin()
        name, secret, config, self._last_row, message_id = yield from self._queries.read_loaded()
        domain = str(message_id or "@localhost").rpartition("@")[2]
        self._message_ids = MessageIdFactory(name, config, domain, bytes.fromhex(secret))
        self._is_addition = True

    def insert(self, rows: Sequence[Recipient | Problem]) -> Script[None]:
        """Insert some rows; those not to be mailed get their state here, the others all at once at the end."""
        if self._last_row:
            rows = [*map(self._renumber, rows)]
        if self._forgotten is None:
            self._forgotten = {}
            if (yield from self._queries.read_value(FORGOTTEN)) is not None:
                from asyncsmtp.bulk.ledger.erasure import read_forgotten  # late: most campaigns have forgotten nobody

                self._forgotten = yield from read_forgotten(self._queries)
        if self._forgotten:
            rows = [self._refuse_forgotten(row, self._forgotten) for row in rows]
        recipients = [row for row in rows if isinstance(row, Recipient)]
        problems = [row for row in rows if isinstance(row, Problem)]
        values = [*map(self._values, recipients)]
        inserted = yield from self._queries.insert_recipients(values)
        states = {problem.row: _problem_state(problem) for problem in problems}
        unmailed = [_unmailed_values(problem, getattr(problem, "address", None)) for problem in problems]
        self._has_groups = self._has_groups or any(isinstance(problem, GroupedRow) for problem in problems)
        if inserted < len(recipients):
            keys = [key for _, _, _, key, _, _ in values if key is not None]
            earlier = yield from self._queries.read_earlier(keys)
            equal: list[RecipientValues] = []
            for row, (*place, key, message_id, cells) in zip(recipients, values, strict=True):
                first = earlier[str(key)]
                if row.separate and self._last_row < first < row.row:  # equal rows of one file are two messages
                    equal.append((*place, f"{key}-{row.row}", message_id, cells))  # type: ignore[arg-type]
                elif first != row.row:
                    states[row.row] = (RowState.SUPPRESSED, f"duplicate of row {first}")
                    unmailed.append(_unmailed_values(row, row.mailbox.address))
            if equal:
                yield from self._queries.insert_recipients(equal)
        if recipients and isinstance(recipients[0], RecipientWithCopies):  # then all are
            yield from self._insert_copies(recipients, states, unmailed)
        if states:
            yield from self._queries.insert_recipients(unmailed)
            yield from self._queries.insert_deliveries(states)

    def _renumber(self, row: Recipient | Problem) -> Recipient | Problem:
        """Number a row of a further file behind the last row."""
        last = self._last_row
        if isinstance(row, GroupedRow):
            return replace(row, row=row.row + last, first=row.first + last)
        return replace(row, row=row.row + last)

    def finish(self) -> Script[None]:
        """Insert the state of the rows to be mailed, and the campaign; commit."""
        yield from self._queries.insert_pending(self._last_row)
        yield from self._queries.refuse_older()
        yield from self._queries.write_value(ADDITIONS, "some" if self._is_addition else "none")
        if self._has_groups:
            yield from self._queries.write_value(GROUPED, "yes")
        if not self._is_addition:
            config = json.dumps({"parts": read_fingerprint(self._parts)}, sort_keys=True)
            yield from self._queries.insert_campaign(self._name, self._message_ids.secret.hex(), config)
            yield from self._queries.write_value(KEY_FORM, CURRENT_FORM)
        yield from self._queries.commit()

    def _refuse_forgotten(self, row: Recipient | Problem, forgotten: Mapping[str, int]) -> Recipient | Problem:
        """Return a problem without cells for the row of a person whose data was removed, which is suppressed."""
        if not isinstance(row, Recipient | GroupedRow):
            return row
        mailbox = row.mailbox if isinstance(row, Recipient) else Mailbox.parse(row.address)
        if hash_key(address_key(mailbox)) not in forgotten:
            return row
        return Problem(row.row, 0, f"{ERASED}: not loaded again", left_out=True)

    def _insert_copies(
        self, rows: Sequence[Recipient], states: dict[int, tuple[RowState, str]], unmailed: list[RecipientValues]
    ) -> Script[None]:
        """Insert the copies of some rows; those of a duplicate, of which there is no message, are not to be mailed."""
        values: list[RecipientValues] = []
        for row in rows:
            assert isinstance(row, RecipientWithCopies)
            message_id = self._make_message_id(row)
            for place, (kind, mailbox) in enumerate(row.copies, 1):
                number = number_copy(row.row, place)
                shown = f"[{_to_json([kind, row.mailbox.address, message_id])[1:-1]}, {_cells(row)}]"
                key = join_keys(number, row.mailbox, mailbox)
                if row.row in states:
                    states[number] = (RowState.SUPPRESSED, f"row {row.row} is a {states[row.row][1]}")
                    unmailed.append((batch_number(number), number, mailbox.address, None, None, shown))
                elif self._forgotten and hash_key(address_key(mailbox)) in self._forgotten:
                    states[number] = (RowState.SUPPRESSED, f"{ERASED}: not loaded again")
                    unmailed.append((batch_number(number), number, None, None, None, f'["{kind}", "", "", {{}}]'))
                else:
                    own_id = self._message_ids.make(key)
                    values.append((batch_number(number), number, mailbox.address, key, own_id, shown))
        yield from self._queries.insert_recipients(values)

    def _values(self, row: Recipient) -> RecipientValues:
        mailbox, cells = row.mailbox, _cells(row)
        key = address_key(mailbox)
        if row.separate:  # a file that is added once more, after a crash perhaps, has the same rows: duplicates
            key = f"{key} {_base32(sha256(cells.encode()).digest())}"
        return batch_number(row.row), row.row, mailbox.address, key, self._make_message_id(row), cells

    def _make_message_id(self, row: Recipient) -> str:
        key = row.mailbox.key
        return self._message_ids.make(f"{key} {row.row}" if row.separate else key)


EntryScript = Callable[[Queries, int, frozenset[RowState]], Script[list[Entry]]]


def read_entries_by_row(
    read: EntryScript, queries: Queries, first: int, wanted: frozenset[RowState]
) -> Script[list[Entry]]:
    """Return rows as `read` does, but those in the message of another one with that one's outcome."""
    found = yield from read(queries, first, wanted | {RowState.SUPPRESSED})
    leading = {entry.row: row for entry in found if (row := find_message_row(entry))}
    others = (yield from queries.read_entries_by_number({*leading.values()})) if leading else {}
    entries = [
        entry
        if (other := others.get(leading.get(entry.row, 0))) is None
        else replace(other, row=entry.row, address=entry.address, fields=entry.fields)
        for entry in found
    ]
    return [entry for entry in entries if entry.state in wanted]


KEY_FORM = "keys"  # name of the stored value: the form of the keys in the ledger
CURRENT_FORM = "2"  # of `address_key`; a ledger without the value has those of `Mailbox.key`
MAX_NAMED_REPEATS = 20
_UNSENT = frozenset({RowState.PENDING, RowState.DEFERRED})
_SENT = frozenset({RowState.SENDING, RowState.ACCEPTED, RowState.IN_DOUBT})  # or perhaps sent


class RepeatedAddress(NamedTuple):
    """Two rows of an older ledger whose addresses differ in spelling only.

    Attributes:
        duplicate: the row that is not mailed for that reason; None where both were decided already.
    """

    first: RowKey
    later: RowKey
    duplicate: RowKey | None


def upgrade_keys(queries: Queries) -> Script[tuple[int, list[RepeatedAddress]]]:
    """Give an older ledger the keys of `address_key`; return the number of rows that repeat one, and the first few.

    Of several rows that now have one key the first keeps it. A later one that is still to be sent becomes its
    duplicate. If the later one was sent, and the first was not, the first becomes the duplicate: nobody gets a second
    message.
    """
    yield from queries.refuse_older()
    if (yield from queries.read_value(KEY_FORM)) == CURRENT_FORM:
        return 0, []
    number, named = 0, list[RepeatedAddress]()
    for rows in (yield from queries.list_key_blocks()):
        changed = [(row, key) for row in (yield from queries.read_keys(rows)) if (key := _current_key(row)) != row.key]
        if not changed:
            continue
        holders = yield from queries.read_earlier([key for _, key in changed])
        for row, key in changed:
            holder = holders.get(key)
            if holder is None or holder > row.row:
                holders[key] = row.row
            if holder is None:
                yield from queries.write_key(row.row, key)
                continue
            number += 1
            other = yield from queries.read_key(holder)
            first, later = sorted((row, other))
            yield from queries.write_key(later.row, None)
            yield from queries.write_key(first.row, key)
            duplicate = later if later.state in _UNSENT else None
            if duplicate is None and first.state in _UNSENT and later.state in _SENT:
                duplicate = first
            if duplicate is not None:
                kept = first if duplicate is later else later
                reply = f"duplicate of row {kept.row} ({safe_text(kept.address, MAX_REPLY // 2)})"
                yield from queries.make_duplicate(duplicate, reply)
            if len(named) < MAX_NAMED_REPEATS:
                named.append(RepeatedAddress(first, later, duplicate))
    yield from queries.write_value(KEY_FORM, CURRENT_FORM)
    return number, named


def report_repeats(place: object, number: int, repeats: Sequence[RepeatedAddress]) -> None:
    """Log the rows that `upgrade_keys` found, both of each pair."""
    for first, later, duplicate in repeats:
        pair = f"row {first.row} ({safe_text(first.address)}) and row {later.row} ({safe_text(later.address)})"
        end = "both stay as they are" if duplicate is None else f"row {duplicate.row} is not mailed"
        _log.warning("%s: %s are one address: %s", place, pair, end)
    if number > len(repeats):
        _log.warning("%s: %d more rows repeat an address; results has them", place, number - len(repeats))


def _current_key(row: RowKey) -> str:
    """Return the key that a row should have now."""
    key = row.key
    if key.isascii() and key[:1] != '"' and key == key.lower():  # nearly all
        return key
    try:
        return address_key(Mailbox.parse(row.address))
    except RecipientError:  # no address of ours: the run says so when it comes to the row
        return key


ADDITIONS = "additions"  # name of the stored value: whether further files of recipients were loaded


def unload_changed(queries: Queries, campaign: CampaignRow, now: Mapping[str, str]) -> Script[str]:
    """Compare the fingerprint of a campaign with that of now; delete the campaign if it changed before anything began.

    A fingerprint is a mapping from a name that users know ("message.html") to a digest. Returns the changes; "": there
    are none, and nothing was deleted.

    Raises:
        LedgerMismatch: it changed, and messages were sent, or there are rows that one file would not bring back.
    """
    changes = list_changes(campaign.parts, now)
    if not changes:
        return ""
    if (yield from queries.is_begun()):
        raise LedgerMismatch(
            f"{changes} since the campaign “{safe_text(campaign.name, 80)}” began: put it back and run again to finish"
            " the campaign, or begin a new one under another name"
        )
    if (yield from queries.read_value(ADDITIONS)) != "none":  # a ledger of an older version does not tell
        raise LedgerMismatch(
            f"{changes} since the recipients of “{safe_text(campaign.name, 80)}” were loaded, from more than one file"
            " or by an older asyncsmtp: put it back and run again, or begin a new campaign under another name"
        )
    yield from queries.delete_campaign()
    _log.info("%s: %s, and nothing was sent: the recipients are to be loaded again", campaign.name, changes)
    return changes


def list_changes(began: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the differences between two fingerprints, the first few by name; "" if there are none."""
    changes = [
        f"{safe_text(name, 80)} {'was taken away' if name not in now else 'changed' if name in began else 'was added'}"
        for name in sorted(began.keys() | now.keys())
        if began.get(name) != now.get(name)
    ]
    more = len(changes) - MAX_NAMED_CHANGES
    return ", ".join(changes[:MAX_NAMED_CHANGES]) + (f" and {more} more" if more > 0 else "")


def _unmailed_values(row: Recipient | Problem, address: str | None) -> RecipientValues:
    return batch_number(row.row), row.row, address, None, None, _cells(row)


def _cells(row: Recipient | Problem) -> str:
    """Return the cells as JSON: column -> cell."""
    given = row.fields
    if type(given) is GroupedFields:
        return _to_json({**given, ROWS_KEY: [[*each.values()] for each in given.rows]})
    return _to_json(dict(zip(given, given.cells, strict=True)) if type(given) is RowFields else dict(given))


def _problem_state(problem: Problem) -> tuple[RowState, str]:
    """Return the state of a row that cannot be mailed, or is excluded, and the reason."""
    if isinstance(problem, GroupedRow):
        return RowState.SUPPRESSED, f"{IN_MESSAGE_OF}{problem.first}"
    state = RowState.SUPPRESSED if problem.left_out else RowState.REJECTED
    return state, safe_text(problem.reason, MAX_REPLY)


def _base32(digest: bytes) -> str:
    """Return the first 26 characters in base 32, by pairs: `base64.b32encode` took half the time of a load."""
    bits = int.from_bytes(digest[:17], "big") >> 6
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(120, -1, -10)])
