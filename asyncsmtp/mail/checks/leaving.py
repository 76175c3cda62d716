"""What providers object to in the way out of a list (RFC 2369, RFC 8058)."""

from __future__ import annotations

import re

from asyncsmtp.mail.checks.seen import Said, Seen
from asyncsmtp.protocol.replies import safe_text

__all__ = ["one_click", "unsubscribe", "unsubscribe_signed"]

_BRACKETED = re.compile(r"<([^<>]*)>")
_COMMENT = re.compile(r"\([^()]*\)")
_WAYS = ("https://", "http://", "mailto:")
_ONE_CLICK = "list-unsubscribe=one-click"


def unsubscribe(seen: Seen) -> Said:
    """A way out of the list, as a list of URLs."""
    value = seen.message["List-Unsubscribe"]
    if value is None:
        yield "there is no List-Unsubscribe", "add [unsubscribe] with a url to the campaign"
    elif not _urls(str(value)):
        yield (
            f"List-Unsubscribe has no URL in angle brackets (RFC 2369 §2): {safe_text(str(value), 80)}",
            'write "<https://…>", or leave it to [unsubscribe]',
        )


def one_click(seen: Seen) -> Said:
    """A way out that takes a single POST, which the provider's own button sends."""
    value, post = (seen.message[name] for name in ("List-Unsubscribe", "List-Unsubscribe-Post"))
    if value is None:
        return
    urls = _urls(str(value))
    if post is None:
        yield "unsubscribing takes more than one click (RFC 8058)", "set one_click = true under [unsubscribe]"
    elif str(post).strip().lower() != _ONE_CLICK:
        yield (
            f"List-Unsubscribe-Post says {safe_text(str(post), 60)}, which means nothing (RFC 8058 §3.1)",
            'write "List-Unsubscribe=One-Click", or leave it to [unsubscribe]',
        )
    elif urls and not any(url.startswith("https://") for url in urls):
        yield (
            "one click needs an https URL in List-Unsubscribe (RFC 8058 §3.1), and there is none",
            "add [unsubscribe] with a url to the campaign",
        )


def unsubscribe_signed(seen: Seen) -> Said:
    """A way out that nobody on the way can have changed."""
    wanted = {name for name in ("list-unsubscribe", "list-unsubscribe-post") if name in seen.message}
    if wanted and seen.signed and not any(wanted <= covered for _, covered in seen.signed):
        yield "no DKIM signature covers List-Unsubscribe (RFC 8058 §4)", "sign with [dkim] of the campaign"


def _urls(value: str) -> list[str]:
    """The ways out, white space within the brackets gone, schemes in lower case; none where the field is none."""
    if _COMMENT.sub("", _BRACKETED.sub("", value)).strip(" ,\t\r\n"):
        return []
    urls = ["".join(url.split()) for url in _BRACKETED.findall(value)]
    return [scheme + url[len(scheme) :] for url in urls for scheme in _WAYS if url.lower().startswith(scheme)]
