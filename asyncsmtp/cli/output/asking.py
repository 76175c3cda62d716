"""Asking a person before something that cannot be taken back."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.failures import Failed

__all__ = ["ask"]

YES = frozenset({"y", "yes"})


async def ask(question: str, otherwise: str) -> None:
    """Return when a person says yes; anything else is a no.

    The loop reads the answer. A blocking prompt would miss Ctrl-C now and then: the system may give the
    signal to another thread, and the main one reads on.

    Args:
        otherwise: what would have happened, for the sentence where nobody can be asked.
    Raises:
        Failed: there is no terminal. Abort: the answer was no. Ctrl-C cancels it.
    """
    if not console.interactive():
        raise Failed(f"{otherwise}; and there is no terminal to ask at", "add --yes when that is meant")
    console.say(f"{question} [y/N]", end=" ")
    if (await _line()).strip().lower() not in YES:
        raise click.Abort


async def _line() -> str:
    """What a person types, up to Enter; "" at the end of the input."""
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    typed: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        if not typed.done():
            typed.set_result(os.read(descriptor, 4096))  # a terminal gives a line at a time

    loop.add_reader(descriptor, read)
    try:
        return (await typed).decode("utf-8", "replace")
    finally:
        loop.remove_reader(descriptor)
