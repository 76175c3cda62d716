"""What providers object to in the HTML of a message."""

from __future__ import annotations

from asyncsmtp.mail.checks.html import relative
from asyncsmtp.mail.checks.seen import Said, Seen
from asyncsmtp.protocol.replies import safe_text

__all__ = ["alternatives", "form", "image_only", "insecure", "long_html", "relative_image", "relative_link", "script"]

MOST_HTML = 100 * 1024  # octets: some providers cut what is longer
LEAST_TEXT = 60  # visible characters beside images
_RUNS = ("javascript:", "vbscript:", "data:")


def image_only(seen: Seen) -> Said:
    """Pictures of words, which no filter reads."""
    if seen.html is not None and seen.html.images and len(seen.html.text) < LEAST_TEXT:
        yield "the HTML is images with hardly any text", "write in text what the images say"


def alternatives(seen: Seen) -> Said:
    """Words for who sees no image."""
    missing = [source for source, alt in seen.html.images if alt is None] if seen.html else []
    if missing:
        yield f"the image {safe_text(missing[0], 80)} has no alt", 'add alt="…", or alt="" if it is decoration'


def long_html(seen: Seen) -> Said:
    """An end that some readers never see."""
    if seen.html_size > MOST_HTML:
        yield f"the HTML has {seen.html_size:,} octets, and some providers cut it at 100 KB", "shorten it"


def insecure(seen: Seen) -> Said:
    """Links and images in clear."""
    links = seen.html.links + seen.html.loaded if seen.html else []
    found = next((link for link in links if link.lower().startswith("http://")), None)
    if found is not None:
        yield f"the link {safe_text(found, 100)} is not encrypted", "use https"


def relative_link(seen: Seen) -> Said:
    """Links that want the folder of the page, which stayed at home."""
    found = next(filter(relative, seen.html.links), None) if seen.html else None
    if found is not None:
        yield (
            f"the link {safe_text(found, 100)} leads nowhere from a mailbox",
            "write the whole URL, beginning with https://",
        )


def relative_image(seen: Seen) -> Said:
    """Images, of styles too, that neither go along nor are on the web."""
    found = next(filter(relative, seen.html.loaded), None) if seen.html else None
    if found is not None:
        yield (
            f"the HTML shows {safe_text(found, 100)}, which the message does not bring along",
            "name it under inline and show it by cid:, or write its whole URL, beginning with https://",
        )


def script(seen: Seen) -> Said:
    """What would run."""
    if seen.html is None:
        return
    found = next((link for link in seen.html.links if link.lower().startswith(_RUNS)), None)
    if found is not None:
        yield f"the link {safe_text(found, 60)} runs a script", "link to a page"
    if seen.html.active:
        yield (
            f"the HTML has {safe_text(seen.html.active[0], 60)}, and no mailbox runs scripts",
            "take it out, and link to a page that does it",
        )


def form(seen: Seen) -> Said:
    """Fields to fill in."""
    if seen.html is not None and seen.html.forms:
        yield "the HTML has a form, which providers take for phishing or take out", "link to a page that has the form"
