"""Cells that a spreadsheet takes for formulas: an apostrophe keeps them text, and is taken off where they are read."""

from __future__ import annotations

import re

__all__ = ["may_hold_tamed", "plain", "tamed", "untamed"]

_BEGINS = "[=+\\-@\t\r\0]"
_FORMULA = re.compile(f"'*{_BEGINS}")  # with its apostrophes, so that one more or one less is always told apart
_TAMED = re.compile(f"'+{_BEGINS}")
_HINT = re.compile(f"'{_BEGINS}")  # searched for, it takes linear time also among nothing but apostrophes


def tamed(cell: str) -> str:
    """The cell as no spreadsheet calculates it; `untamed` gives it back."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def plain(cell: str) -> str:
    """The cell as it is, for programs; with one apostrophe more where `untamed` would take one off."""
    return f"'{cell}" if _TAMED.match(cell) else cell


def untamed(cell: str) -> str:
    """The cell that was written: of apostrophes right before what begins a formula, one is taken off."""
    return cell[1:] if _TAMED.match(cell) else cell


def may_hold_tamed(text: str) -> bool:
    """Whether some cell of this text may be a tamed one; nearly always False, so that no cell need be looked at."""
    return _HINT.search(text) is not None
