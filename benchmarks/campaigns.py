"""Campaigns to measure with: people, and letters of a given size."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write"]

CAMPAIGN = """
[campaign]
name = "benchmark"
from = "News <news@example.org>"
subject = "News for {{{{ name }}}}"
recipients = "people.csv"
email = "email"
text = "message.txt"
html = "message.html"

[relay]
url = "smtp://127.0.0.1:{port}?security=none"
sessions = {sessions}
"""
SENTENCE = "The quick brown fox of the department jumps over the lazy dog of the other one, at length. "


def write(folder: Path, rows: int, port: int, *, sessions: int, octets: int) -> Path:
    """Write a campaign of `rows` letters with `octets` of text and HTML together; return its file."""
    folder.mkdir(parents=True)
    with (folder / "people.csv").open("w") as people:
        people.write("email,name,city,code\n")
        people.writelines(f"person{row}@example.com,Person {row},City of {row % 97},{row:08x}\n" for row in range(rows))
    text = paragraphs("", "\n", octets // 4)
    html = paragraphs("<p style='margin:0 0 1em 0;color:#333'>", "</p>\n", octets - octets // 4)
    (folder / "message.txt").write_text(
        f"Dear {{{{ name }}}} in {{{{ city }}}},\n\n{text}\nYour code is {{{{ code }}}}.\n"
    )
    (folder / "message.html").write_text(
        f"<p>Dear {{{{ name }}}} in {{{{ city }}}},</p>\n{html}<p>{{{{ code }}}}</p>\n"
    )
    (folder / "campaign.toml").write_text(CAMPAIGN.format(port=port, sessions=sessions))
    return folder / "campaign.toml"


def paragraphs(begin: str, end: str, octets: int) -> str:
    """As many paragraphs as make about so many octets."""
    paragraph = begin + SENTENCE * 3 + end
    return paragraph * max(1, octets // len(paragraph))
