"""Asking a person before something that cannot be taken back."""

from __future__ import annotations

import signal

import click

from asyncsmtp.cli import console
from asyncsmtp.cli.failures import Failed

__all__ = ["ask"]


def ask(question: str, otherwise: str) -> None:
    """Return when a person says yes.

    Args:
        otherwise: what would have happened, for the sentence where nobody can be asked.
    Raises:
        Failed: there is no terminal. Abort: the answer was no, or Ctrl-C.
    """
    if not console.interactive():
        raise Failed(f"{otherwise}; and there is no terminal to ask at", "add --yes when that is meant")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's would leave the prompt waiting
    try:
        click.confirm(question, err=True, abort=True)
    finally:
        signal.signal(signal.SIGINT, before)
