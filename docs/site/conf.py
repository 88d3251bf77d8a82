"""The documentation site: the pages as they lie in the repository, and a reference of all names.

In: Markdown, and docstrings. Out: HTML, by ``make site``.
"""

from __future__ import annotations

import lightning_gradguard

project = "lightning-gradguard"
author = "The lightning-gradguard authors"
version = release = lightning_gradguard.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
# The repository is the source, so that links between its pages lead to the same places.
root_doc = "docs/site/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**",
    "benchmarks/results/*",
]

# What is at the root leads to the start page.
html_extra_path = ["root"]
html_theme = "furo"
html_title = f"lightning-gradguard {version}"
html_show_sourcelink = False

myst_heading_anchors = 4
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Cost", "notes_style"), ("State", "notes_style")]
napoleon_custom_sections += [("Shape", "notes_style"), ("Distributed", "notes_style")]
napoleon_custom_sections += [("Source", "notes_style")]
napoleon_use_ivar = True
