"""Files of a campaign: reading within its folder, templates as they are written, and the conversions of each part."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.suppression_list import is_text_list
from asyncsmtp.errors import ConfigError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.mail.checks.empty_cells import WrittenColumn
    from asyncsmtp.mail.checks.rules import Finding
    from asyncsmtp.mail.conversion.convert import Conversion
    from asyncsmtp.mail.templates.environment import Delimiters, TemplateLoader
    from asyncsmtp.mail.templates.template import Template
    from asyncsmtp.mail.templates.variables import Columns

__all__ = [
    "DIRECTORY_FLAGS",
    "INCLUDED",
    "LEDGER",
    "MAX_FILE_SIZE",
    "TEMPLATE",
    "WILDCARD",
    "ConfinedFolder",
    "MessageBodies",
    "OwnFiles",
    "check_pattern",
    "check_recipients",
    "find_merge_tags",
    "find_unsupported",
    "find_written_columns",
    "is_pattern",
    "list_own_files",
    "list_sources",
    "make_bodies",
    "read_and_close",
    "refuse_merge_tags",
]

MAX_FILE_SIZE = 64 * 1024 * 1024  # bytes

TEMPLATE = "a template"
INCLUDED = "an included template"
LEDGER = "the ledger of the campaign"
RECIPIENTS = "a file of recipients"

WILDCARD = re.compile(r"[*?]")
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK  # opening a FIFO must not wait for its writer
_PATH_FLAG = getattr(os, "O_PATH", 0)  # Linux
_LOCKED_SIDE_FILES = ("-wal", "-shm")
_DATABASE = b"SQLite format 3\0"
_APPLICATIONS = (b"aSMT", b"aSUP")  # application ids of ledgers and suppression lists, at offset 68 of a database
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[ \t\r]*\n\s*[\w+/=]|^PuTTY-User-Key-File-[0-9]",
    re.MULTILINE,
)
_DER_LENGTH = rb"(?:[\x02-\x7f]|\x80|\x81.|\x82..|\x83...)"
_DER_PRIVATE_KEY = re.compile(  # RFC 8017, RFC 5915, RFC 5958 (plain, and encrypted by PKCS #5), RFC 7292
    rb"\x30" + _DER_LENGTH + rb"(?:\x02\x01\x00[\x02\x30]|\x02\x01\x01\x04\x20|\x02\x01\x03\x30"
    rb"|\x30" + _DER_LENGTH + rb"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05)",
    re.DOTALL,
)


class OwnFiles:
    """Files that a campaign uses itself, and what for: nobody may get one as an attachment or in a template.

    A file is recognized by device and inode, whatever its name, and a file beside a database also by its name. They are
    looked up each time, since a ledger is created later and an editor replaces files.

    The ledger, its side files and the lists must not even be opened by other code. A process that closes any
    descriptor of a file drops all POSIX locks that it has on that file, also those of SQLite
    (https://www.sqlite.org/howtocorrupt.html §2.2): another program could then write to the ledger of a run.
    """

    # On Linux a descriptor is opened with O_PATH first. It allows fstat and nothing else, and closing it drops no lock:
    # it has no file operations (fs/open.c), and a test counts the locks in /proc/locks. What has passed the check is
    # then opened by its entry in /proc/self/fd, so that nothing can be put in its place in between. Elsewhere the name
    # is checked first and compared after opening; a descriptor of an own file that was put there in between is kept
    # open on purpose.

    def __init__(self) -> None:
        self._uses: list[tuple[Path, str]] = []
        self._databases: dict[str, str] = {}  # by the name of the file, in one case: names of side files begin with it
        self._kept: dict[tuple[int, int], int] = {}

    def add(self, path: Path | None, use: str) -> None:
        """Add a file; it need not exist yet."""
        if path is not None and (path, use) not in self._uses:
            self._uses.append((path, use))

    def add_database(self, path: Path, use: str) -> None:
        """Add a database with the files beside it."""
        for suffix in ("", *_LOCKED_SIDE_FILES):
            self.add(path.with_name(path.name + suffix), use)
        self._databases[os.path.realpath(path).casefold()] = use

    def find_use(self, status: os.stat_result, allowed: Collection[str] = ()) -> str:
        """Return what the campaign uses a file for; "" if it does not, or for an `allowed` use only."""
        for path, use in self._uses:
            if use in allowed:
                continue
            try:
                found = os.stat(path)
            except (OSError, ValueError):
                continue
            if found.st_ino == status.st_ino and found.st_dev == status.st_dev:
                return use
        return ""

    def open(self, name: str | Path, *, allowed: Collection[str] = (), folder: int | None = None) -> int:
        """Open a regular file that is not the campaign's own; return its descriptor.

        Args:
            allowed: uses that do not matter.
            folder: descriptor of the folder that holds it: then a symbolic link is refused, else it is followed.
        Raises:
            OSError: see `strerror`.
        """
        follow = folder is None
        no_follow = 0 if follow else os.O_NOFOLLOW
        if _PATH_FLAG:
            handle = os.open(name, _PATH_FLAG | no_follow, dir_fd=folder)
            try:
                self._check(os.fstat(handle), name, allowed)
                try:
                    return self._check_content(os.open(f"/proc/self/fd/{handle}", _FILE_FLAGS), name)
                except FileNotFoundError:  # /proc is not mounted
                    pass
            finally:
                os.close(handle)
        before = os.stat(name, dir_fd=folder, follow_symlinks=follow)
        self._check(before, name, allowed)
        descriptor = os.open(name, _FILE_FLAGS | no_follow, dir_fd=folder)
        after = os.fstat(descriptor)
        if not os.path.samestat(before, after):
            self._close_unless_own(descriptor, after)
            raise OSError(errno.EAGAIN, "it was replaced while it was opened", str(name))
        return self._check_content(descriptor, name)

    def find_side_file(self, path: str) -> str:
        """Return the use of the database that a path belongs to, by its name; "" if it belongs to none."""
        if not self._databases:
            return ""
        folded = path.casefold()
        uses = (use for name, use in self._databases.items() if folded.startswith((f"{name}-", f"{name}.")))
        return next(uses, "")

    def _check(self, status: os.stat_result, name: str | Path, allowed: Collection[str]) -> None:
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.EACCES, _LINK, str(name))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(name))
        if use := self.find_use(status, allowed):
            raise own_file_error(use, name)
        if (status.st_dev, status.st_ino) in self._kept:
            raise own_file_error(_OTHER, name)

    def _check_content(self, descriptor: int, name: str | Path) -> int:
        """Return the descriptor unless the file is a ledger or a list, perhaps that of another campaign."""
        head = os.pread(descriptor, 72, 0)
        if head.startswith(_DATABASE) and head[68:] in _APPLICATIONS:
            status = os.fstat(descriptor)  # this process may have it open: the descriptor is kept, once for each file
            self._kept[status.st_dev, status.st_ino] = descriptor
            raise own_file_error(_OTHER, name)
        return descriptor

    def _close_unless_own(self, descriptor: int, status: os.stat_result) -> None:
        if self.find_use(status):
            self._kept[status.st_dev, status.st_ino] = descriptor
        else:
            os.close(descriptor)


_LINK = "a symbolic link, or a file in place of a folder, is on the way"
_OTHER = "a ledger or a suppression list"


def own_file_error(use: str, name: str | Path) -> OSError:
    """Return the error for a file that is the campaign's own."""
    return OSError(errno.EACCES, f"it is {use}, which nobody may get: name another file", str(name))


def read_and_close(descriptor: int, name: str | Path, limit: int) -> bytes:
    """Return the content of a file, and close its descriptor.

    Raises:
        OSError: it has more than `limit` bytes, or holds a private key; see `strerror`.
    """
    with open(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(name))
    if _holds_private_key(data):
        raise OSError(errno.EACCES, "it holds a private key, which nobody may get: name another file", str(name))
    return data


def _holds_private_key(data: bytes) -> bool:
    if _DER_PRIVATE_KEY.match(data):
        return True
    # The search for a word goes first: it takes a fiftieth of the time of the expression.
    return any(word in data for word in (b"PRIVATE KEY", b"PuTTY-User")) and _PRIVATE_KEY.search(data) is not None


def list_own_files(config: CampaignConfig, *recipients: Path | None) -> OwnFiles:
    """Return the files that the campaign uses for another purpose than to be sent."""
    own = OwnFiles()
    own.add(config.source, "the campaign file")
    for path in (config.recipients, *recipients):
        own.add(path, RECIPIENTS)
    for template in (config.text, config.html):
        own.add(template if isinstance(template, Path) else None, TEMPLATE)
    keys = [each.key for each in config.dkim] + ([config.smime.key] if config.smime else [])
    for key in (*keys, config.client_key, config.client_cert):  # a certificate and its key may be in one file
        own.add(key, "a private key")
    if config.unsubscribe is not None:
        own.add(config.unsubscribe.secret_file, "the secret of [unsubscribe]")
    for ledger in (config.ledger_location, config.sandbox_ledger):
        if isinstance(ledger, Path):
            own.add_database(ledger, LEDGER)
    for path in config.suppression:
        if is_text_list(path):
            own.add(path, "a suppression list")
        else:
            own.add_database(path, "a suppression list")
    if isinstance(config.shared_rates, Path):
        own.add_database(config.shared_rates, "the file of shared rates")
    return own


def check_recipients(path: Path, own: OwnFiles) -> None:
    """Raise ConfigError if a file of recipients is a ledger or a list, which nothing else may open: see `OwnFiles`."""
    try:
        use = own.find_use(path.stat(), (RECIPIENTS, TEMPLATE, INCLUDED))
    except (OSError, ValueError):
        return  # whoever opens it says why it cannot be read
    if use:
        raise ConfigError(f"recipients: {safe_text(str(path))} is {use}", "name the file with the recipients")


def is_pattern(path: str, delimiters: Delimiters) -> bool:
    """Tell if a path contains template marks, so that each row has a path of its own."""
    return delimiters.value[0] in path or delimiters.statement[0] in path


def check_pattern(path: str, role: str, delimiters: Delimiters) -> str:
    """Return a pattern that begins with a folder, so that no cell can name what lies beside the campaign file."""
    marks = (delimiters.value[0], delimiters.statement[0], delimiters.comment[0])
    at = min(place for mark in marks if (place := path.find(mark)) >= 0)
    folder = path[:at].replace("\\", "/")
    while folder.startswith("./"):
        folder = folder[2:]
    first = folder.partition("/")[0]
    if "/" not in folder or first in ("", "..") or WILDCARD.search(first):
        shown = safe_text(path, 120)
        why = f"{role}: “{shown}” does not begin with the name of a folder, so a cell could name any file here"
        raise ConfigError(why, f"put the files into a folder, such as invoices/{shown}")
    return folder + path[at:]


class ConfinedFolder:
    """A folder whose files may be named by templates and by cells, that is by anybody.

    Pass `read` to `Template.compile(read=…)`. A path leads downwards, step by step, through no symbolic link. It ends
    at a regular file of at most `limit` bytes, which is checked and then opened, so that nothing can be put in its
    place in between. A file of `own`, and one that holds a private key, is refused.
    """

    def __init__(self, root: Path, limit: int = MAX_FILE_SIZE, own: OwnFiles | None = None) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self._limit = limit
        self.own = OwnFiles() if own is None else own

    def read(self, path: str, *, allowed: Collection[str] = ()) -> bytes:
        """Return the content of a file, by its path below the folder, with `/`.

        Args:
            allowed: uses of the campaign's own files that do not matter.
        Raises:
            OSError: missing, not a regular file, too large, not below the folder, or not for others; see `strerror`.
        """
        steps = path.split("/")
        if not {"", ".", ".."}.isdisjoint(steps) or "\0" in path:
            raise OSError(errno.EACCES, "it is not below the folder", path)
        if use := self.own.find_side_file(os.path.join(self.real_root, path)):
            raise own_file_error(use, path)
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for step in steps[:-1]:
                here, above = _open_step(step, here, path), here
                os.close(above)
            return read_and_close(self._open(steps[-1], allowed, here, path), path, self._limit)
        finally:
            os.close(here)

    def read_text(self, path: str) -> str:
        """Return the content as UTF-8 text; pass it as `Template(loader=…)`."""
        return self.read(path).decode("utf-8-sig")

    def _open(self, step: str, allowed: Collection[str], here: int, path: str) -> int:
        try:
            return self.own.open(step, allowed=allowed, folder=here)
        except OSError as error:
            raise _with_path(error, path) from None


def _open_step(step: str, here: int, path: str) -> int:
    try:
        return os.open(step, DIRECTORY_FLAGS, dir_fd=here)
    except OSError as error:
        raise _with_path(error, path) from None


def _with_path(error: OSError, path: str) -> OSError:
    """Return the error with the whole path in place of one step."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return OSError(errno.EACCES, _LINK, path)
    return OSError(error.errno, error.strerror, path)


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
    files = _load_files(html, name, columns, include) if columns.delimiters.statement[0] in html else {}
    is_mixed = any(_suffix(file) in (_HTML if is_markdown else _MARKDOWN) for file in files)
    to_text = False
    if text is None and (is_markdown or config.text_from_html):
        is_plain = is_markdown and columns.delimiters.statement[0] not in html and "![" not in html
        text, to_text = html, not is_plain or is_mixed
    to_html = is_markdown or is_mixed or config.inline_styles
    bodies = MessageBodies(text, html, text_name, name, include)
    if not (to_text or to_html or any("<img" in source.lower() for source in (html, *files.values()))):
        return bodies
    return _with_conversions(
        bodies,
        files,
        columns.delimiters,
        is_markdown=is_markdown,
        to_text=to_text,
        to_html=to_html,
        styles=config.inline_styles,
    )


def _with_conversions(
    bodies: MessageBodies,
    files: dict[str, str],
    delimiters: Delimiters,
    *,
    is_markdown: bool,
    to_text: bool,
    to_html: bool,
    styles: bool,
) -> MessageBodies:
    from asyncsmtp.mail.conversion.images import ImagePaths, hide_tags

    images = ImagePaths(delimiters)

    def with_images(source: str, path: str) -> str:
        if _suffix(path) in _MARKDOWN:
            if "![" in source or "<img" in source.lower():
                from asyncsmtp.mail.conversion.convert import markdown_to_html

                images.replace(
                    markdown_to_html(hide_tags(source, delimiters)[0])
                )  # only finds them: the HTML is made later
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
    from asyncsmtp.mail.templates.variables import check_names, parse, suggest_spelling

    files: dict[str, str] = {}

    def load(path: str) -> str:
        files[path] = include(path)
        return files[path]

    sandbox = columns.environment(autoescape=True, load=load)
    with suggest_spelling(source, file, columns):
        check_names(parse(source, file, sandbox), file, columns, sandbox)
    return files


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


_FOREIGN_TAG = re.compile(  # a quick look for what merge_tags knows
    r"\*\||\*%7C|<<|&lt;&lt;|«|&laquo;|&#171;|%7B%7B|%5B|%%|\$\{|\[\[|%recipient|(?<![{%#])\{[$!]?[\w .-]{1,44}\}|\{\{"
    r"|\[[\w .-]{1,44}\]|%[A-Z_]{2,40}%",
    re.IGNORECASE,
)


def list_sources(template: Template, included: Mapping[str, str]) -> dict[str, str]:
    """Return the texts that are templates, by the names of their keys or files."""
    sources = {"from": template.from_, "reply_to": template.reply_to, "subject": template.subject, **template.headers}
    sources |= {template.text_name: template.text, template.html_name: template.html, **included}
    return {name: source for name, source in sources.items() if source}


def find_merge_tags(sources: Mapping[str, str], columns: Columns) -> tuple[Finding, ...]:
    """Find what was written for another program in some templates."""
    marks = columns.delimiters.value[0]
    suspicious = {
        name: source
        for name, source in sources.items()
        if any(tag[0] != marks for tag in _FOREIGN_TAG.finditer(source))
    }
    if not suspicious:
        return ()
    from asyncsmtp.mail.checks import merge_tags  # late: few templates have any

    return tuple(merge_tags.find_merge_tags(suspicious, columns))


def find_written_columns(sources: Mapping[str, str], columns: Columns) -> dict[str, WrittenColumn]:
    """Return the columns that some templates write whether a cell is empty or not."""
    from asyncsmtp.mail.checks import empty_cells  # late: only a check needs it

    return empty_cells.find_written_columns(sources, columns)


def find_unsupported(
    sources: Mapping[str, str | None], delimiters: Delimiters, *, are_styles_inlined: bool
) -> list[Finding]:
    """Return what mail programs do not support of the HTML of some templates, by the names of their files."""
    from asyncsmtp.mail.checks import mail_clients  # late: only a check needs it

    html = {name: source for name, source in sources.items() if source and _suffix(name) not in _MARKDOWN}
    return mail_clients.find_unsupported(html, delimiters, are_styles_inlined=are_styles_inlined)


def refuse_merge_tags(findings: Iterable[Finding]) -> None:
    """Raise ConfigError for a merge tag that names a column: thousands would read `[First_Name]`."""
    for finding in findings:
        if finding.weight == "objection":
            raise ConfigError(finding.sentence, finding.advice)
