"""Text of a foreign mail: decoded so that a page, a database and JSON can have it, in time that grows with its length.

Nothing here raises because of what a mail contains.
"""

from __future__ import annotations

import re
from email.errors import MessageError
from email.header import decode_header, make_header
from email.policy import EmailPolicy
from encodings.aliases import aliases
from html import unescape
from typing import Any

__all__ = [
    "MAIL_POLICY",
    "MAX_FIELD",
    "count_remote",
    "decode_text",
    "decode_words",
    "replace_surrogates",
    "strip_tags",
]

MAX_FIELD = 8000  # characters of a header field that are parsed; the parser takes time by the square of it
MAX_TAG = 2000  # characters
MAX_CHARSET = 40  # characters

# Modules of the standard library by which text of mails is decoded. There are others of which a mail has none:
# `unicode_escape`, `idna` and `punycode` decode a few bytes to something else, or take long.
_CHARSETS = {
    "ascii", "utf_8", "utf_8_sig", "utf_7", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le",
    "latin_1", *(f"iso8859_{number}" for number in range(1, 17)), *(f"cp{number}" for number in range(1250, 1259)),
    "koi8_r", "koi8_u", "koi8_t", "kz1048", "ptcp154", "tis_620", "mac_roman", "mac_latin2", "mac_cyrillic",
    "mac_greek", "mac_turkish", "cp437", "cp850", "cp852", "cp855", "cp862", "cp864", "cp866", "cp874", "cp932",
    "cp936", "cp949", "cp950", "shift_jis", "shift_jis_2004", "shift_jisx0213", "euc_jp", "euc_jis_2004",
    "euc_jisx0213", "iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_2004", "iso2022_jp_3",
    "iso2022_jp_ext", "iso2022_kr", "euc_kr", "johab", "gb2312", "gbk", "gb18030", "hz", "big5", "big5hkscs",
}  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONG_REFERENCE = re.compile(r"&#[xX]?[0-9A-Fa-f]{9,};?")  # html.unescape() raises for 4300 digits
_HIDDEN = {name: re.compile(rf"(?i)</{name}\s*>") for name in ("style", "script", "title")}
_BEGIN = re.compile(r"(?i)<(style|script|title)\b")
_REMOTE = re.compile(
    r"""(?i)(?:\b(?:src|background|poster|data)\s*=\s*(?:["']\s*)?|url\(\s*(?:["']\s*)?|@import\s+["']?)(?:https?:)?//"""
)


class _MailPolicy(EmailPolicy):
    """The default policy of the standard library, but a header field is cut, and a broken one is returned as it is."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        cut = value if hasattr(value, "name") else value[:MAX_FIELD]
        try:
            return super().header_fetch_parse(name, cut)
        except Exception:  # the parser of structured fields raises various exceptions for hostile ones
            return replace_surrogates(re.sub(r"[\r\n]+", "", cut))


MAIL_POLICY = _MailPolicy()


def replace_surrogates(text: str) -> str:
    """Return the text with a replacement character for each surrogate, which UTF-8 cannot have."""
    return _SURROGATE.sub("\ufffd", text)


def decode_text(octets: bytes, charset: object = "utf-8") -> str:
    """Return bytes as text; those that are no text, and surrogates, are replaced.

    Args:
        charset: as the mail names it; UTF-8 is taken for one that mails do not use.
    """
    name = re.sub(r"[^a-z0-9.]+", "_", str(charset)[:MAX_CHARSET].lower()).strip("_")
    module = aliases.get(name.replace(".", "_"), name)
    try:
        return replace_surrogates(octets.decode(module if module in _CHARSETS else "utf-8", "replace"))
    except (LookupError, ValueError):  # such as UTF-32 beyond all characters
        return octets.decode("utf-8", "replace")


def decode_words(value: str) -> str:
    """Return a header field, its encoded words decoded; what is too long is cut."""
    value = text = value[:MAX_FIELD]
    if "=?" in value:
        try:
            text = str(make_header(decode_header(value)))
        except (LookupError, ValueError, MessageError, AssertionError):  # as broken as it can be
            text = value
    return replace_surrogates(re.sub(r"\r?\n[ \t]", " ", text))


def strip_tags(html: str) -> str:
    """Return the text of HTML, without styles, scripts and the title; each tag is a space."""
    kept = []
    position = 0
    missing = set()  # ends that do not come any more: they are not looked for at each beginning
    while (begin := html.find("<", position)) >= 0:
        kept.append(html[position:begin])
        end = -1
        if (found := _BEGIN.match(html, begin)) and (name := found[1].lower()) not in missing:
            closing = _HIDDEN[name].search(html, found.end())
            end = closing.end() if closing else -1
            missing |= set() if closing else {name}
        elif html.startswith("<!--", begin) and "-->" not in missing:
            end = html.find("-->", begin + 4) + 3
            if end < 3:
                end = -1
                missing.add("-->")
        if end < 0:
            end = html.find(">", begin + 1, begin + MAX_TAG + 2) + 1 or -1
        kept.append(" " if end >= 0 else "<")
        position = end if end >= 0 else begin + 1
    kept.append(html[position:])
    return replace_surrogates(unescape(_LONG_REFERENCE.sub("\ufffd", "".join(kept))))


def count_remote(html: str) -> int:
    """Return the number of things in HTML that would be loaded from elsewhere."""
    return len(_REMOTE.findall(html))
