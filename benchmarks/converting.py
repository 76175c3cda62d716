"""Composing from Markdown with a condition, and with a loop over a cell; the peer is the same mail written as HTML."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from asyncsmtp.mail.conversion.convert import Conversion, markdown_to_html
from asyncsmtp.mail.conversion.placeholders import MarkupLanguage
from asyncsmtp.mail.templates.template import Composer, Template
from asyncsmtp.protocol.envelope import Mailbox
from benchmarks.measure import Cost, Row, in_turn

__all__ = ["measure"]

_TEXT = "Lorem ipsum **dolor** sit amet, [consectetur](https://example.org/) adipiscing elit, sed do eiusmod.\n\n" * 40
_BEGIN, _END = f"# Hello {{{{ name }}}}\n\n{_TEXT}", f"{_TEXT}Bye {{{{ name|upper }}}}\n"
_CONDITION = ("{% if city == 'Wien' %}\nServus in {{ city }}.\n{% else %}\nHello.\n{% endif %}\n\n", (
    "{% if city == 'Wien' %}<p>Servus in {{ city }}.</p>{% else %}<p>Hello.</p>{% endif %}\n"
))  # fmt: skip
_LOOP = ("| item |\n|---|\n{% for item in items.split() %}\n| {{ item }} |\n{% endfor %}\n\n", (
    "<table><tr><th>item</th></tr>{% for item in items.split() %}<tr><td>{{ item }}</td></tr>\n{% endfor %}</table>\n"
))  # fmt: skip
_TO = Mailbox.parse("bob@x.example")
_DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)


async def measure(*, messages: int = 2_000, unlike: int = 100, turns: int = 9) -> list[Row]:
    """Return the cost of a message whose conversion is kept, and of one that must be converted."""
    found = []
    for work, (markdown, html), target, items in (
        ("compose, Markdown of 8 KB with a condition", _CONDITION, 0.90, lambda _: 0),
        ("compose, Markdown with a loop over 0 to 9 items", _LOOP, 0.80, lambda row: row % 10),
    ):
        source = f"{_BEGIN}{markdown}{_END}"
        ours = Template("n@example.com", "n", source, source, html_conversion=Conversion(MarkupLanguage.MARKDOWN))
        page = f"{_html(_BEGIN)}{html}{_html(_END)}"
        peer = Template("n@example.com", "n", source, page)
        mine, theirs = await in_turn(_run(ours, messages, items), _run(peer, messages, items), turns)
        ratio = theirs.each / mine.each
        cells = (f"{cost.each * 1000:.3f} ms" for cost in (mine, theirs))
        found.append(Row(work, *cells, f"{ratio:.2f}×", f"≥ {target:.2f}×", ratio >= target))
    source = f"{_BEGIN}{_LOOP[0]}{_END}"
    template = Template("n@example.com", "n", source, source, html_conversion=Conversion(MarkupLanguage.MARKDOWN))
    each = (await in_turn(_run(template, unlike, lambda row: row), _run(template, 1, lambda row: row), 1))[0].each
    found.append(Row("compose, no two rows with as many items", f"{each * 1000:.1f} ms", "", "", "in a thread", True))
    return found


def _html(markdown: str) -> str:
    return markdown_to_html(markdown, "{}")


def _run(template: Template, messages: int, items: Callable[[int], int]) -> Callable[[], object]:
    composer = template.compile(["name", "city", "items"])
    for row in range(10):
        _compose(composer, row, items(row))

    async def run() -> Cost:
        wall, cpu = time.perf_counter(), time.process_time()
        for row in range(messages):
            _compose(composer, row, items(row))
        return Cost(messages, time.perf_counter() - wall, time.process_time() - cpu)

    return run


def _compose(composer: Composer, row: int, items: int) -> None:
    """Compose one message as a campaign does."""
    cells = {"name": f"Bob {row}", "city": ("Wien", "Graz")[row % 2], "items": "item " * items}
    if (convert := composer.pending_conversion(_TO, cells)) is not None:
        convert()
    composer.compose(_TO, cells, message_id=f"{row}@example.com", date=_DATE)
