"""A process that composes, signs and sends for a run in another one: see `running.process_pool`."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from asyncsmtp.bulk.ledger.interfaces import Claim
from asyncsmtp.bulk.ledger.loading import list_changes
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.recipients.recipient import CopyRecipient, Recipient
from asyncsmtp.bulk.running.frames import LENGTH, Frame, FrameChannel, to_picklable
from asyncsmtp.bulk.running.process_pool import Job
from asyncsmtp.bulk.running.row_sender import InFlight, ReconnectPolicy, RowSender
from asyncsmtp.bulk.setup.config import CampaignConfig
from asyncsmtp.bulk.setup.config_types import RelayConfig
from asyncsmtp.bulk.setup.prepare import prepare
from asyncsmtp.client.config.login_config import Token, TokenSource
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import ConfigError
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["main"]


class _LoadedLedger:
    """A ledger as far as composing needs one: the Date of every message."""

    def __init__(self, created_at: datetime) -> None:
        self.created_at = created_at


class _LogHandler(logging.Handler):
    """A handler that sends what is logged to the process of the run."""

    def __init__(self, channel: FrameChannel) -> None:
        super().__init__()
        self._channel = channel
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:  # in any thread
        words = (Frame.LOG, record.name, record.levelno, record.getMessage())
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._channel.send, *words)


class _SendingProcess:
    """The child's side of the frames, which `process_pool` describes.

    Args:
        sessions: of each relay. begin: what the first frame says of the campaign.
    """

    def __init__(self, sessions: Sequence[int], begin: bytes) -> None:
        self._sessions = sessions
        self._questions: dict[int, asyncio.Future[Any]] = {}  # for tokens
        self._begin = self._load(begin)
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._marks: dict[int, asyncio.Future[None]] = {}
        self._pools: list[Pool | None] = []  # by relay; None where this process has no session with it
        self._closing = asyncio.Event()

    async def run(self, end: socket.socket) -> None:
        """Send what comes until the other side asks to close; end the process when it is gone."""
        self._channel = await FrameChannel.open(end, self._receive, lambda: os._exit(1))
        log = logging.getLogger("asyncsmtp")
        log.addHandler(_LogHandler(self._channel))
        log.setLevel(self._begin["log_level"])
        log.propagate = False
        try:
            await self._prepare()
        except Exception as error:
            self._channel.send(Frame.FAILED, to_picklable(error))
        else:
            self._channel.send(Frame.READY)
            await self._closing.wait()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*(pool.aclose() for pool in self._pools if pool is not None), return_exceptions=True)
        self._channel.close()
        await asyncio.Event().wait()  # until that is written, and the channel is lost

    def _load(self, begin: bytes) -> dict[str, Any]:
        """Read what the campaign is; in place of a token source comes one that asks the process of the run."""
        fetch = self._fetch

        class Unpickler(pickle.Unpickler):
            def persistent_load(self, place: Any) -> TokenSource:
                return partial(fetch, place)

        loaded: dict[str, Any] = Unpickler(io.BytesIO(begin)).load()  # see process_pool
        return loaded

    async def _fetch(self, place: int) -> str | Token:
        number = len(self._questions)
        answer = self._questions[number] = self._loop.create_future()
        self._channel.send(Frame.FETCH, number, place)
        found: str | Token = await answer
        return found

    async def _prepare(self) -> None:
        begin = self._begin
        config: CampaignConfig = begin["config"]
        prepared = await prepare(config, begin["rows"])
        if changes := list_changes(begin["parts"], prepared.parts):
            raise ConfigError(f"{changes} while the run began", "run the same command again")
        relays: Sequence[RelayConfig] = begin["relays"]
        for each, sessions in zip(relays, self._sessions, strict=True):
            assert not isinstance(each.relay, str), "made by make_relays"
            trace = self._trace if begin["trace"] else None
            pool = (
                Pool(each.relay, sessions=sessions, messages=each.max_per_connection, trace=trace) if sessions else None
            )
            self._pools.append(pool)
        ledger: Any = _LoadedLedger(begin["created_at"])
        sender: Any = next(pool for pool in self._pools if pool is not None)
        sessions = sum(self._sessions)
        self._sender = RowSender(
            prepared.composer, ledger, sender, ReconnectPolicy(), Retry(), RatePolicy(), sessions=sessions
        )

    def _receive(self, frame: Any) -> None:
        kind = frame[0]
        if kind == Frame.SEND:
            _, number, relay, job = frame
            task = self._loop.create_task(self._send(number, relay, Job(*job)))
            self._tasks[number] = task
            task.add_done_callback(lambda _: self._tasks.pop(number, None))
        elif kind == Frame.MARKED:
            mark = self._marks.pop(frame[1], None)
            if mark is not None and not mark.done():
                mark.set_result(None)
        elif kind == Frame.CANCEL:
            if (sending := self._tasks.get(frame[1])) is not None:
                sending.cancel()
        elif kind == Frame.TOKEN:
            _, number, answer = frame
            if (question := self._questions[number]).done():  # nobody waits any more
                return
            if isinstance(answer, Exception):
                question.set_exception(answer)
            else:
                question.set_result(answer)
        elif kind == Frame.STOP:
            for pool in self._pools:
                if pool is not None:
                    pool.stop()
        elif kind == Frame.CLOSE:
            self._closing.set()

    async def _send(self, number: int, relay: int, job: Job) -> None:
        """Compose one message and send it; say what became of it."""
        pool = self._pools[relay]
        assert pool is not None, "messages for a relay come to those that have sessions with it"
        # From the relay's reply to the frame there is no `await`: the mark of the next message of the session is
        # asked for after this outcome was sent.
        try:
            message = await self._sender.compose(InFlight(_make_claim(job), number))
            try:
                delivery = await pool.send(message, before_end=partial(self._mark, number))
            finally:
                self._sender.release(message)
        except asyncio.CancelledError:
            self._channel.send(Frame.CANCELLED, number)
        except Exception as error:
            self._channel.send(Frame.ERROR, number, to_picklable(error))
        else:
            if delivery.accepted and len(delivery.content_replies) == 1:
                reply = delivery.content_replies[0]
                size = message.content.size or 0
                self._channel.send(Frame.ACCEPTED, number, reply.code, reply.lines, delivery.host, size)
            else:
                self._channel.send(Frame.DELIVERY, number, replace(delivery, message=None))
        finally:
            self._marks.pop(number, None)

    def _mark(self, number: int) -> asyncio.Future[None]:
        """Ask for the mark of a message; it is durable when the future is done."""
        mark = self._marks[number] = self._loop.create_future()
        self._channel.send(Frame.MARK, number)
        return mark

    def _trace(self, side: Any, text: str, *, tls: bool, refused: bool) -> None:
        self._channel.send(Frame.TRACE, side, text, tls, refused)


def _make_claim(job: Job) -> Claim:
    to = Mailbox(*job.to)
    if job.copy is None:
        return Claim(Recipient(job.row, to, job.fields), job.message_id, 1)
    local, domain, token = job.copy
    recipient = CopyRecipient(job.row, Mailbox(local, domain), job.fields, kind="cc", to=to, message_id=job.message_id)
    return Claim(recipient, token, 1)


def main() -> None:
    """Send for the process at the other end of the standard input, until it ends.

    Signals are for that process alone. Where one is sent to all processes of a service, this one would end with
    messages that may have arrived; and it ends in any case when the other end is closed.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as end, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        _, uses_uvloop, sessions, begin = _read_begin(end)
        factory: Callable[[], asyncio.AbstractEventLoop] | None = None
        if uses_uvloop:
            import uvloop  # as the process of the run does

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(end, sessions, begin))


async def _serve(end: socket.socket, sessions: Sequence[int], begin: bytes) -> None:
    await _SendingProcess(sessions, begin).run(end)


def _read_begin(end: socket.socket) -> tuple[int, bool, Sequence[int], bytes]:
    """Return the first frame; nothing follows before it is answered."""
    content, size = b"", LENGTH.size
    while len(content) < size:
        if not (block := end.recv(1 << 16)):
            os._exit(1)
        content += block
        if len(content) >= LENGTH.size:
            size = LENGTH.size + LENGTH.unpack_from(content)[0]
    frame: tuple[int, bool, Sequence[int], bytes] = pickle.loads(content[LENGTH.size :])  # noqa: S301  # see there
    return frame
