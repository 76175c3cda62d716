"""The stream reader that hears: at once, in order, and what came before anybody listened."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.connection.ear import Ear, open_streams

pytestmark = [pytest.mark.usefixtures("nothing_leaks"), pytest.mark.both_loops]


class Notes:
    """A hearer that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def heard(self, data: bytes) -> None:
        self.told.append(data)

    def lost(self, error: BaseException | None) -> None:
        self.told.append(error)


async def test_octets_are_heard_in_the_turn_that_brings_them() -> None:
    """RFC 3207 §6: a buffer nobody can look into is what makes octets in clear count as if they came over TLS."""
    ear, notes = Ear(asyncio.get_running_loop()), Notes()
    ear.attend(notes)
    ear.feed_data(b"220 ")
    assert notes.told == [b"220 "]


async def test_what_came_before_is_told_in_order() -> None:
    """A relay may greet, and hang up, before the session is made."""
    ear, notes = Ear(asyncio.get_running_loop()), Notes()
    broken = ConnectionResetError("reset")
    ear.feed_data(b"554 ")
    ear.feed_data(b"")
    ear.feed_data(b"no\r\n")
    ear.feed_eof()
    ear.set_exception(broken)
    ear.attend(notes)
    assert notes.told == [b"554 ", b"no\r\n", None, broken]
    ear.feed_eof()
    assert notes.told[4:] == [None]


async def test_a_connection_is_heard_to_its_end() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop, notes = asyncio.get_running_loop(), Notes()
    try:
        ear, writer = await open_streams(lambda make: loop.create_connection(make, "127.0.0.1", port))
        ear.attend(notes)
        async with asyncio.timeout(5):
            while None not in notes.told:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        writer.close()
        await writer.wait_closed()
        assert b"".join(octets for octets in notes.told if isinstance(octets, bytes)) == b"220 hello\r\n"
    finally:
        server.close()
        await server.wait_closed()
