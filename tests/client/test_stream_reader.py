"""The stream reader with a callback: at once, in order, with the data that came before the callback."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.connection.transport import PushStreamReader, open_streams

pytestmark = [pytest.mark.usefixtures("nothing_leaks"), pytest.mark.both_loops]


class Notes:
    """A callback that notes its calls."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def connection_lost(self, error: BaseException | None) -> None:
        self.told.append(error)


async def test_bytes_are_handled_in_the_turn_that_brings_them() -> None:
    """RFC 3207 §6: a buffer nobody can look into is what makes octets in clear count as if they came over TLS."""
    reader, notes = PushStreamReader(asyncio.get_running_loop()), Notes()
    reader.push_to(notes)
    reader.feed_data(b"220 ")
    assert notes.told == [b"220 "]


async def test_what_came_before_is_reported_in_order() -> None:
    """A relay may greet, and hang up, before the session is made."""
    reader, notes = PushStreamReader(asyncio.get_running_loop()), Notes()
    broken = ConnectionResetError("reset")
    reader.feed_data(b"554 ")
    reader.feed_data(b"")
    reader.feed_data(b"no\r\n")
    reader.feed_eof()
    reader.set_exception(broken)
    reader.push_to(notes)
    assert notes.told == [b"554 ", b"no\r\n", None, broken]
    reader.feed_eof()
    assert notes.told[4:] == [None]


async def test_a_connection_is_read_to_its_end() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop, notes = asyncio.get_running_loop(), Notes()
    try:
        reader, writer = await open_streams(lambda make: loop.create_connection(make, "127.0.0.1", port))
        reader.push_to(notes)
        async with asyncio.timeout(5):
            while None not in notes.told:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        writer.close()
        await writer.wait_closed()
        assert b"".join(octets for octets in notes.told if isinstance(octets, bytes)) == b"220 hello\r\n"
    finally:
        server.close()
        await server.wait_closed()
