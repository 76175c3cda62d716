"""Postfix as one of the servers that the same tests run against."""

from __future__ import annotations

from tests.interop.postfix import Postfix
from tests.interop.server import Server

__all__ = ["ServedPostfix"]


class ServedPostfix(Server):
    """A Postfix that runs already, seen as a server among others; who started it stops it."""

    limit = 10_240_000  # its default
    mechanisms = frozenset({"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"})
    extensions = frozenset(
        {"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "SIZE", "AUTH"}
    )

    def __init__(self, postfix: Postfix) -> None:
        self._postfix = postfix
        self.plain, self.submission, self.smtps = postfix.plain, postfix.submission, postfix.smtps
        self.ca_file = postfix.ca_file
        self.maildir = postfix.root / "mail/all"
        self.queues = tuple(postfix.root / "queue" / queue for queue in ("incoming", "active", "deferred"))

    @property
    def log(self) -> str:
        return self._postfix.log
