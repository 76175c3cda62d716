"""All the targets, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fuzz import f01_replies, f02_extensions, f03_session, f05_headers, f06_framing, f07_canonical, f10_login

__all__ = ["TARGETS"]

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "F1": f01_replies.target,
    "F2": f02_extensions.target,
    "F3": f03_session.target,
    "F5": f05_headers.target,
    "F6": f06_framing.target,
    "F7": f07_canonical.target,
    "F10": f10_login.target,
}
