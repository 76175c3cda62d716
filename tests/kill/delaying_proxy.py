"""A proxy for connections between hosts, with delays and partitions.

    python delaying_proxy.py ADDRESS SECONDS PORT...

listens at ADDRESS, with a free port for each PORT of 127.0.0.1, and prints these ports. What is sent arrives after
SECONDS to twice SECONDS, in its order. A line `cut HOST N` on stdin stops everything between HOST and the Nth port, in
both directions, without a sign of it at either end, as in a network that is parted; `mend HOST N` lets what has waited
go on. Each line is answered with `done`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import defaultdict, deque


class Proxy:
    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.open: dict[tuple[str, int], asyncio.Event] = defaultdict(self._make_open)
        self.chance = random.Random(5321)

    @staticmethod
    def _make_open() -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    async def serve(self, place: int, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self.open[writer.get_extra_info("peername")[0], place]
        try:
            await link.wait()
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            pumps = [
                asyncio.create_task(self.pump(reader, inner_writer, link)),
                asyncio.create_task(self.pump(inner_reader, writer, link)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                await link.wait()  # an end is no more seen through a partition than anything else
                await asyncio.wait(pumps, timeout=2 * self.delay + 0.05)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
                inner_writer.transport.abort()
        except OSError:
            pass  # one of the two is gone, which the other one learns by the end of its connection
        finally:
            writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: asyncio.Event) -> None:
        """Pass on what is read, later; reading does not wait for the writing."""
        waiting: deque[tuple[float, bytes]] = deque()
        filled = asyncio.Event()

        async def write() -> None:
            while True:
                while not waiting:
                    filled.clear()
                    await filled.wait()
                due, data = waiting.popleft()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await link.wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        writing = asyncio.create_task(write())
        try:
            due, data = 0.0, b"-"
            while data and not writing.done():
                data = await reader.read(65536)
                due = max(due, time.monotonic() + self.delay * self.chance.uniform(1, 2))
                waiting.append((due, data))
                filled.set()
            await writing
        except OSError:
            pass
        finally:
            writing.cancel()
            await asyncio.wait([writing])


async def main(address: str, delay: float, targets: list[int]) -> None:
    proxy, ports = Proxy(delay), []
    for place, port in enumerate(targets):

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: int = place, port: int = port
        ) -> None:
            await proxy.serve(place, port, reader, writer)

        server = await asyncio.start_server(serve, address, 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, host, place_word = line.split()
        link = proxy.open[host, int(place_word)]
        (link.clear if word == "cut" else link.set)()
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), [int(word) for word in sys.argv[3:]]))
