"""HTML and CSS of a template that mail programs do not support, by the tests of caniemail.com.

The facts are in caniemail.json, with their date and terms; docs/reference/list_mail_clients.py makes that file. They
are notes: much that a program ignores does no harm. CSS is parsed by tinycss2, of the extra `html`; without it nothing
is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asyncsmtp.mail.checks.rules import Finding, FindingLevel
from asyncsmtp.mail.conversion.images import blank_tags
from asyncsmtp.mail.templates.environment import DELIMITERS, Delimiters
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MAIL_CLIENT", "Feature", "find_unsupported", "read_features"]

MAIL_CLIENT = "mail-client"  # the name of the rule
MAX_FINDINGS = 8  # of one template
MAX_FEATURES = 6  # that one finding names
MAX_DEPTH = 20  # of blocks within blocks of a style sheet
_OUTLOOK = "Outlook on Windows"  # reads what is in a comment for MSO, and not what is there for the others
_FOR_OTHERS = re.compile(r"\s*\[if\s+!\s*mso", re.IGNORECASE)
_WHERE = "https://www.caniemail.com"
_SELECTORS = ("+", ">", "~", "*")


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of HTML or CSS that some programs do not support.

    Attributes:
        slug: its name in URLs of caniemail.com. name: as people know it.
        refused: programs that do not support it. partial: those that do in part, each with a note.
        tested: the year of the last test.
    """

    slug: str
    name: str
    refused: tuple[str, ...]
    partial: Mapping[str, str]
    tested: str

    def describe(self, key: str) -> str:
        """Return what to call it where it was found by this key: the property, the element, the selector."""
        kind, _, word = key.partition(":")
        if kind == "p" and word != "--":
            return word.replace("=", ": ")
        return {"e": f"<{word}>", "f": f"{word}()", "u": f"the unit {word}", "a": f"the attribute {word}"}.get(
            kind, f"the selector {word}" if kind == "s" and word in (*_SELECTORS, "[]") else self.name
        )


@dataclass(frozen=True, slots=True)
class _Data:
    date: str
    features: Mapping[str, Sequence[Feature]]  # by what a message has that uses them


@cache
def _read_package_data() -> _Data:
    loaded = json.loads((files("asyncsmtp.mail.checks") / "caniemail.json").read_text(encoding="utf-8"))
    clients, found = loaded["clients"], dict[str, list[Feature]]()
    for slug, (keys, name, refused, partial, tested) in loaded["features"].items():
        notes = {clients[int(number)]: note for number, note in partial.items()}
        feature = Feature(slug, name, tuple(clients[number] for number in refused), notes, tested)
        for key in [keys] if keys.startswith("@") else keys.split():
            found.setdefault(key, []).append(feature)
    return _Data(loaded["date"], found)


def read_features() -> Mapping[str, Sequence[Feature]]:
    """Return the features that some programs do not support, by the key of what uses them, such as `p:gap`."""
    return _read_package_data().features


def find_unsupported(
    sources: Mapping[str, str], delimiters: Delimiters = DELIMITERS, *, are_styles_inlined: bool = False
) -> list[Finding]:
    """Return what mail programs do not support of some HTML, as few notes, each with the file and the line.

    Args:
        sources: templates by the names of their files.
        are_styles_inlined: a style sheet goes into the elements, so that its selectors do not matter.
    """
    css = _import_css()
    if css is None:
        return []
    return [
        finding
        for file, source in sources.items()
        for finding in _find(css, source, file, delimiters, are_styles_inlined)
    ]


def _import_css() -> ModuleType | None:
    try:
        import tinycss2  # late: of an extra, and only a check needs it
    except ImportError:
        return None
    return tinycss2  # type: ignore[no-any-return]


@dataclass(slots=True)
class _Use:
    """The place where a feature is used first, and how often it is used."""

    feature: Feature
    key: str
    line: int
    number: int = 1
    for_outlook: bool = False  # also outside of what it does not read


