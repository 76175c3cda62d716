"""One source from a template and the files it includes or extends: a conversion must see all of them at once.

A rule of a style sheet reaches into a file that is included, and a table may begin in one file and end in another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asyncsmtp.errors import TemplateError
from asyncsmtp.mail.converting.protecting import TAG
from asyncsmtp.mail.templates.environment import Loader

__all__ = ["joined", "loaded"]

_LOAD = re.compile(
    r"""\{%(?P<left>[-+]?)\s*(?P<how>include|extends|import|from)\s+(?:"(?P<d>[^"]*)"|'(?P<s>[^']*)')"""
    r"""(?P<rest>(?:[^%]|%(?!\}))*?)(?P<right>[-+]?)%\}"""
)
_BLOCK = re.compile(r"\{%[-+]?\s*block\s+(\w+)[^%]*%\}")
_END_OF_BLOCK = re.compile(r"\{%[-+]?\s*endblock\b[^%]*%\}")
_SUPER = re.compile(r"\{\{[-+]?\s*super\(\)\s*[-+]?\}\}")
_OF_THE_PARENT = re.compile(r"\bsuper\b|\bself\b")
_SET = re.compile(r"\{%[-+]?\s*set\s+[\w\s,]+=(?!=).*%\}", re.DOTALL)
_NAMES = re.compile(r"\{%[-+]?\s*(?:set|macro|import|from)\b")

Made = Callable[[str, str], str]


def loaded(source: str, read: Loader) -> dict[str, str]:
    """The files that a template includes, extends or imports, in depth, each as `read` gives it."""
    files: dict[str, str] = {}
    left = [source]
    while left:
        for tag in TAG.finditer(left.pop()):
            if (load := _LOAD.fullmatch(tag[0])) is not None and (path := _path(load)) not in files:
                files[path] = read(path)
                left.append(files[path])
    return files


def joined(source: str, file: str, read: Loader, made: Made) -> str:
    """The template with all that it includes in its place, and its blocks in those of what it extends.

    Args:
        file: what an error names.
        read: gives a file by its path.
        made: what becomes of a file, given its source and its path, before it is put in place.
    Raises:
        TemplateError: the files cannot be made one: it imports, or has more beside `extends` than blocks and `set`.
    """

    def put(tag: re.Match[str]) -> str:
        load = _LOAD.fullmatch(tag[0])
        if load is None or load["how"] != "include":
            return tag[0]
        path = _path(load)
        return _included(joined(made(read(path), path), path, read, made), load)

    return TAG.sub(put, _with_base(source, file, read, made))


def _with_base(source: str, file: str, read: Loader, made: Made) -> str:
    """The template in what it extends, if it does."""
    for tag in TAG.finditer(source):
        load = _LOAD.fullmatch(tag[0])
        if load is not None and load["how"] in ("import", "from"):
            line = source.count("\n", 0, tag.start()) + 1
            raise TemplateError(f"“{_path(load)}” is imported, {_CANNOT}: write its macros into this file", file, line)
    for tag in TAG.finditer(source):
        load = _LOAD.fullmatch(tag[0])
        if load is not None and load["how"] == "extends":
            path = _path(load)
            base = _with_base(made(read(path), path), path, read, made)
            return _extended(base, source[: tag.start()] + source[tag.end() :], file)
    return source


_CANNOT = "where no text can be made, no style inlined and no image found"


def _path(load: re.Match[str]) -> str:
    """The path as the loader of a template takes it."""
    written: str = load["d"] if load["d"] is not None else load["s"]
    return "/".join(step for step in written.split("/") if step not in ("", "."))


def _included(source: str, load: re.Match[str]) -> str:
    """What stands in place of an `include`: names that it sets are its own, white space goes where it went."""
    if _NAMES.search(source):
        source = f"{{% with %}}{source}{{% endwith %}}"
    left, right = ("{#- #}" if load["left"] == "-" else ""), ("{# -#}" if load["right"] == "-" else "")
    return f"{left}{source}{right}"


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of a template: where it is, its tags included; what is in it."""

    name: str
    start: int
    end: int
    opening: str
    closing: str
    content: str


def _extended(base: str, own: str, file: str) -> str:
    """The base with the blocks of the template that extends it, which first sets its names."""
    mine = {block.name: block for block in _blocks(own, outermost=False)}
    outside = own
    for block in reversed(list(_blocks(own, outermost=True))):
        outside = outside[: block.start] + outside[block.end :]
    set_ = [tag[0] for tag in TAG.finditer(outside) if _SET.fullmatch(tag[0])]
    beside = [tag[0] for tag in TAG.finditer(outside) if tag[0].startswith("{%") and tag[0] not in set_]
    parental = [tag[0] for tag in TAG.finditer(_SUPER.sub("", own)) if _OF_THE_PARENT.search(tag[0])]
    if beside or parental:
        tag = (beside + parental)[0]
        raise TemplateError(f"{tag} stands in a template that extends another, {_CANNOT}: write it into a block", file)
    return "".join(set_) + _filled(base, mine)


def _filled(base: str, mine: dict[str, _Block]) -> str:
    pieces, done = [], 0
    for block in _blocks(base, outermost=True):
        inner = _filled(block.content, mine)
        if block.name in mine:
            inner = _SUPER.sub(lambda _, parent=inner: parent, _stripped(mine[block.name]))  # type: ignore[misc]
        opening = re.sub(r"\s+required\b", "", block.opening) if block.name in mine else block.opening
        pieces += [base[done : block.start], opening, inner, block.closing]
        done = block.end
    return "".join(pieces) + base[done:]


def _stripped(block: _Block) -> str:
    content = block.content.lstrip() if block.opening.endswith("-%}") else block.content
    return content.rstrip() if block.closing.startswith("{%-") else content


def _blocks(source: str, *, outermost: bool) -> Iterator[_Block]:
    """The blocks, outermost or all; those that are not closed are left to Jinja2 to complain of."""
    opened: list[re.Match[str]] = []
    for tag in TAG.finditer(source):
        if _BLOCK.fullmatch(tag[0]):
            opened.append(tag)
        elif _END_OF_BLOCK.fullmatch(tag[0]) and opened:
            begin = opened.pop()
            name = _BLOCK.fullmatch(begin[0])
            if name is not None and not (outermost and opened):
                content = source[begin.end() : tag.start()]
                yield _Block(name[1], begin.start(), tag.end(), begin[0], tag[0], content)
