"""A semaphore whose size can change."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.client.pool.pool_limits import ResizableSemaphore
from tests.client.support import rounds


async def test_it_lets_in_as_many_as_its_size_and_the_others_in_order() -> None:
    made, order = ResizableSemaphore(2), []

    async def come(number: int, first: bool = False) -> None:
        await made.acquire(first=first)
        order.append(number)

    coming = [asyncio.create_task(come(number)) for number in range(5)]
    await rounds()
    assert order == [0, 1]
    assert made.full
    urgent = asyncio.create_task(come(9, first=True))
    await rounds()
    for _ in range(4):
        made.release()
        await rounds()
    await asyncio.gather(*coming, urgent)
    assert order == [0, 1, 9, 2, 3, 4]


async def test_a_waiter_cancelled_just_as_it_is_let_in_makes_room_for_the_next() -> None:
    """The place that it was given would be lost for ever."""
    made = ResizableSemaphore(1)
    await made.acquire()
    waiting = [asyncio.create_task(made.acquire()) for _ in range(3)]
    await rounds()
    made.release()
    waiting[0].cancel()  # it was let in, and does not know yet
    waiting[1].cancel()  # it was not
    await rounds()
    assert [task.cancelled() for task in waiting] == [True, True, False]
    assert waiting[2].done()
    made.release()
    assert not made.full


@given(st.lists(st.sampled_from(["come", "leave", "give up", "smaller", "larger"]), max_size=60))
def test_it_is_full_only_while_its_size_is_taken(steps: list[str]) -> None:
    """Against a model that counts: nobody waits while there is room, and nobody comes in while there is none."""

    async def run() -> None:
        size, inside = 3, 0
        made, waiting = ResizableSemaphore(size), []
        for step in steps:
            before = inside
            if step == "come":
                waiting.append(asyncio.create_task(made.acquire()))
            elif step == "leave" and inside:
                made.release()
                inside -= 1
            elif step == "give up" and waiting:
                waiting[len(waiting) // 2].cancel()
            elif step == "smaller":
                size = max(1, size - 1)
                made.resize(size)
            elif step == "larger":
                size += 1
                made.resize(size)
            await rounds(3)
            done = [task for task in waiting if task.done()]
            inside += sum(not task.cancelled() for task in done)
            waiting = [task for task in waiting if not task.done()]
            assert inside <= max(size, before)
            assert not waiting or inside >= size
            assert made.full == (inside >= size)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())
