"""Configuration of Sphinx. Build with: sphinx-build -W docs docs/_build."""

import qtm

project = "qtm"
author = "The qtm developers"
project_copyright = author
version = release = qtm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_title = f"qtm {release}"

nb_execution_mode = "off"  # tutorials are stored executed; the tests run them
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures stay readable; the docstrings name the types
napoleon_use_ivar = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # single backticks in docstrings name code
# The included files link to others of the repository, which the site does not have.
suppress_warnings = ["myst.xref_missing"]
