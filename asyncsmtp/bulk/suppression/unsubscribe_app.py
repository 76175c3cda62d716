"""ASGI application for the URL of List-Unsubscribe: a page for people, and one-click unsubscription (RFC 8058).

    app = UnsubscribeApp("suppressed.db", "campaigns", secret=Path("unsubscribe.secret"))

It needs no web framework: `uvicorn module:app` serves it alone, and Starlette or FastAPI mount it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sqlite3
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import parse_qsl

from asyncsmtp.bulk.ledger.postgres import SCHEMES, Database
from asyncsmtp.bulk.ledger.suppression_list import Suppressed, SuppressionList, is_text_list
from asyncsmtp.bulk.open_campaign import open_reader
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.recipient import Recipient
from asyncsmtp.bulk.running.refused import find_list
from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.setup.prepare import load_unsubscribe
from asyncsmtp.errors import ConfigError, LedgerEmpty, RecipientError, SMTPError, SuppressionError, check_type
from asyncsmtp.mail.list_unsubscribe import MIN_SECRET_LENGTH, unsubscribe_token
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["AddressSource", "UnsubscribeApp"]

logger = logging.getLogger("asyncsmtp.unsubscribe")

MAX_BODY = 8192  # bytes of a request; a one-click request has 26, as multipart some hundred
BODY_TIMEOUT = 10.0  # seconds for them
MAX_WAITING = 1000  # requests that wait for the list; further ones are to come again
RETRY_AFTER = 120  # seconds, for a provider whose request could not be recorded
CHUNK = 500  # addresses whose tokens are made at once
SECRET_VARIABLE = "ASYNCSMTP_UNSUBSCRIBE_SECRET"  # noqa: S105  # the name of the variable

AddressSource: TypeAlias = "str | os.PathLike[str] | Database | Callable[[], Iterable[str] | AsyncIterable[str]]"
"""Where addresses come from: a ledger (a file or a URL), a folder of ledgers, a recipients' file, or a function."""

