"""The text and the HTML of a campaign: read, checked as they are written, and then one made from the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from asyncsmtp.errors import TemplateError

if TYPE_CHECKING:
    from asyncsmtp.cli.campaign.settings import Settings
    from asyncsmtp.mail.templates.environment import Loader
    from asyncsmtp.mail.templates.variables import Columns

__all__ = ["Bodies", "Written"]

_MARKDOWN = frozenset({".md", ".markdown"})
_HTML = frozenset({".htm", ".html"})


@dataclass(frozen=True, slots=True)
class Bodies:
    """What a template is made of.

    Attributes:
        text_name: what an error calls it: the file, or what was made of the file, whose lines are others.
        images: the paths of those that the HTML shows, by their `cid:`.
    """

    text: str | None
    html: str | None
    text_name: str
    html_name: str = "html"
    images: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """The sources as people wrote them."""

    text: str | None
    html: str | None

    @classmethod
    def of(cls, settings: Settings, read: Callable[[Path, str], str]) -> Written:
        """Read what the settings name, for the role that `read` is told."""
        text = read(settings.text, "text") if settings.text else None
        return cls(text, read(settings.html, "html") if settings.html else None)

    def bodies(self, settings: Settings, columns: Columns, include: Loader) -> Bodies:
        """Make each part that is wanted from the one it is made of.

        Args:
            include: gives a file that a template includes.
        Raises:
            TemplateError: in the lines of the file it is about, as far as it can be told before anything is made.
        """
        text_name = (settings.text or settings.html or Path("text")).name
        if self.html is None or settings.html is None:
            return Bodies(self.text, self.html, text_name)
        name = settings.html.name
        is_markdown = settings.html.suffix.lower() in _MARKDOWN
        if is_markdown or settings.text_from_html or settings.inline_styles or "{%" in self.html:
            _check(self.html, name, columns, include)  # else it is compiled in these very lines
        making = _Making(self.html, name, include, is_markdown=is_markdown)
        try:
            made = making.bodies(self.text, to_text=settings.text_from_html, to_styles=settings.inline_styles)
        except TemplateError as error:
            if making.as_written or error.line is None or error.file != name:
                raise
            raise TemplateError(error.why, error.file, field=error.field) from error  # a line of what was made of it
        return replace(made, text_name=text_name if made.text in (self.text, self.html) else f"{name} as text")


def _check(source: str, file: str, columns: Columns, include: Loader) -> None:
    from asyncsmtp.mail.templates.environment import TemplateEnvironment
    from asyncsmtp.mail.templates.variables import check_names, parse

    sandbox = TemplateEnvironment(autoescape=True, load=include)
    check_names(parse(source, file, sandbox), file, columns, sandbox)


class _Making:
    """One campaign's parts on their way.

    Attributes:
        as_written: whether the lines are those of the file.
    """

    def __init__(self, source: str, name: str, include: Loader, *, is_markdown: bool) -> None:
        self._source = source
        self._name = name
        self._include = include
        self._is_markdown = is_markdown
        self._files = _loaded(source, include)
        self.as_written = not is_markdown

    def bodies(self, text: str | None, *, to_text: bool, to_styles: bool) -> Bodies:
        html = self._source
        if self._is_markdown:
            from asyncsmtp.mail.converting.conversions import html_from_markdown

            text = self._markdown_as_text() if text is None else text
            html = html_from_markdown(html)
        to_text = to_text and text is None
        if self._files and (to_text or to_styles or self._files_need_making()):
            html = self._joined(html, _as_html)
        html, images = _with_images(html)
        if to_text:
            from asyncsmtp.mail.converting.conversions import text_from_html

            text = text_from_html(html, self._name)
        if to_styles:
            from asyncsmtp.mail.converting.conversions import styles_inlined

            html = styles_inlined(html, self._name)
        if to_styles or not self.as_written:
            return Bodies(text, html, self._name, f"{self._name} as sent", images)
        return Bodies(text, html, self._name, self._name, images)

    def _markdown_as_text(self) -> str:
        """The Markdown; HTML that it includes would be no text."""
        return self._joined(self._source, _as_text) if self._some(_HTML) else self._source

    def _files_need_making(self) -> bool:
        return self._some(_MARKDOWN) or any(_with_images(source)[1] for source in self._files.values())

    def _some(self, suffixes: frozenset[str]) -> bool:
        return any(_suffix(path) in suffixes for path in self._files)

    def _joined(self, source: str, made: Callable[[str, str], str]) -> str:
        from asyncsmtp.mail.converting.joining import joined

        whole = joined(source, self._name, self._include, made)
        self.as_written = False
        return whole


def _loaded(source: str, include: Loader) -> dict[str, str]:
    """The files that it includes or extends."""
    if "{%" not in source:
        return {}
    from asyncsmtp.mail.converting.joining import loaded

    return loaded(source, include)


def _with_images(html: str) -> tuple[str, dict[str, str]]:
    """As `images_by_cid`; most campaigns show none."""
    if "<img" not in html.lower():
        return html, {}
    from asyncsmtp.mail.converting.images import images_by_cid

    return images_by_cid(html)


def _as_html(source: str, path: str) -> str:
    from asyncsmtp.mail.converting.conversions import html_from_markdown

    return html_from_markdown(source, "{}") if _suffix(path) in _MARKDOWN else source


def _as_text(source: str, path: str) -> str:
    from asyncsmtp.mail.converting.conversions import text_from_html

    return text_from_html(source, path) if _suffix(path) in _HTML else source


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
