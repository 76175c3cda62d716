"""HTML pages from the templates in `pages/`; whatever is put into one is text unless it is marked as HTML."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["read_page_file", "render_page"]


def render_page(page: str, /, **values: object) -> str:
    """Return a page: `pages/PAGE.html` with these values; one that the template names and is not there is an error."""
    return _environment().get_template(f"{page}.html").render(values)


def read_page_file(name: str) -> str:
    """Return a file beside the templates, such as the style sheet."""
    return (files("asyncsmtp.web") / "pages" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # late: it takes a while

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(read_page_file),
    )
    environment.filters |= {"number": lambda number: f"{number:,}", "class": lambda state: str(state).replace(" ", "-")}
    return environment
