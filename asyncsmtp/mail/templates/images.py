"""Images that HTML refers to by a path: a mail has no folder, so they go along with it and are shown by `cid:`."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["images_by_cid"]

_IMAGE = re.compile(r"""(<img\b[^>]*?\bsrc\s*=\s*)("|')([^"'<>{}]+)\2""", re.IGNORECASE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|/|#", re.IGNORECASE)  # a scheme, a host, a root, a place in the page
_NOT_IN_CID = re.compile(r"[^A-Za-z0-9._+-]+")


def images_by_cid(html: str) -> tuple[str, dict[str, str]]:
    """The same HTML with `cid:` for each relative path of an image; and the path of each.

    A path with a template's tags in it is left as it is, and so is a URL.
    """
    paths: dict[str, str] = {}
    names: dict[str, str] = {}

    def replaced(found: re.Match[str]) -> str:
        before, quote, source = found.groups()
        path = unquote(source.strip())
        if not path or _ELSEWHERE.match(path):
            return found[0]
        if path not in names:
            name = _NOT_IN_CID.sub("-", path).strip("-") or "image"
            while name in paths:
                name += "-"
            names[path], paths[name] = name, path
        return f"{before}{quote}cid:{names[path]}{quote}"

    return _IMAGE.sub(replaced, html), paths