def _find(css: ModuleType, source: str, file: str, delimiters: Delimiters, inlined: bool) -> Iterator[Finding]:
    file, reader = safe_text(file, 120), _Reader(css, blank_tags(source, delimiters), skips_selectors=inlined)
    uses: dict[str, _Use] = {}
    for key, line, is_for_others in reader.found:
        for feature in _read_package_data().features.get(key, ()):
            use = uses.setdefault(feature.slug, _Use(feature, key, line, 0))
            use.number += 1
            use.for_outlook |= not is_for_others
    groups: dict[tuple[str, ...], list[_Use]] = {}
    for use in sorted(uses.values(), key=lambda each: each.line):
        if refused := tuple(name for name in use.feature.refused if name != _OUTLOOK or use.for_outlook):
            groups.setdefault(refused, []).append(use)
    found = [_describe_refused(file, clients, used) for clients, used in groups.items()]
    noted = {use.feature.slug for used in groups.values() for use in used}
    found += [_describe_partial(file, use) for use in uses.values() if use.feature.slug not in noted and _partial(use)]
    found.sort(key=lambda each: (-each[0], each[1]))
    listed = sorted(found[:MAX_FINDINGS], key=lambda each: each[1])
    yield from (finding for _, _, finding in listed)
    if rest := len(found) - len(listed):
        sentence = (
            f"{file}, line {found[MAX_FINDINGS][1]}: {rest} more note{'s' * (rest > 1)} on mail programs like these"
        )
        yield Finding(MAIL_CLIENT, FindingLevel.NOTE, sentence, "correct those above first, then check again")


def _describe_refused(file: str, clients: Sequence[str], uses: Sequence[_Use]) -> tuple[int, int, Finding]:
    """Return the number of programs, the line, and the finding."""
    first = uses[0]
    named = [first.feature.describe(first.key)]
    named += [f"{use.feature.describe(use.key)} (line {use.line})" for use in uses[1:MAX_FEATURES]]
    if len(uses) > MAX_FEATURES:
        named.append(f"{len(uses) - MAX_FEATURES} more")
    verb = "does" if len(clients) == 1 else "do"
    sentence = f"{file}, line {first.line}: {_join(clients)} {verb} not support {safe_text(_join(named), 400)}"
    advice = f"see that it reads well without; {_cite([use.feature for use in uses])}"
    return len(clients), first.line, Finding(MAIL_CLIENT, FindingLevel.NOTE, sentence, advice)


def _partial(use: _Use) -> dict[str, str]:
    return {name: note for name, note in use.feature.partial.items() if name != _OUTLOOK or use.for_outlook}


def _describe_partial(file: str, use: _Use) -> tuple[int, int, Finding]:
    partial = _partial(use)
    notes: dict[str, list[str]] = {}
    for name, note in partial.items():
        notes.setdefault(note.rstrip("."), []).append(name)
    verb = "supports" if len(partial) == 1 else "support"
    what = use.feature.describe(use.key)
    sentence = f"{file}, line {use.line}: {_join([*partial])} {verb} {what} only in part"
    words = "; ".join(
        f"{_join(names)}: {note[:1].lower()}{note[1:]}" if len(notes) > 1 else note for note, names in notes.items()
    )
    words = f"{words[:1].lower()}{words[1:]}" if len(notes) == 1 else words
    advice = f"{words}; {_cite([use.feature])}"
    return len(partial), use.line, Finding(MAIL_CLIENT, FindingLevel.NOTE, sentence, advice)


def _cite(features: Sequence[Feature]) -> str:
    """Return the source of a fact: whose, where, and when it was tested."""
    years = sorted({feature.tested for feature in features})
    tested = years[0] if len(years) == 1 else f"{years[0]} to {years[-1]}"
    path = f"/features/{features[0].slug}/" if len(features) == 1 else ""
    return f"tested {tested}, {_WHERE}{path}"


def _join(names: Sequence[str]) -> str:
    """Return `one`, `one and two`, `one, two and three`; the programs of one family once."""
    outlooks = [name for name in names if name.startswith("Outlook")]
    if len(outlooks) == 3:
        names = ["Outlook" if name == outlooks[0] else name for name in names if name not in outlooks[1:]]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


