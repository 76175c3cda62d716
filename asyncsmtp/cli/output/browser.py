"""A browser with windows, if there is one; a browser that would take the terminal is left alone."""

from __future__ import annotations

import os
import sys
import webbrowser

from asyncsmtp.cli.output import console

__all__ = ["has_browser", "open_in_browser"]


def has_browser() -> bool:
    """Return whether there is a display, or BROWSER names a browser."""
    return sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys())


def open_in_browser(url: str) -> None:
    """Show an address in the browser; where there is none, say what to do."""
    if not (has_browser() and webbrowser.open(url)):
        console.print_info("there is no browser here to show it", always=True)
        console.print_steps([f"open it in one: {url}"], always=True)
