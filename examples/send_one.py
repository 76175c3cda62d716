"""Send one mail with text, HTML and an image, and look at what the relay answered.

Run `asyncsmtp sandbox` in another terminal, then: python examples/send_one.py
"""

import asyncio
import sys
from datetime import UTC, datetime
from uuid import uuid4

import asyncsmtp

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"
DOT = bytes.fromhex(  # a PNG of one blue pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415478da63500d99060001b101108208487b0000000049454e44ae426082"
)


async def main() -> None:
    message = asyncsmtp.build(
        from_="Ada <ada@example.org>",
        to=["Bob <bob@example.com>", "cy@example.com"],
        subject="Grüße",
        text="Hello!\n",
        html='<p>Hello! <img src="cid:dot" alt=""></p>',
        inline={"dot": asyncsmtp.Attachment("dot.png", DOT)},
        attachments=[asyncsmtp.Attachment("notes.txt", b"Attached.\r\n")],
        message_id=f"{uuid4().hex}@example.org",
        date=datetime.now(UTC),
    )
    delivery = await asyncsmtp.send(message, relay=RELAY)
    for path, outcome, reply in zip(
        delivery.envelope.forward_paths, delivery.outcomes, delivery.replies, strict=True
    ):
        print(f"{path}: {outcome} ({reply})")


asyncio.run(main())
