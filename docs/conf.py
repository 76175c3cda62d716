"""Configuration of the documentation site: `python -m sphinx -W -b html docs build/docs`, with `asyncsmtp[docs]`.

Sphinx, since it checks every link between pages and every anchor, and fails with `-W` where one leads nowhere; MyST,
since the pages are Markdown that a repository shows as well; Furo, a theme that needs no settings.
"""

import importlib.metadata

from pygments.lexers.python import PythonLexer
from sphinx.highlighting import lexers

project = "asyncsmtp"
project_copyright = "the authors of asyncsmtp"
author = project_copyright
release = version = importlib.metadata.version("asyncsmtp")

extensions = ["myst_parser"]
nitpicky = True
lexers["pytest"] = lexers["py"] = PythonLexer()  # blocks that the tests run in their own way
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"asyncsmtp {release}"
html_copy_source = False
