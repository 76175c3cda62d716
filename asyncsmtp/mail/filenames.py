"""Names of attached files in a header (RFC 2183, RFC 2231)."""

from __future__ import annotations

import re

from asyncsmtp.mail.words import encode

__all__ = ["base_name", "disposition"]

MAX_NAME = 200  # octets; file systems take 255
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_EDGES = re.compile(r"^[\s.]+|[\s.]+$")  # a system strips them, or hides the file
_SHORT = re.compile(r"[ -~]{1,50}")
_SEGMENT = 60  # octets of a continuation, so that its line stays below 78
_ATTRIBUTE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")


def base_name(name: str) -> str:
    """The name without folders and without characters that hide, reorder or break; never empty, never long."""
    name = _EDGES.sub("", _UNSEEN.sub("_", re.split(r"[/\\]", name)[-1])) or "attachment"
    if len(encode(name)) <= MAX_NAME:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(encode(suffix)) > 20:
        stem, dot, suffix = name, "", ""
    return _EDGES.sub("", encode(stem)[: MAX_NAME - 21].decode("utf-8", "ignore") + dot + suffix)


def disposition(kind: str, name: str) -> bytes:
    """`Content-Disposition: kind; filename=…` from a base name."""
    if _SHORT.fullmatch(name) and "=?" not in name:
        quoted = re.sub(r'(["\\])', r"\\\1", name)
        return f'Content-Disposition: {kind}; filename="{quoted}"\r\n'.encode("ascii")
    segments = _segments(name)
    if len(segments) == 1:
        parameters = [f"filename*=utf-8''{segments[0]}"]
    else:
        parameters = [f"filename*{number}*={segment}" for number, segment in enumerate(segments)]
        parameters[0] = parameters[0].replace("=", "=utf-8''", 1)
    return f"Content-Disposition: {kind};\r\n ".encode("ascii") + ";\r\n ".join(parameters).encode("ascii") + b"\r\n"


def _segments(name: str) -> list[str]:
    """Percent-encoded, cut between characters (RFC 2231 §3, §4)."""
    segments = [""]
    for character in name:
        written = "".join(chr(octet) if octet in _ATTRIBUTE else f"%{octet:02X}" for octet in encode(character))
        if len(segments[-1]) + len(written) > _SEGMENT:
            segments.append("")
        segments[-1] += written
    return segments
