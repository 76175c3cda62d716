"""Send one mail with text, HTML, an image and an attachment, and print the relay's reply for each recipient.

Run `asyncsmtp sandbox` in another terminal, then: python examples/send_one.py
"""

import asyncio
import sys

import asyncsmtp

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"
PIXEL = bytes.fromhex(  # a PNG of one blue pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415478da63500d99060001b101108208487b0000000049454e44ae426082"
)


async def main() -> None:
    message = asyncsmtp.build(
        from_="Ada <ada@example.org>",
        to=["Bob <bob@example.com>", "cy@example.com"],
        subject="Grüße",
        text="Hello!\n",
        html='<p>Hello! <img src="cid:pixel" alt=""></p>',
        inline={"pixel": asyncsmtp.Attachment("pixel.png", PIXEL)},
        attachments=[asyncsmtp.Attachment("notes.txt", b"Attached.\r\n")],  # or the path of a file
    )
    for recipient in await asyncsmtp.send(message, relay=RELAY):
        print(f"{recipient.address}: {recipient.outcome} ({recipient.reply})")


asyncio.run(main())