_TOKEN = re.compile(r"(?<![a-z0-9])[a-z2-7]{26}(?![a-z0-9])")
_MULTIPART = re.compile(  # the part of a form, RFC 7578
    rb'name="?list-unsubscribe"?[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n[ \t]*one-click[ \t]*\r?\n--', re.IGNORECASE
)
_ONE_CLICK = ("list-unsubscribe", "one-click")
_ALLOW = b"GET, HEAD, OPTIONS, POST"
_HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # Whoever has the URL can unsubscribe its recipient: no other site and no search engine gets it.
    (b"referrer-policy", b"no-referrer"),
    (b"x-robots-tag", b"noindex, nofollow"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<body style="font-family: sans-serif; margin: 3em auto; max-width: 30em; padding: 0 1em">
<p>{text}</p>{form}
</body></html>
"""
_FORM = '<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click"><button>{}</button></form>'

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
_T = TypeVar("_T")


class UnsubscribeApp:
    """ASGI application that serves the URLs of List-Unsubscribe, of any number of campaigns and domains.

    A GET shows a page with a button and changes nothing, since scanners follow every link of a mail. A POST with
    `List-Unsubscribe=One-Click` (RFC 8058 §3.2; the button sends it too) adds the address to the list, and is answered
    with 200 when that is durable; with 503 where it cannot be written, so that the provider comes again. An unknown
    token is answered with 404, whoever it may belong to. Several processes may serve the same list.

    A token is found by those of all addresses, whose index is a temporary database. It is made at the start, or at the
    first request where the application is mounted, and completed for a token that is not in it.

    Args:
        suppression: the list, a database; it is created if there is none.
        sources: where the addresses of the recipients are.
        secret: of the tokens, as in [unsubscribe]: text, bytes, or the `Path` of a file that has it. After a change of
            the secret both, the new one first, as long as mails with the old one may be clicked on. Omitted: that of
            ASYNCSMTP_UNSUBSCRIBE_SECRET.
        reason: of the entries, which the results of campaigns show.
        title, question, button, done, unknown, later: the texts of the page, in the language of its readers.
        refresh: seconds after which the sources may be read again for a token that is unknown.
        clock: a monotonic clock, in seconds.
    Raises:
        ConfigError: there is no secret, or it is too short; or the list is a file of text.
    """

    def __init__(
        self,
        suppression: SuppressionList | str | os.PathLike[str],
        *sources: AddressSource,
        secret: str | bytes | Secret | Path | Sequence[str | bytes | Secret | Path] | None = None,
        reason: str = "unsubscribed",
        title: str = "Unsubscribe",
        question: str = "Do you want to unsubscribe from these mails?",
        button: str = "Unsubscribe",
        done: str = "You are unsubscribed.",
        unknown: str = "This link is not valid.",
        later: str = "This cannot be done at the moment. Please try again later.",
        refresh: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_type("suppression", suppression, SuppressionList, str, os.PathLike)
        self.suppression = suppression if isinstance(suppression, SuppressionList) else SuppressionList(suppression)
        if is_text_list(self.suppression.path):
            advice = "name a database such as suppressed.db"
            raise ConfigError(f"suppression= {self.suppression.path} is a file of text, which people keep", advice)
        self._secrets = _read_secrets(secret)
        self._reason = reason
        self._texts = {"title": title, "question": question, "button": button, "done": done}
        self._texts |= {"unknown": unknown, "later": later}
        self._index = _TokenIndex(self._secrets)
        self._sources = [_Source(each) for each in sources]
        self._refresh_interval = refresh
        self._clock = clock
        self._refreshed_at: float | None = None
        self._refreshing = asyncio.Lock()
        # One thread of its own: writes do not compete for the lock of the list, and hold up no other work of an
        # application that mounts this one.
        self._executor = ThreadPoolExecutor(1, "asyncsmtp-unsubscribe")
        self._waiting = 0

    @classmethod
    def from_file(cls, *paths: str | os.PathLike[str], **settings: Any) -> Self:
        """Make it of campaign files: their ledgers, their secrets, and the suppression list that all of them name.

        Args:
            settings: as the constructor takes them.
        Raises:
            ConfigError: a file cannot be used, has no [unsubscribe] or no list; or two name different lists.
        """
        configs = [load_config(Path(path)) for path in paths]
        lists, secrets = [], []
        for path, config in zip(paths, configs, strict=True):
            if config.unsubscribe is None:
                raise ConfigError(f"{path} has no section [unsubscribe]", "add it, with a url and a secret_file")
            secrets.append(load_unsubscribe(config.unsubscribe).secret)
            lists.append(find_list(config.suppression).resolve())
        if len(set(lists)) != 1:
            raise ConfigError("the campaigns name no suppression list, or different ones", "name one in all of them")
        settings.setdefault("secret", list(dict.fromkeys(secrets)))
        return cls(lists[0], *(config.ledger_location for config in configs), **settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the life of the server."""
        if scope["type"] == "lifespan":
            await self._follow_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _follow_lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            if message["type"] == "lifespan.startup":
                try:
                    await self._run(self.suppression.create)
                    await self._refresh()
                except SMTPError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = str(scope["method"]).upper()
        if method == "OPTIONS":
            await _respond(send, 204, b"", (b"allow", _ALLOW))
        elif method not in ("GET", "HEAD", "POST"):
            await self._show(send, 405, "unknown", (b"allow", _ALLOW))
        else:
            query = scope.get("query_string", b"").decode("latin-1")
            await self._answer_for(f"{scope['path']}?{query}", method, receive, send)

    async def _answer_for(self, url: str, method: str, receive: Receive, send: Send) -> None:
        try:
            address = await self._find(url)
            if address is None:
                await self._show(send, 404, "unknown", has_body=method != "HEAD")
            elif method != "POST":
                await self._show(send, 200, "question", has_body=method != "HEAD")
            elif (status := await _read_request(receive)) != 200:
                await self._show(send, status, "unknown")
            else:
                await self._record(address)
                await self._show(send, 200, "done")
        except (SMTPError, sqlite3.Error) as error:
            # What is not written down must not be answered with 200: the provider would not come again.
            logger.error("a request to unsubscribe is to come again: %s", error)
            await self._show(send, 503, "later", (b"retry-after", b"%d" % RETRY_AFTER))

    async def _record(self, address: str) -> None:
        """Put an address on the list, durably. Raises SuppressionError: it cannot be written, or too many wait."""
        if self._waiting >= MAX_WAITING:
            raise SuppressionError(f"{MAX_WAITING} requests wait for {self.suppression.path}: the disk is too slow")
        self._waiting += 1
        try:
            added = await self._run(lambda: self.suppression.add([Suppressed(address, self._reason)]))
        finally:
            self._waiting -= 1
        logger.info("%s", "a recipient unsubscribed" if added else "a recipient unsubscribed again")

    async def _find(self, url: str) -> str | None:
        """Return the address that a token in a URL belongs to; None if there is none."""
        tokens = list(dict.fromkeys(_TOKEN.findall(url.lower())))[:4]
        if not tokens:
            return None
        if (found := await self._run(lambda: self._index.find(tokens))) is not None:
            return found
        await self._refresh()
        return await self._run(lambda: self._index.find(tokens))

    async def _refresh(self) -> None:
        """Read the sources that have changed, unless that was done a moment ago.

        Raises:
            SMTPError: one cannot be read: a token that is unknown may be one of its recipients'.
        """
        async with self._refreshing:
            now = self._clock()
            if self._refreshed_at is not None and now - self._refreshed_at < self._refresh_interval:
                return
            for source in self._sources:
                async with aclosing(source.read_new()) as chunks:
                    async for chunk in chunks:
                        await self._run(lambda chunk=chunk: self._index.add(chunk))  # type: ignore[misc]
            self._refreshed_at = now

    async def _run(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def _show(
        self, send: Send, status: int, text: str, *headers: tuple[bytes, bytes], has_body: bool = True
    ) -> None:
        form = _FORM.format(escape(self._texts["button"])) if text == "question" else ""
        page = _PAGE.format(title=escape(self._texts["title"]), text=escape(self._texts[text]), form=form)
        await _respond(send, status, page.encode("utf-8"), *headers, has_body=has_body)


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], has_body: bool = True) -> None:
    length = [(b"content-length", b"%d" % len(body))] if status != 204 else []
    await send({"type": "http.response.start", "status": status, "headers": [*_HEADERS, *length, *headers]})
    await send({"type": "http.response.body", "body": body if has_body else b""})


