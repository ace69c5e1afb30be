"""How `make docs` turns this folder into HTML. Nothing is fetched from a network while it builds, or by its pages."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

from mosec_cy import __version__  # noqa: E402

project = "mosec_cy"
version = release = __version__
project_copyright = "the mosec_cy developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_code"]
exclude_patterns = ["_ext"]

# Markdown as GitHub shows it: headings are targets of links, and a link whose target is missing is a warning.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

default_role = "code"  # what docstrings have in backticks
smartquotes = False  # options keep their two hyphens
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False

# Names of this package must be found; those of others have their own documentation.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!mosec_cy\.).*"), ("py:class", r"mosec_cy\.worker\.BaseWorker")]

html_theme = "furo"
html_title = f"mosec_cy {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
