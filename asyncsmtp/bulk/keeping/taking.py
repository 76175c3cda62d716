"""What is kept of a row of the recipients: its mailbox, its cells, and a Message-ID that nobody can guess."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping

from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient, RowFields
from asyncsmtp.bulk.states import State
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Naming", "cells_of", "config_of", "place_of", "problem_of"]

_JSON = json.JSONEncoder(check_circular=False).encode
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]


class Naming:
    """Gives the messages of a campaign their Message-IDs.

    They are stable over attempts, different for another content, and not to be traced back to the address.

    Args:
        config: what the fingerprint is made of, as `config_of` writes it: another content is another message.
        domain: of the Message-IDs.
        secret: the campaign's key; None: a new one.
    """

    def __init__(self, name: str, config: str, domain: str, secret: bytes | None = None) -> None:
        self.secret = secret or secrets.token_bytes(32)
        self._domain = domain
        self._prefix = f"{name}\0{config}\0".encode("utf-8", "surrogatepass")

    def message_id(self, key: str) -> str:
        """Without angle brackets. `key` is the mailbox's."""
        digest = hmac.digest(self.secret, self._prefix + key.encode("utf-8"), "sha256")
        return f"{_base32(digest)}@{self._domain}"


def config_of(parts: Mapping[str, str]) -> str:
    """What the fingerprint is made of, as the ledger keeps it."""
    return json.dumps({"parts": dict(parts)}, sort_keys=True)


def cells_of(row: Recipient | Problem) -> str:
    """The cells as JSON: column -> cell."""
    given = row.fields
    return _JSON(dict(zip(given, given.cells, strict=True)) if type(given) is RowFields else dict(given))


def place_of(row: int) -> tuple[int, int]:
    """The number of its batch, and its own."""
    return (row - 1) // BATCH, row


def problem_of(problem: Problem) -> tuple[State, str]:
    """The state of a row that cannot be mailed, or is left out, and why."""
    state = State.SUPPRESSED if problem.left_out else State.REJECTED
    return state, safe_text(problem.reason, 512)


def _base32(digest: bytes) -> str:
    """The first 26 characters in base 32, by pairs: `base64.b32encode` was half the time of a load."""
    bits = int.from_bytes(digest[:17], "big") >> 6
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(120, -1, -10)])