async def _read_request(receive: Receive) -> int:
    """Read the body of a POST; return 200 for a one-click request, otherwise the status that it is answered with."""
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return 400
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    return 413
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        return 408
    pairs = parse_qsl(body.decode("latin-1").strip(), keep_blank_values=True)
    pressed = any((name.strip().lower(), value.strip().lower()) == _ONE_CLICK for name, value in pairs)
    return 200 if pressed or _MULTIPART.search(body) else 400


class _TokenIndex:
    """Addresses by their tokens, in a temporary database that SQLite moves to the disk when it is large."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = secrets
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._connection.close)  # an application that is mounted is not closed by anybody
        self._connection.execute("CREATE TABLE token (token TEXT PRIMARY KEY, address TEXT NOT NULL) WITHOUT ROWID")

    def add(self, addresses: Sequence[str]) -> None:
        rows = []
        for address in addresses:
            try:
                mailbox = Mailbox.parse(address)
            except RecipientError:  # it was never mailed
                continue
            rows += [(unsubscribe_token(secret, mailbox), str(mailbox)) for secret in self._secrets]
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR IGNORE INTO token VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")

    def find(self, tokens: Sequence[str]) -> str | None:
        marks = ",".join("?" * len(tokens))
        found = self._connection.execute(f"SELECT address FROM token WHERE token IN ({marks})", tokens).fetchone()  # noqa: S608
        return None if found is None else str(found[0])


class _Source:
    """A source of addresses, and what was read of it."""

    def __init__(self, given: AddressSource) -> None:
        if not callable(given):
            check_type("sources", given, str, os.PathLike, Database)
        if isinstance(given, str) and given.startswith(SCHEMES):
            given = Database.parse(given)
        self._given = Path(given) if isinstance(given, str | os.PathLike) else given
        self._read: dict[Path | Database, object] = {}  # what each place was like when it was read
        self._rows: dict[Path | Database, tuple[object, int]] = {}  # the load of each ledger, and its number of rows

    async def read_new(self) -> AsyncGenerator[list[str]]:
        """Yield the addresses of what has changed since the last call. Raises SMTPError: it cannot be read."""
        if isinstance(self._given, Path | Database):
            for place in await asyncio.to_thread(self._list_places, self._given):
                stamp = await asyncio.to_thread(_get_stamp, place)
                if self._read.get(place, ()) == stamp:
                    continue
                if isinstance(place, Database) or await asyncio.to_thread(_is_database, place):
                    found = self._read_ledger(place)
                else:
                    found = _read_recipients(place)
                async with aclosing(found) as chunks:
                    async for chunk in chunks:
                        yield chunk
                self._read[place] = stamp
            return
        async with aclosing(_collect(self._given())) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _read_ledger(self, place: Path | Database) -> AsyncGenerator[list[str]]:
        """Yield the addresses of a ledger, unless it has no more rows than when it was read."""
        chunk: list[str] = []
        try:
            async with await open_reader(place) as reader:
                rows = (reader.created_at, (await reader.counts()).total)
                if self._rows.get(place) == rows:
                    return
                async with aclosing(reader.entries()) as entries:
                    async for entry in entries:
                        if entry.address:
                            chunk.append(entry.address)
                        if len(chunk) >= CHUNK:
                            yield chunk
                            chunk = []
                self._rows[place] = rows
        except LedgerEmpty as error:  # it has not begun: there is nobody who could click
            logger.debug("%s", safe_text(str(error), 300))
        yield chunk

    @staticmethod
    def _list_places(given: Path | Database) -> Sequence[Path | Database]:
        if isinstance(given, Database) or not given.is_dir():
            return [given]
        return [each for each in sorted(given.glob("*.ledger")) if not each.name.endswith(".sandbox.ledger")]


def _get_stamp(place: Path | Database) -> object:
    """Return what changes with a file; a database is always read again."""
    if isinstance(place, Database):
        return object()
    found = []
    for path in (place, place.with_name(f"{place.name}-wal")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", "correct its permissions") from error
        found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return found


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.suffix == ".ledger" or file.read(16) == b"SQLite format 3\0"
    except FileNotFoundError:  # a campaign that has not begun, or a file that is missing
        return path.suffix == ".ledger"
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "correct its permissions") from error


async def _read_recipients(place: Path) -> AsyncGenerator[list[str]]:
    async with aclosing(RecipientFile(place).batches()) as batches:
        async for batch in batches:
            yield [str(row.mailbox) for row in batch if isinstance(row, Recipient)]


async def _collect(addresses: Iterable[str] | AsyncIterable[str]) -> AsyncGenerator[list[str]]:
    if isinstance(addresses, AsyncIterable):
        chunk: list[str] = []
        async for address in addresses:
            chunk.append(address)
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
        yield chunk
        return
    left = iter(addresses)
    while several := await asyncio.to_thread(lambda: list(islice(left, CHUNK))):
        yield several


def _read_secrets(given: object) -> list[bytes]:
    """Return the secrets as bytes. Raises ConfigError: there is none, or one that can be guessed."""
    if given is None:
        given = os.environ.get(SECRET_VARIABLE) or ()
    several = [given] if isinstance(given, str | bytes | Secret | os.PathLike) else given
    if not isinstance(several, Sequence):
        raise TypeError(f"secret= must be text, bytes or a Path, or several; it is {type(given).__name__}")
    found = [_read_secret(each) for each in several]
    if not found:
        raise ConfigError("there is no secret for the tokens", f"pass secret=, or set {SECRET_VARIABLE}")
    if min(map(len, found)) < MIN_SECRET_LENGTH:
        advice = "pass the one that the campaigns have; to make one: openssl rand -hex 16"
        raise ConfigError(f"secret= has less than {MIN_SECRET_LENGTH} bytes", advice)
    return found


def _read_secret(given: Any) -> bytes:
    check_type("secret", given, str, bytes, Secret, os.PathLike)
    if isinstance(given, os.PathLike):
        try:
            return Path(given).read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"secret= {given} cannot be read: {error.strerror}", "correct its name") from error
    text = given.reveal() if isinstance(given, Secret) else given
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
