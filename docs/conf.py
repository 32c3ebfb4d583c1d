"""Sphinx configuration of the documentation site: `make docs` builds it in docs/_build/html."""

import pathlib
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pages

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
author = "The jaxdog developers"
copyright = "the jaxdog developers"
version = release = PROJECT["version"]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb"]
root_doc = "index"
# README.md is the index for readers on GitHub, index.md that of the site.
exclude_patterns = ["README.md", "_build", "**.ipynb_checkpoints"]
highlight_language = "none"  # of blocks that do not name theirs: commands

myst_heading_anchors = 4  # links to headings, as on GitHub
nb_execution_mode = "off"  # tests/test_notebook.py runs the notebook

default_role = "code"  # docstrings write `code` with single backticks
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_google_docstring = True

html_theme = "sphinx_book_theme"
html_title = f"jaxdog {release}"
html_static_path = ["_static"]
html_css_files = ["jaxdog.css"]
html_theme_options = {
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
}
if pages.repository():
    html_theme_options |= {"repository_url": pages.repository(), "use_repository_button": True}


def setup(app):
    """Registers the pages that are made from other files of the repository."""
    app.connect("builder-inited", lambda app: pages.generate())
    app.connect("source-read", pages.rewrite)
    app.connect("autodoc-process-docstring", pages.to_rst, priority=400)  # before napoleon
