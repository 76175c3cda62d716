"""Files of a campaign: reading within its folder, templates as they are written, and the conversions of each part."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.mail.conversion.convert import Conversion
    from asyncsmtp.mail.templates.environment import TemplateLoader
    from asyncsmtp.mail.templates.variables import Columns

__all__ = ["MAX_FILE_SIZE", "ConfinedFolder", "MessageBodies", "make_bodies"]

MAX_FILE_SIZE = 64 * 1024 * 1024  # bytes

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a FIFO must not wait for its writer


class ConfinedFolder:
    """A folder whose files may be named by templates and by cells, that is by anybody.

    Pass `read` to `Template.compile(read=…)`. A path leads downwards, step by step, through no symbolic link. It ends
    at a regular file of at most `limit` bytes, which is opened once and checked after opening, so that nothing can be
    put in its place in between.
    """

    def __init__(self, root: Path, limit: int = MAX_FILE_SIZE) -> None:
        self.root = root
        self._limit = limit

    def read(self, path: str) -> bytes:
        """Return the content of a file, by its path below the folder, with `/`.

        Raises:
            OSError: missing, not a regular file, too large, or not below the folder; see `strerror`.
        """
        steps = path.split("/")
        if not {"", ".", ".."}.isdisjoint(steps) or "\0" in path:
            raise OSError(errno.EACCES, "it is not below the folder", path)
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for step in steps[:-1]:
                here, above = _open_step(step, _DIRECTORY_FLAGS, here, path), here
                os.close(above)
            return self._content(_open_step(steps[-1], _FILE_FLAGS, here, path), path)
        finally:
            os.close(here)

    def read_text(self, path: str) -> str:
        """Return the content as UTF-8 text; pass it as `Template(loader=…)`."""
        return self.read(path).decode("utf-8-sig")

    def _content(self, descriptor: int, path: str) -> bytes:
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", path)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(self._limit + 1)
        finally:
            os.close(descriptor)
        if len(data) > self._limit:
            raise OSError(errno.EFBIG, f"it has more than {self._limit:,} bytes", path)
        return data


def _open_step(step: str, flags: int, here: int, path: str) -> int:
    try:
        return os.open(step, flags, dir_fd=here)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            why = "a symbolic link, or a file in place of a folder, is on the way"
            raise OSError(errno.EACCES, why, path) from None
        raise


_MARKDOWN = frozenset({".md", ".markdown"})
_HTML = frozenset({".htm", ".html"})


@dataclass(frozen=True, slots=True)
class MessageBodies:
    """The templates of the text and the HTML, and what becomes of them.

    Attributes:
        include: gives a file that a template includes, with `cid:` for the images in it.
        images: the path of each image that the HTML shows, by the name in its `cid:` URL.
    """

    text: str | None
    html: str | None
    text_name: str
    html_name: str
    include: TemplateLoader
    text_conversion: Conversion | None = None
    html_conversion: Conversion | None = None
    images: dict[str, str] = field(default_factory=dict)


def make_bodies(
    config: CampaignConfig, text: str | None, html: str | None, columns: Columns, include: TemplateLoader
) -> MessageBodies:
    """Decide how each part is made: from its own template, or by converting the one of the HTML.

    Args:
        text, html: templates as people wrote them.
        include: gives a file that a template includes.
    Raises:
        TemplateError: an included file cannot be read, or a name is not a column.
    """
    path = config.html if isinstance(config.html, Path) else Path("html")
    text_name = config.text.name if isinstance(config.text, Path) else "text" if config.text else path.name
    if html is None:
        return MessageBodies(text, html, text_name, "html", include)
    name = path.name
    is_markdown = _suffix(name) in _MARKDOWN
    files = _load_files(html, name, columns, include) if "{%" in html else {}
    is_mixed = any(_suffix(file) in (_HTML if is_markdown else _MARKDOWN) for file in files)
    to_text = False
    if text is None and (is_markdown or config.text_from_html):
        text, to_text = html, not is_markdown or is_mixed
    to_html = is_markdown or is_mixed or config.inline_styles
    bodies = MessageBodies(text, html, text_name, name, include)
    if not (to_text or to_html or any("<img" in source.lower() for source in (html, *files.values()))):
        return bodies
    return _with_conversions(
        bodies, files, is_markdown=is_markdown, to_text=to_text, to_html=to_html, styles=config.inline_styles
    )


def _with_conversions(
    bodies: MessageBodies, files: dict[str, str], *, is_markdown: bool, to_text: bool, to_html: bool, styles: bool
) -> MessageBodies:
    from asyncsmtp.mail.conversion.images import ImagePaths, hide_tags

    images = ImagePaths()

    def with_images(source: str, path: str) -> str:
        if _suffix(path) in _MARKDOWN:
            if "![" in source or "<img" in source.lower():
                from asyncsmtp.mail.conversion.convert import markdown_to_html

                images.replace(markdown_to_html(hide_tags(source)[0]))  # only finds them: the HTML is made later
            return source
        return images.replace(source)

    name = bodies.html_name
    html = with_images(bodies.html or "", name)
    made = {path: with_images(source, path) for path, source in files.items()}

    def include(path: str) -> str:
        return made[path] if path in made else bodies.include(path)

    text_conversion = html_conversion = None
    if to_text or to_html:  # late: it brings Markdown, and most campaigns convert nothing
        from asyncsmtp.mail.conversion.convert import Conversion
        from asyncsmtp.mail.conversion.placeholders import MarkupLanguage

        kind = MarkupLanguage.MARKDOWN if is_markdown else MarkupLanguage.HTML
        text_conversion = Conversion(kind) if to_text else None
        html_conversion = Conversion(kind, styles=styles, images=images) if to_html else None
    text = html if to_text else bodies.text
    paths = dict(images.paths)
    return MessageBodies(text, html, bodies.text_name, name, include, text_conversion, html_conversion, paths)


def _load_files(source: str, file: str, columns: Columns, include: TemplateLoader) -> dict[str, str]:
    """Check the names in a template; return the files that it includes, extends or imports."""
    from asyncsmtp.mail.templates.environment import TemplateEnvironment
    from asyncsmtp.mail.templates.variables import check_names, parse

    files: dict[str, str] = {}

    def load(path: str) -> str:
        files[path] = include(path)
        return files[path]

    sandbox = TemplateEnvironment(autoescape=True, load=load)
    check_names(parse(source, file, sandbox), file, columns, sandbox)
    return files


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
