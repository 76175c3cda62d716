"""Processes that compose, sign and send for one run, which keeps the ledger, the rates and the outcomes.

The process of the run is the *parent*; each *child* is another interpreter that has read the same campaign. They talk
over a pair of sockets, in frames. For each message:

    parent                                     child
      SEND number, cells          ->             composes, signs, sends all but the end of the content
                                  <-           MARK number
      marks the row in the ledger, durably
      MARKED number               ->             writes the end of the content
                                  <-           the relay's replies, or an error

So the ledger's rule is the same as in one process: a row is marked before the end of its content may be written, and
the parent records every outcome. From MARKED to the outcome the message may have arrived. If the child ends in between,
the message is in doubt; if it ends before, the message cannot have arrived, and another child sends it. If the parent
ends, its sockets are closed: a child that reads the end of the stream ends at once, and what was not marked has no end.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from asyncsmtp.bulk.running.frames import Frame, FrameChannel, to_picklable
from asyncsmtp.client.config.login_config import TokenSource
from asyncsmtp.client.events.types import Trace
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import ConfigError, DeliveryInDoubt, LocalProtocolError, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.replies import Reply

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Ledger
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.bulk.setup.config_types import RelayConfig
    from asyncsmtp.bulk.setup.prepare import PreparedCampaign

__all__ = ["Job", "JobComposer", "ProcessPool", "SentCampaign", "open_processes"]

CANCEL_TIMEOUT = 3.0  # seconds for the word on a message that was marked and is cancelled
END_TIMEOUT = 5.0  # seconds for a child to close its sessions

logger = logging.getLogger("asyncsmtp.campaign")

_PROGRAM = "from asyncsmtp.bulk.setup.sending_process import main; main()"


# What is sent to a child instead of a message.


class Job(NamedTuple):
    """A row as a child needs it to compose a message, in plain values.

    Attributes:
        to: local part and domain of who is in To.
        row: of the file.
        copy: of a message to somebody in Cc or Bcc: their local part and domain, and the token; else None.
    """

    to: tuple[str, str]
    fields: Mapping[str, str]
    message_id: str
    row: int
    copy: tuple[str, str, str] | None = None


@dataclass(slots=True, eq=False)
class _JobContent:
    """The content of a message that a child composes; its size is known when the child has sent it."""

    size: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class _JobMessage(Message):
    """A message that a child composes: only its recipient is known here."""

    job: Job = field(kw_only=True, compare=False)


class JobComposer:
    """A composer for the parent: the child composes."""

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        return _job_message(to, Job((to.local, to.domain), fields, message_id, row or 0))

    def compose_copy(
        self,
        to: Mailbox,
        fields: Mapping[str, str],
        *,
        recipient: Mailbox,
        token: str,
        message_id: str,
        date: datetime,
        row: int | None = None,
    ) -> Message:
        copy = (recipient.local, recipient.domain, token)
        return _job_message(recipient, Job((to.local, to.domain), fields, message_id, row or 0, copy))


def _job_message(recipient: Mailbox, job: Job) -> Message:
    content: Any = _JobContent()
    return _JobMessage(Envelope(None, (recipient,)), content, job=job)


# The parent's side.


class _NotDelivered(Exception):
    """The child has ended, or was cancelled, before the message was marked: nobody has it."""


@dataclass(slots=True, eq=False)
class _Sending:
    """A message that a child has.

    Attributes:
        is_marked: MARKED was sent: it may arrive.
        late: what came in the step of the loop in which the task that waits was cancelled.
    """

    relay: int
    message: Message
    before_end: BeforeEnd | None
    result: asyncio.Future[Delivery]
    is_marked: bool = False
    late: Delivery | BaseException | None = None


@dataclass(slots=True, eq=False)
class _Child:
    """A child, with its messages by their numbers.

    Attributes:
        sessions: of each relay.
    """

    process: subprocess.Popen[bytes]
    sessions: Sequence[int]
    ready: asyncio.Future[None]
    channel: FrameChannel = field(init=False)
    sending: dict[int, _Sending] = field(default_factory=dict)
    loads: list[int] = field(init=False)  # messages for each relay
    has_ended: bool = False

    def __post_init__(self) -> None:
        self.loads = [0] * len(self.sessions)


class _Children:
    """The children of a run."""

    def __init__(
        self, trace: Trace | None, warn: Callable[[str], object], token_sources: Sequence[TokenSource]
    ) -> None:
        self._trace = trace
        self._warn = warn
        self._token_sources = [(source, asyncio.Lock()) for source in token_sources]
        self._children: list[_Child] = []
        self._number = 0
        self._is_closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetches: set[asyncio.Task[None]] = set()
        self.is_stopped = False
        self._loop = asyncio.get_running_loop()

    async def start_all(self, number: int, sessions: Sequence[int], begin: bytes) -> None:
        """Start so many children, and wait until they can send. Raises what one of them raises where it cannot."""
        shares = [[each // number + (child < each % number) for each in sessions] for child in range(number)]
        try:
            async with asyncio.TaskGroup() as group:
                for share in shares:
                    group.create_task(self._start(share, begin))
        except* SMTPError as errors:
            found: BaseException = errors
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            raise found from None

    async def _start(self, sessions: Sequence[int], begin: bytes) -> None:
        end, other = socket.socketpair()
        with other:
            try:
                process = await asyncio.to_thread(_start_interpreter, other)
            except BaseException:
                end.close()
                raise
        child = _Child(process, sessions, self._loop.create_future())
        try:
            child.channel = await FrameChannel.open(end, partial(self._receive, child), partial(self._lost, child))
        except BaseException:
            end.close()
            process.kill()
            process.wait()
            raise
        self._children.append(child)
        uses_uvloop = type(self._loop).__module__.startswith("uvloop")
        child.channel.send(Frame.BEGIN, uses_uvloop, sessions, begin)
        await child.ready

    async def send(self, relay: int, message: Message, before_end: BeforeEnd | None) -> Delivery:
        """Have a child send a message to a relay; raise what `Pool.send` raises."""
        assert isinstance(message, _JobMessage), "composed by a JobComposer"
        while True:
            if self.is_stopped:
                raise LocalProtocolError("the run was stopped before this message began")
            child = self._choose(relay)
            self._number = number = self._number + 1
            sending = _Sending(relay, message, before_end, self._loop.create_future())
            child.sending[number] = sending
            child.loads[relay] += 1
            child.channel.send(Frame.SEND, number, relay, tuple(message.job))
            # No `await` but this one may come between the child's word and the ledger: see `_receive`.
            try:
                return await sending.result
            except _NotDelivered:
                continue
            except asyncio.CancelledError:
                if sending.result.done() and not sending.result.cancelled():  # in this step of the loop
                    if isinstance(sending.result.exception(), _NotDelivered):
                        raise
                    return sending.result.result()
                if isinstance(sending.late, Delivery):
                    return sending.late
                if isinstance(sending.late, DeliveryInDoubt):
                    raise sending.late from None
                if sending.late is not None:  # nothing was delivered
                    raise
                child.channel.send(Frame.CANCEL, number)
                if not sending.is_marked:  # and it never will be
                    raise
                return await self._await_last_word(child, sending)
            finally:
                del child.sending[number]
                child.loads[relay] -= 1

    async def _await_last_word(self, child: _Child, sending: _Sending) -> Delivery:
        """Return the delivery of a message that was marked and is cancelled, or raise whether it may have arrived."""
        if child.has_ended:
            raise _in_doubt(sending)
        sending.result = self._loop.create_future()
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT):
                return await sending.result
        except _NotDelivered:
            raise asyncio.CancelledError from None
        except (TimeoutError, asyncio.CancelledError):
            child.process.kill()
            raise _in_doubt(sending, "the sender gave up waiting") from None

    def _choose(self, relay: int) -> _Child:
        """Return the child that has the fewest messages for each of its sessions with the relay."""
        able = [child for child in self._children if child.sessions[relay] and not child.has_ended]
        if not able:
            raise SMTPError("the processes that send have ended: see what ended them; what was not sent stays pending")
        return min(able, key=lambda child: child.loads[relay] / child.sessions[relay])

    def stop(self) -> None:
        """Begin no further message in any child; those that have begun are answered."""
        self.is_stopped = True
        for child in self._children:
            child.channel.send(Frame.STOP)

    async def aclose(self) -> None:
        """Have the children close their sessions, and end them; after `END_TIMEOUT`, or if cancelled, at once."""
        self._is_closing = True
        for fetch in self._fetches:  # nobody needs a token any more
            fetch.cancel()
        for child in self._children:
            child.channel.send(Frame.CLOSE)
        waiting = [asyncio.to_thread(_wait, child.process) for child in self._children if not child.has_ended]
        try:
            await asyncio.gather(*waiting)
        finally:
            for child in self._children:
                child.channel.close()
                child.process.kill()
            await asyncio.shield(asyncio.to_thread(self._reap))
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _reap(self) -> None:
        for child in self._children:
            child.process.wait()

    # Called by the channels.

    def _receive(self, child: _Child, frame: Any) -> None:
        # The order of the frames is the order in which the ledger gets what they say. Whoever waits for a result goes
        # on in the next step of the loop, so a mark is asked for in the next step as well, behind it: the message
        # that follows on a session is then marked after the outcome of the one before it was recorded.
        kind = frame[0]
        if kind == Frame.MARK:
            self._loop.call_soon(self._mark, child, frame[1])
        elif kind == Frame.ACCEPTED:
            _, number, code, lines, host, size = frame
            if (sending := child.sending.get(number)) is not None:
                reply, content = Reply(code, lines), cast(_JobContent, sending.message.content)
                content.size = size
                envelope = sending.message.envelope
                _resolve(sending, Delivery(envelope, reply, (reply,), (reply,), content_sent=True, host=host))
        elif kind == Frame.DELIVERY:
            if (sending := child.sending.get(frame[1])) is not None:
                _resolve(sending, frame[2])
        elif kind in (Frame.ERROR, Frame.CANCELLED):
            if (sending := child.sending.get(frame[1])) is not None:
                _reject(sending, _NotDelivered() if kind == Frame.CANCELLED else frame[2])
        elif kind == Frame.READY:
            if not child.ready.done():
                child.ready.set_result(None)
        elif kind == Frame.FAILED:
            if not child.ready.done():
                child.ready.set_exception(frame[1])
        elif kind == Frame.TRACE and self._trace is not None:
            _, side, text, tls, refused = frame
            self._trace(side, text, tls=tls, refused=refused)
        elif kind == Frame.FETCH:
            fetch = self._begin(self._fetch(child, frame[1], frame[2]))
            self._fetches.add(fetch)
            fetch.add_done_callback(self._fetches.discard)
        elif kind == Frame.LOG:
            logging.getLogger(frame[1]).log(frame[2], "%s", frame[3])

    def _mark(self, child: _Child, number: int) -> None:
        sending = child.sending.get(number)
        if sending is None or child.has_ended:  # it was cancelled meanwhile
            return
        if sending.before_end is None:
            self._allow_end(child, number, sending, None)
            return
        try:
            mark = asyncio.ensure_future(sending.before_end())
        except SMTPError as error:
            child.channel.send(Frame.CANCEL, number)
            _reject(sending, error)
            return
        if mark.done():
            self._allow_end(child, number, sending, mark)
        else:
            mark.add_done_callback(lambda done: self._allow_end(child, number, sending, done))

    def _allow_end(self, child: _Child, number: int, sending: _Sending, mark: asyncio.Future[object] | None) -> None:
        """Allow the end of the content, once the mark is durable, unless the message was cancelled meanwhile."""
        if child.sending.get(number) is not sending or child.has_ended:
            return
        failure = None if mark is None or mark.cancelled() else mark.exception()
        if failure is not None or (mark is not None and mark.cancelled()):
            child.channel.send(Frame.CANCEL, number)
            _reject(sending, failure or LocalProtocolError("its mark was cancelled"))
            return
        sending.is_marked = True
        child.channel.send(Frame.MARKED, number)

    def _lost(self, child: _Child) -> None:
        """The child has ended, or will have: it is killed, so that nothing more of what it has can be sent."""
        child.has_ended = True
        child.process.kill()
        doubts = sum(sending.is_marked and not sending.result.done() for sending in child.sending.values())
        for sending in child.sending.values():
            _reject(sending, _in_doubt(sending) if sending.is_marked else _NotDelivered())
        if not child.ready.done():
            child.ready.set_exception(SMTPError("a process that was to send ended before it could begin"))
            child.ready.exception()
        elif not self._is_closing:
            self._begin(self._report(child, doubts))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name="asyncsmtp: processes")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _fetch(self, child: _Child, number: int, place: int) -> None:
        """Ask a token source for a child: it may be a function of the program, which no other process has."""
        source, one_at_a_time = self._token_sources[place]
        async with one_at_a_time:
            try:
                answer: object = await source()
            except Exception as error:
                answer = to_picklable(error)
        child.channel.send(Frame.TOKEN, number, answer)

    async def _report(self, child: _Child, doubts: int) -> None:
        code = await asyncio.to_thread(child.process.wait)
        how = f"with {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        what = "1 message" if doubts == 1 else f"{doubts} messages"
        left = sum(not each.has_ended for each in self._children)
        others = f"the run goes on with {left}" if left else "none is left, so the run ends"
        self._warn(f"a process that sends ended {how}: {what} in doubt; {others}")


def _resolve(sending: _Sending, delivery: Delivery) -> None:
    if sending.result.done():
        sending.late = delivery
    else:
        sending.result.set_result(delivery)


def _reject(sending: _Sending, error: BaseException) -> None:
    if sending.result.done():
        sending.late = error
    else:
        sending.result.set_exception(error)


def _in_doubt(sending: _Sending, why: str = "the process that sent it ended") -> DeliveryInDoubt:
    return DeliveryInDoubt(sending.message.envelope, why)


def _wait(process: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT)


def _start_interpreter(end: socket.socket) -> subprocess.Popen[bytes]:
    """Start a child with one end of a pair as its standard input.

    It is a new interpreter, not a fork: this process has threads. Ctrl-C is for the parent alone.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise ConfigError("there is no Python interpreter for further processes", "leave out processes=")
    folders = (folder or os.getcwd() for folder in sys.path)  # so that it imports what this process imports
    try:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=end.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"no further process can be started ({error.strerror})", "give fewer processes") from error


