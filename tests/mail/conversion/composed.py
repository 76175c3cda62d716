"""The parts of a message out of templates that are converted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email import message_from_bytes, policy

from asyncsmtp.mail.conversion.convert import Conversion
from asyncsmtp.mail.templates.template import Composer, Template
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["compose", "composed"]

DATE = datetime(2026, 3, 1, tzinfo=UTC)
TO = Mailbox.parse("a@example.net")


def composed(
    html: str | None = None,
    text: str | None = None,
    *,
    to_html: Conversion | None = None,
    to_text: Conversion | None = None,
    html_name: str = "html",
    files: Mapping[str, str] | None = None,
    **fields: str,
) -> dict[str, str]:
    """Compose a message; return its parts by their subtypes."""
    template = Template(
        from_="n@example.org",
        subject="s",
        html=html,
        text=text,
        html_name=html_name,
        html_conversion=to_html,
        text_conversion=to_text,
        loader=None if files is None else files.__getitem__,
    )
    return compose(template.compile(tuple(fields)), **fields)


def compose(composer: Composer, **fields: str) -> dict[str, str]:
    """Return the parts of one message by their subtypes."""
    message = composer.compose(TO, fields, message_id="a@b.example", date=DATE)
    parsed = message_from_bytes(bytes(message.content), policy=policy.default)  # type: ignore[arg-type]
    return {
        part.get_content_subtype(): part.get_content().replace("\r\n", "\n")
        for part in parsed.walk()
        if not part.is_multipart()
    }
