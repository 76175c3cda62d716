"""Images that HTML refers to by a path: a mail has no folder, so they go along with it and are shown by `cid:`."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import unquote

from asyncsmtp.mail.converting.markup import Attribute, Kind, Token, attributes, tokens
from asyncsmtp.mail.converting.protecting import Protected

__all__ = ["images_by_cid"]

_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|/|#", re.IGNORECASE)  # a scheme, a host, a root, a place in the page
_NOT_IN_CID = re.compile(r"[^A-Za-z0-9._+-]+")


def images_by_cid(html: str) -> tuple[str, dict[str, str]]:
    """The same HTML with `cid:` for each relative path of an image; and the path of each.

    A path with a template's tags in it is left as it is, and so is a URL.
    """
    protected = Protected(html)
    names: dict[str, str] = {}

    def shown(token: Token) -> str:
        source = _source(token)
        path = "" if source is None or protected.numbers(source.value or "") else _path(source.value or "")
        if source is None or not path or _ELSEWHERE.match(path):
            return token.text
        if path not in names:
            names[path] = _name(path, names)
        value = f"cid:{names[path]}" if source.quoted else f'"cid:{names[path]}"'
        return token.text[: source.start] + value + token.text[source.end :]

    made = "".join(map(shown, tokens(protected.text)))
    return protected.restored(made), {name: path for path, name in names.items()}


def _source(token: Token) -> Attribute | None:
    """The attribute that says which image a tag shows, if it shows one."""
    if token.kind is not Kind.TAG or token.name != "img" or token.closing:
        return None
    return next((each for each in attributes(token) if each.name == "src" and each.value), None)


def _path(value: str) -> str:
    return unquote(unescape(value).strip())


def _name(path: str, names: dict[str, str]) -> str:
    """A name for `cid:` that no other path has."""
    name = _NOT_IN_CID.sub("-", path).strip("-") or "image"
    while name in names.values():
        name += "-"
    return name