class ProcessPool:
    """A sender with the sessions that the children have with one relay.

    The first message goes alone, as the first session of a `Pool` does: a refused password is one refused login.
    """

    def __init__(self, children: _Children, relay: int) -> None:
        self._children = children
        self._relay = relay
        self._has_sent = False
        self._first = asyncio.Lock()

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message, as `Pool.send` does."""
        if not self._has_sent:
            async with self._first:
                if not self._has_sent:
                    try:
                        return await self._children.send(self._relay, message, before_end)
                    finally:
                        self._has_sent = True
        return await self._children.send(self._relay, message, before_end)

    def stop(self) -> None:
        """Begin no further message, as `Pool.stop` does."""
        if not self._children.is_stopped:
            self._children.stop()


class SentCampaign(Protocol):
    """An `OpenCampaign`, as far as the processes that send for it need it."""

    config: CampaignConfig
    prepared: PreparedCampaign
    ledger: Ledger
    relays: Sequence[RelayConfig]


@asynccontextmanager
async def open_processes(
    number: int, campaign: SentCampaign, *, trace: Trace | None = None, warn: Callable[[str], object] = logger.warning
) -> AsyncGenerator[list[ProcessPool]]:
    """Start so many children, at most one for each session; end them when the block ends. Yields a pool for each relay.

    Raises:
        ConfigError: they cannot be started; or what reading the campaign raises there.
    """
    file, relays = campaign.prepared.file, campaign.relays
    path, is_saved = Path(file.path), file.all_keys  # is_saved: rows that a program passed
    begin = {
        "config": campaign.config if is_saved else replace(campaign.config, recipients=path),
        "rows": path if is_saved else None,
        "relays": relays,
        "parts": campaign.prepared.parts,
        "created_at": campaign.ledger.created_at,
        "trace": trace is not None,
        "log_level": logging.getLogger("asyncsmtp").getEffectiveLevel(),
    }
    logins = [each.relay.login for each in relays if not isinstance(each.relay, str)]
    sources = [login.token for login in logins if login is not None and login.token is not None]
    sessions = [each.sessions for each in relays]
    children = _Children(trace, warn, sources)
    try:
        await children.start_all(min(number, max(sessions)), sessions, _dump(begin, sources))
        yield [ProcessPool(children, place) for place in range(len(relays))]
    finally:
        await children.aclose()


def _dump(begin: Mapping[str, object], token_sources: Sequence[TokenSource]) -> bytes:
    """Pickle what a child begins with; a token source is its place, by which the child asks for its tokens."""
    places = {id(source): place for place, source in enumerate(token_sources)}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> int | None:
            return places.get(id(value))

    output = io.BytesIO()
    Pickler(output, pickle.HIGHEST_PROTOCOL).dump(begin)
    return output.getvalue()
