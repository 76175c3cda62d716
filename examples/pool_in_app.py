"""A pool in an async application: opened once, used by all tasks, closed at the end.

Here twenty sign-ups arrive at once; each handler waits for its own mail, over at most three connections.
Run `asyncsmtp sandbox` in another terminal, then: python examples/pool_in_app.py
"""

import asyncio
import sys

import asyncsmtp

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"


async def sign_up(pool: asyncsmtp.Pool, address: str) -> asyncsmtp.Outcome:
    """Send one mail and return its outcome, as a request handler would."""
    message = asyncsmtp.build(
        from_="Example <hello@example.org>", to=address, subject="Welcome", text=f"Welcome, {address}!\n"
    )
    try:
        delivery = await pool.send(message)
    except asyncsmtp.DeliveryInDoubt:  # the relay may have it, so it is not sent again
        return asyncsmtp.Outcome.IN_DOUBT
    return delivery.outcome(address)


async def main() -> None:
    async with asyncsmtp.Pool(RELAY, sessions=3) as pool, asyncio.TaskGroup() as requests:
        tasks = [requests.create_task(sign_up(pool, f"person{number}@example.com")) for number in range(20)]
    outcomes = [task.result() for task in tasks]
    for outcome in asyncsmtp.Outcome:
        print(f"{outcomes.count(outcome)} {outcome}")


asyncio.run(main())