class _Reader(HTMLParser):
    """A reader of HTML that notes what is used, by its key, with the line.

    Attributes:
        found: key, line, and whether it stands where Outlook on Windows does not read it.
    """

    def __init__(self, css: ModuleType, source: str, *, skips_selectors: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, int, bool]] = []
        self._css = css
        self._skips_selectors = skips_selectors
        self._is_for_others = False
        self._in_style = False
        with suppress(AssertionError, RecursionError):  # of HTML and CSS that are no such: what comes first was read
            self.feed(source)
            self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line = self.getpos()[0]
        text = self.get_starttag_text() or ""
        self._in_style = tag == "style"
        if tag != "link" or any(name == "rel" and "stylesheet" in (value or "") for name, value in attrs):
            self._note(f"e:{tag}", line)
        for name, value in attrs:
            self._note(f"a:{name}", line)
            if name == "style" and value:
                at = text.find(value)
                begin = line + (text.count("\n", 0, at) if at > 0 else 0)
                self._read_declarations(self._css.parse_blocks_contents(value), begin)
            if (tag, name) in (("img", "src"), ("video", "poster")) and value:
                self._note_image(value, line)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._in_style = False

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_comment(self, data: str) -> None:
        if _FOR_OTHERS.match(data):
            self._is_for_others = True
        elif "[endif]" in data:
            self._is_for_others = False

    def unknown_decl(self, data: str) -> None:
        """Read `<![if !mso]>` and `<![endif]>`, which other programs skip."""
        self._is_for_others = _FOR_OTHERS.match(f"[{data}") is not None

    def handle_data(self, data: str) -> None:
        if self._in_style:
            sheet = self._css.parse_stylesheet(data, skip_comments=True, skip_whitespace=True)
            self._read_rules(sheet, self.getpos()[0])

    def _note(self, key: str, line: int) -> None:
        self.found.append((key, line, self._is_for_others))

    def _note_image(self, url: str, line: int) -> None:
        if url.strip().lower().startswith("data:"):
            self._note("i:data:", line)
            return
        try:
            path = urlsplit(url.strip()).path
        except ValueError:  # of a template, perhaps
            return
        self._note(f"i:{path.rpartition('.')[2].lower()}", line)

    def _read_rules(self, rules: Iterable[Any], line: int, depth: int = 0) -> None:
        """Note what the rules of a style sheet use.

        Args:
            line: of the file, on which the first line of the style sheet is.
        """
        for rule in rules if depth < MAX_DEPTH else ():
            at = line + rule.source_line - 1
            if rule.type == "at-rule":
                name = rule.lower_at_keyword
                self._note(f"@{name}", at)
                words = self._css.serialize(rule.prelude).lower()
                for feature in re.findall(r"\(\s*(?:any-)?([a-z-]+)", words) if name == "media" else ():
                    self._note(f"@media {feature}", at)
                if rule.content is not None:
                    self._read_rules(self._parse_block(rule.content), line, depth + 1)
            elif rule.type == "qualified-rule":
                if not self._skips_selectors:
                    self._read_selector(rule.prelude, at)
                self._read_rules(self._parse_block(rule.content), line, depth + 1)
            elif rule.type == "declaration":
                self._read_declarations([rule], line)

    def _parse_block(self, content: Any) -> list[Any]:
        found: list[Any] = self._css.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
        return found

    def _read_selector(self, tokens: Sequence[Any], line: int) -> None:
        colons = 0
        for token in tokens:
            if token.type == "literal" and token.value == ":":
                colons += 1
                continue
            if colons and token.type in ("ident", "function"):
                self._note(f"s:{':' * colons}{token.lower_value if token.type == 'ident' else token.lower_name}", line)
            elif token.type == "literal" and token.value in _SELECTORS:
                self._note(f"s:{token.value}", line)
            elif token.type == "[] block":
                self._note("s:[]", line)
            colons = 0

    def _read_declarations(self, declarations: Iterable[Any], line: int) -> None:
        for each in declarations:
            if each.type != "declaration":
                continue
            at, name = line + each.source_line - 1, each.lower_name
            self._note("p:--" if name.startswith("--") else f"p:{name}", at)
            for token in each.value:
                if token.type == "ident":
                    self._note(f"p:{name}={token.lower_value}", at)
            self._read_values(each.value, at)

    def _read_values(self, tokens: Iterable[Any], line: int, depth: int = 0) -> None:
        for token in tokens if depth < MAX_DEPTH else ():
            if token.type == "function":
                self._note(f"f:{token.lower_name}", line)
                self._read_values(token.arguments, line, depth + 1)
            elif token.type == "dimension":
                self._note(f"u:{token.lower_unit}", line)
            elif token.type == "ident":
                self._note(f"w:{token.lower_value}", line)
