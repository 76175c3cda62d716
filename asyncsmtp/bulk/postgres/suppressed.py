"""Suppression lists beside a shared ledger: files of this machine, looked at as rows are claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from asyncsmtp.bulk.keeping.textlists import TextLists
from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.schema import NOW
from asyncsmtp.bulk.states import State
from asyncsmtp.bulk.suppression import SuppressionList, is_text_list
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Suppressions", "suppress"]

Stamp = Mapping[str, object]

_SUPPRESS = f"""
UPDATE delivery AS d SET state = {State.SUPPRESSED:d}, reply = j.reply, code = NULL, status = NULL, host = NULL,
next_us = NULL, epoch = %(run)s, updated_us = greatest(coalesce(d.updated_us, 0), {NOW})
FROM unnest(%(seq)s::bigint[], %(old)s::smallint[], %(reply)s::text[]) AS j(seq, old, reply)
WHERE d.campaign_id = %(campaign)s AND d.batch_no = (j.seq - 1) / 500 AND d.seq = j.seq AND d.state = j.old
RETURNING d.seq, j.old"""  # noqa: S608


class Suppressions:
    """The lists of one run; all methods but `__bool__` look into files, in a thread."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._texts = TextLists(paths)
        self._lists = [SuppressionList(path) for path in paths if not is_text_list(path)]
        self._written: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._texts or self._lists)

    async def begin(self) -> None:
        """Raises SuppressionError: a list cannot be read, or is none."""
        await asyncio.to_thread(self._begin)

    async def reasons(self, keys: Collection[str]) -> Mapping[str, str]:
        """Of those mailboxes, by their keys, which are listed, and why."""
        return await asyncio.to_thread(self._reasons, keys)

    def _begin(self) -> None:
        for listed in self._lists:
            listed.check()
        self._written = dict(self._texts.read(anew=True) or ())

    def _reasons(self, keys: Collection[str]) -> Mapping[str, str]:
        if (entries := self._texts.read()) is not None:
            self._written = dict(entries)
        domains = {key: f"@{key.rpartition('@')[2]}" for key in keys}
        asked = {*domains, *domains.values()}
        found = {key: self._written[key] for key in asked if key in self._written}
        for listed in self._lists:
            found |= listed.reasons(asked)
        return {
            key: found.get(key, found.get(domain, "")) for key, domain in domains.items() if {key, domain} & {*found}
        }


async def suppress(connection: Connection, rows: Mapping[int, tuple[State, str]], stamp: Stamp) -> Mapping[int, State]:
    """Suppress rows that have their state still, within the caller's transaction; return them with that state.

    Args:
        rows: its state, and why it is listed.
    """
    if not rows:
        return {}
    replies = [
        f"on a suppression list: {safe_text(why, 400)}" if why else "on a suppression list" for _, why in rows.values()
    ]
    values = {"seq": list(rows), "old": [int(state) for state, _ in rows.values()], "reply": replies}
    found = await connection.execute(_SUPPRESS, {**stamp, **values})
    return {row: State(state) for row, state in await found.fetchall()}
