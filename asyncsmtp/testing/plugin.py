"""A pytest plugin: the fixture `smtp_relay`, for tests of any code that sends mail, asynchronous or not.

    def test_the_receipt_is_mailed(smtp_relay):
        shop.checkout(mail_host=smtp_relay.host, mail_port=smtp_relay.port)
        [message] = smtp_relay.wait_for(1)
        assert message.email["Subject"] == "Your receipt"

    @pytest.mark.smtp_relay({Stage.RCPT: "550 5.1.1 no such user"}, offers=())
    def test_a_refusal_is_shown(smtp_relay): ...

The marker takes the arguments of `ScriptedRelay`. The relay runs in a thread with an event loop of its own, so
that the test may block. An asynchronous test can use `async with ScriptedRelay()` instead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from asyncsmtp.testing.received import Received
from asyncsmtp.testing.relay import ScriptedRelay

__all__ = ["RelayInThread", "pytest_configure", "smtp_relay"]


class RelayInThread:
    """A scripted relay that serves in a thread while the test does something else.

    Attributes:
        relay: the relay itself; its lists may be read, its coroutines belong to the other thread.
    """

    def __init__(self, relay: ScriptedRelay) -> None:
        self.relay = relay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smtp_relay", daemon=True)

    @property
    def host(self) -> str:
        return self.relay.host

    @property
    def port(self) -> int:
        return self.relay.port

    @property
    def url(self) -> str:
        return self.relay.url

    @property
    def received(self) -> list[Received]:
        """The messages accepted so far."""
        return list(self.relay.received)

    @property
    def dialogue(self) -> list[str]:
        """The commands and replies so far, as `C: …` and `S: …` lines."""
        return list(self.relay.dialogue)

    def wait_for(self, messages: int = 1, *, seconds: float = 5.0) -> list[Received]:
        """Block until so many messages were received; return all messages.

        Raises:
            TimeoutError: they did not arrive in time.
        """
        waiting = asyncio.wait_for(self.relay.wait_for(messages), seconds)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result()
        return self.received

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.relay.start(), self._loop).result()

    def close(self) -> None:
        """Close all connections and end the thread.

        Raises:
            Exception: raised by a rule of the script or `on_accept`.
        """
        try:
            asyncio.run_coroutine_threadsafe(self.relay.__aexit__(None, None, None), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "smtp_relay(script, **options): arguments for the relay of that fixture")


@pytest.fixture
def smtp_relay(request: pytest.FixtureRequest) -> Iterator[RelayInThread]:
    """Run a relay on loopback that keeps the mail it receives; `@pytest.mark.smtp_relay(…)` gives its arguments."""
    marker = request.node.get_closest_marker("smtp_relay")
    running = RelayInThread(ScriptedRelay(*marker.args, **marker.kwargs) if marker else ScriptedRelay())
    running.start()
    yield running
    running.close()
