"""Content from a file or a stream: in constant memory, and never ended when its source fails."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.session.content_sources import FileContent, StreamContent
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, ExtensionNotSupported, MessageError, ReplyTimeout, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import Fin, Rst, ScriptedRelay, Stage, StopReading
from tests.client.support import PATIENT, QUICK, message, playing, pooling, relay_of, serving, takes_all

pytestmark = pytest.mark.usefixtures("nothing_leaks")

HEAD = b"Subject: from afar\r\n\r\n"
LINE = b"." + b"x" * 75 + b"\r\n"  # each needs its dot doubled
DIALOGUES = pytest.mark.parametrize("dialogue", [Dialogue.LOCKSTEP, Dialogue.PIPELINED, Dialogue.STREAMED])


def mail(content: AnyContent) -> Message:
    return Message(Envelope.of("from@example.org", ["to@example.net"]), content)


def written(folder: Path, octets: bytes) -> Path:
    (folder / "mail.eml").write_bytes(octets)
    return folder / "mail.eml"


async def lines(number: int) -> AsyncIterator[bytes]:
    yield HEAD
    for _ in range(number):
        yield LINE
        await asyncio.sleep(0)


@DIALOGUES
@pytest.mark.parametrize("number", [0, 3, 5_000])
async def test_a_file_arrives_octet_for_octet(tmp_path: Path, dialogue: Dialogue, number: int) -> None:
    """Smaller than a block, and of many; SIZE is declared."""
    octets = HEAD + LINE * number
    content = await FileContent.scan(written(tmp_path, octets))
    async with playing(relay={"dialogue": dialogue}) as (server, session):
        for _ in range(2):
            assert (await session.send(mail(content))).accepted
        assert (await session.send(message())).accepted
    assert [received.content for received in server.received[:2]] == [octets, octets]
    assert f"C: MAIL FROM:<from@example.org> SIZE={len(octets)}" in server.dialogue


@DIALOGUES
async def test_a_stream_arrives_octet_for_octet(dialogue: Dialogue) -> None:
    """Of unknown size: SIZE is not declared, and 8BITMIME is, since an octet above 127 may come."""
    async with playing(relay={"dialogue": dialogue}) as (server, session):
        assert (await session.send(mail(StreamContent(lines(3_000))))).accepted
        assert (await session.send(mail(StreamContent([HEAD, LINE], size=len(HEAD + LINE), eight_bit=False)))).accepted
    assert [received.content for received in server.received] == [HEAD + LINE * 3_000, HEAD + LINE]
    assert "C: MAIL FROM:<from@example.org> BODY=8BITMIME" in server.dialogue
    assert f"C: MAIL FROM:<from@example.org> SIZE={len(HEAD + LINE)}" in server.dialogue


async def test_line_ends_are_mended_on_demand(tmp_path: Path) -> None:
    path = written(tmp_path, b"Subject: x\n\nhello")
    with pytest.raises(MessageError, match="fix_eols"):
        await FileContent.scan(path)
    content = await FileContent.scan(path, fix_eols=True)
    async with playing() as (server, session):
        assert (await session.send(mail(content))).accepted
    assert server.received[0].content == b"Subject: x\r\n\r\nhello\r\n"


class Spoilt(Exception):
    """What a source raises."""


async def failing() -> AsyncIterator[bytes]:
    async for line in lines(2_000):
        yield line
    raise Spoilt("the disk is gone")


def bare() -> Iterator[bytes]:
    yield from [HEAD, LINE * 2_000, b"a\nb\r\n"]


SPOILT = {
    "it fails": (lambda: StreamContent(failing()), Spoilt),
    "a bare LF": (lambda: StreamContent(bare()), MessageError),
    "too short": (lambda: StreamContent([HEAD, LINE], size=10_000), MessageError),
    "too long": (lambda: StreamContent([HEAD, LINE * 2_000], size=100), MessageError),
    "8 bits": (lambda: StreamContent([HEAD, LINE * 2_000, b"\xff\r\n"], eight_bit=False), MessageError),
    "a header beyond ASCII": (lambda: StreamContent(["Subject: é\r\n\r\n".encode(), LINE]), MessageError),
}


@DIALOGUES
@pytest.mark.parametrize("how", SPOILT)
async def test_a_source_that_fails_never_ends_its_content(dialogue: Dialogue, how: str) -> None:
    """The relay has not the message: no dot and no last chunk; the session is over, and a pool serves on."""
    make, error = SPOILT[how]
    async with pooling(relay={"dialogue": dialogue}, pool={"sessions": 1}) as (server, pool):
        with pytest.raises(error):
            await pool.send(mail(make()))
        assert (await pool.send(message())).accepted
        assert [received.forward_paths for received in server.received] == [("to1@example.net",)]
        assert "." not in server.get_dialogue(1)
        assert not [line for line in server.get_dialogue(1) if line.endswith("LAST")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HEAD + LINE, HEAD + LINE * 2),
        (HEAD + LINE, HEAD),
        (HEAD + b"aa\r\n", HEAD + "é\r\n".encode()),
        (b"Subject: aa\r\n\r\n\xc3\xa9\r\n", "Subject: é\r\n\r\naa\r\n".encode()),
    ],
    ids=["longer", "shorter", "eight bits", "eight bits in a header"],
)
async def test_a_file_that_has_changed_is_not_sent(tmp_path: Path, before: bytes, after: bytes) -> None:
    """Its size, and what the relay must offer for it, were settled before; what is in it now, nobody has looked at."""
    path = written(tmp_path, before)
    content = await FileContent.scan(path)
    path.write_bytes(after)
    async with playing() as (server, session):
        with pytest.raises(MessageError, match="changed"):
            await session.send(mail(content))
        assert not session.usable
    assert server.received == []


async def test_a_file_goes_again_over_a_fresh_connection_and_a_stream_does_not(tmp_path: Path) -> None:
    """WI-24: what was taken from a stream is gone; the sender is told that nothing was delivered."""
    script: dict[Stage, object] = {Stage.BODY: {2: Fin(), 4: Fin()}}
    content = await FileContent.scan(written(tmp_path, HEAD + LINE * 20_000))
    async with pooling(script, pool={"sessions": 1}) as (server, pool):  # type: ignore[arg-type]
        assert (await pool.send(message(1))).accepted
        assert (await pool.send(mail(content))).accepted
        with pytest.raises(ConnectionLost):
            await pool.send(mail(StreamContent(lines(20_000))))
        assert (await pool.send(message(2))).accepted
    assert [len(received.content) for received in server.received][1] == content.size


async def test_a_stream_is_sent_once() -> None:
    content = StreamContent([HEAD])
    async with playing() as (_, session):
        assert (await session.send(mail(content))).accepted
        with pytest.raises(MessageError, match="make another"):
            await session.send(mail(content))


async def test_what_a_stream_may_have_in_it_is_asked_of_the_relay_first() -> None:
    """WO-12: before MAIL."""
    async with ScriptedRelay(offers=("PIPELINING",)) as server, Session(relay_of(server)) as session:
        with pytest.raises(ExtensionNotSupported, match="8BITMIME"):
            await session.send(mail(StreamContent([HEAD])))
        assert server.count_stage(Stage.MAIL) == 0
        assert (await session.send(mail(StreamContent([HEAD], eight_bit=False)))).accepted


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_content() -> None:
    """RE-01: a hundred megabytes of a stream, and a few blocks of it in memory."""
    block, number = LINE * 800, 1_600
    blocks = (HEAD if place == 0 else block for place in range(number))
    content = StreamContent(blocks, size=len(HEAD) + (number - 1) * len(block), eight_bit=False)
    async with (
        serving(takes_all) as port,
        Session(Relay("127.0.0.1", port, Security.PLAINTEXT, timeouts=PATIENT)) as session,
    ):
        tracemalloc.start()
        try:
            assert (await session.send(mail(content))).accepted
            assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
        finally:
            tracemalloc.stop()


async def test_a_relay_that_stops_reading_is_a_timeout(tmp_path: Path) -> None:
    """RE-01: no progress within the limit of a block."""
    path = written(tmp_path, HEAD)
    with path.open("ab") as file:
        for _ in range(400):
            file.write(LINE * 500)
    content = await FileContent.scan(path)
    async with playing({Stage.BODY: StopReading()}, relay={"timeouts": QUICK}) as (_, session):
        with pytest.raises(ReplyTimeout, match="content"):
            await session.send(mail(content))
    os.unlink(path)


async def test_a_source_that_hangs_is_given_up() -> None:
    """The relay would hang up at some time; the sender is told whose fault it is."""

    async def hanging() -> AsyncIterator[bytes]:
        yield HEAD
        await asyncio.sleep(3600)

    async with playing(relay={"timeouts": QUICK}) as (server, session):
        with pytest.raises(MessageError, match="source"):
            await session.send(mail(StreamContent(hanging())))
    assert server.received == []


async def test_a_source_that_is_cancelled_is_closed() -> None:
    """Its own clean-up runs, and the relay never sees the dot."""
    closed = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        try:
            yield HEAD + LINE * 2_000
            await asyncio.sleep(3600)
        finally:
            closed.set()

    async with playing() as (server, session):
        sending = asyncio.create_task(session.send(mail(StreamContent(slow()))))
        await server.wait_for_stage(Stage.BODY)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(5):
            await closed.wait()
    assert server.received == []


async def silent() -> AsyncIterator[bytes]:
    """A source that begins, and says nothing more."""
    yield HEAD
    await asyncio.Event().wait()


@DIALOGUES
async def test_a_connection_that_is_lost_is_noticed_though_the_source_is_silent(dialogue: Dialogue) -> None:
    """It was the source that was blamed, after as long as a relay may take to read a block."""
    stage = Stage.BDAT if dialogue is Dialogue.STREAMED else Stage.BODY
    async with playing({stage: Rst()}, relay={"dialogue": dialogue}) as (_, session), asyncio.timeout(5):
        with pytest.raises(ConnectionLost):
            await session.send(mail(StreamContent(two_blocks_then_silent())))


async def two_blocks_then_silent() -> AsyncIterator[bytes]:
    yield HEAD + LINE * 2_000
    await asyncio.Event().wait()


async def test_a_session_that_is_closed_does_not_wait_for_a_silent_source() -> None:
    async with playing() as (server, session), asyncio.timeout(5):
        sending = asyncio.create_task(session.send(mail(StreamContent(silent()))))
        await server.wait_for_stage(Stage.DATA)
        await session.aclose()
        with pytest.raises(SMTPError):
            await sending


async def test_a_pool_drains_in_its_time_though_a_source_is_silent() -> None:
    async with pooling() as (server, pool), asyncio.timeout(5):
        sending = asyncio.create_task(pool.send(mail(StreamContent(silent()))))
        await server.wait_for_stage(Stage.DATA)
        assert not await pool.drain(0.1)
        with pytest.raises(SMTPError):
            await sending


async def test_a_source_keeps_its_own_timeouts() -> None:
    """It is asked in the task that sends: a timeout that it holds over its blocks is that task's."""

    async def limited() -> AsyncIterator[bytes]:
        async with asyncio.timeout(5):
            yield HEAD
            yield LINE

    async def impatient() -> AsyncIterator[bytes]:
        yield HEAD
        async with asyncio.timeout(0.05):
            await asyncio.Event().wait()

    async with playing() as (server, session):
        assert (await session.send(mail(StreamContent(limited())))).accepted
        with pytest.raises(TimeoutError):
            await session.send(mail(StreamContent(impatient())))
    assert len(server.received) == 1
