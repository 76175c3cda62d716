"""Send an `email.message.EmailMessage`: the envelope is made from its headers, and Bcc is not sent.

Run `asyncsmtp sandbox` in another terminal, then: python examples/email_message.py
"""

import asyncio
import sys
from email.message import EmailMessage
from email.utils import localtime, make_msgid

import asyncsmtp

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"


async def main() -> None:
    message = EmailMessage()
    message["From"] = "Ada <ada@example.org>"
    message["To"] = "Bob <bob@example.com>"
    message["Bcc"] = "archive@example.org"
    message["Subject"] = "An old friend"
    message["Date"] = localtime()
    message["Message-ID"] = make_msgid(domain="example.org")
    message.set_content("Made by the standard library, sent by asyncsmtp.\n")

    delivery = await asyncsmtp.send(message, relay=RELAY)
    delivery.raise_for_refusal()  # a script often prefers an exception; by default refusals are values
    print(f"accepted by {delivery.host} for {', '.join(result.address for result in delivery)}")


asyncio.run(main())
