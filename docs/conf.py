"""The documentation site: these pages, the notebooks, and references made from docstrings and from the command's parser.  `make docs`."""

from __future__ import annotations

import inspect
import os
import re
from argparse import SUPPRESS, Action
from collections.abc import Iterable
from typing import Any

from jsonargparse import ArgumentParser
from sphinx.application import Sphinx

import iccld
from iccld.cli.parser import build_parser
from iccld.config import config_parser
from iccld.methods import METHODS

project = "iccld"
author = "The iccld developers"
release = version = iccld.__version__
root_doc = "index"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Pages are GitHub's Markdown: `#anchors` are made as GitHub makes them, down to the fourth level of headings.
myst_heading_anchors = 4
highlight_language = "none"
nb_execution_mode = "off"  # tests/test_notebooks.py executes them; the site shows the outputs they were committed with

# Docstrings say types in signatures, and names in single backticks.
default_role = "code"
smartquotes_action = "D"  # dashes alone: quotes are code here
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = f"iccld {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"

CHAPTERS = {
    "Begin": ["your-data", "data", "run", "python", "notebooks/first-adaptation", "completion"],
    "Use a model": ["share", "export", "serve", "formats", "many-pictures", "ray", "adapters"],
    "Trust it": ["trust", "labels", "evaluation", "reliability"],
    "Methods": ["methods", "add-a-method", "notebooks/add-a-method", "experiments", "step2", "readings"],
    "Figures": ["results", "results-earlier", "performance", "memory"],
    "Reference": ["reference/commands", "reference/settings", "reference/python", "decisions/index"],
}
"""The sidebar.  A page that is in no chapter fails the build."""


def add_chapters(app: Sphinx, docname: str, source: list[str]) -> None:
    """The sidebar, added to the first page here, where GitHub does not show it."""
    if docname == root_doc:
        for caption, pages in CHAPTERS.items():
            source[0] += toctree(pages, f":caption: {caption}")
    elif docname == "decisions/index":
        source[0] += toctree(["0*"], ":glob:")


def toctree(pages: list[str], option: str) -> str:
    """Pages below the one that is read, shown in the sidebar alone."""
    return "\n\n```{toctree}\n:hidden:\n" + option + "\n\n" + "\n".join(pages) + "\n```\n"


def parameters_as_list(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """`stage: another stage.  weights: "ema" or "model".` in a docstring -> one field for each parameter (or, of a class, attribute)."""
    text = "\n".join(lines)
    names = names_of(what, obj)
    if not names:
        return
    some = "|".join(sorted(map(re.escape, names), reverse=True))
    begins = rf"(?:(?<=\n\n)|(?<=\.\s)|(?<=\.\s\s)|^)((?:{some})(?:, (?:{some}))*): "
    head, *rest = re.split(begins, text)
    if not rest:
        return
    kind = "ivar" if what == "class" else "param"
    fields, tail = [], ""
    for number, (words, said) in enumerate(zip(rest[::2], rest[1::2], strict=True)):
        if number == len(rest) // 2 - 1:
            said, tail = without_raises(said)
        fields += [f":{kind} {word}: {' '.join(said.split())}" for word in words.split(", ")]
    lines[:] = [*head.rstrip().splitlines(), "", *fields, *(["", *tail.splitlines()] if tail else []), ""]


def names_as_links(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """`docs/share.md` and `ConfigError` in a docstring -> links."""
    for number, line in enumerate(lines):
        line = re.sub(r"\bdocs/([\w-]+)\.md", r":doc:`/\1`", line)
        lines[number] = re.sub(r"(?<![`\w.])((?:Iccld|Config|Data|Checkpoint)Error)\b(?!`)", r":exc:`~iccld.\1`", line)


def without_raises(text: str) -> tuple[str, str]:
    """What is said of the last parameter, and the sentences about errors that follow it or the next paragraph."""
    parts = re.split(r"(?<=\.)\s+(?=(?:Raises |ConfigError |DataError |CheckpointError ))|\n\n", text, maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def names_of(what: str, obj: Any) -> set[str]:
    """Parameters of a function, or attributes that a class sets on itself."""
    if what in ("function", "method"):
        try:
            return {name for name in inspect.signature(obj).parameters if name != "self"}
        except (TypeError, ValueError):
            return set()
    if what == "class":
        return set(re.findall(r"self\.(\w+) = ", inspect.getsource(obj)))
    return set()


def commands_reference() -> str:
    """`--help` of every command, from the parser itself."""
    os.environ["COLUMNS"] = "92"  # of every terminal, for argparse
    _, leaves = build_parser()
    told = {name: leaf for name, leaf in leaves.items() if leaf.get_default("handler")}  # `data` alone only lists its commands
    return "".join(f"\n## iccld {name}\n\n```\n{leaf.format_help()}```\n" for name, leaf in told.items())


def settings_reference() -> str:
    """Every setting with its default and what it means, a table a section, from the types that read it; then those of each method."""
    sections: dict[str, list[Action]] = {}
    for action in config_parser(("STAGE",))._actions:
        sections.setdefault(action.dest.rpartition(".")[0], []).append(action)
    told = [settings_table(name, actions) for name, actions in sections.items()]
    for name, method in METHODS.items():
        parser = ArgumentParser(add_help=False)
        parser.add_class_arguments(method.settings, "settings")
        told.append(settings_table(f"settings of {name}", parser._actions))
    return "".join(told)


def settings_table(name: str, actions: Iterable[Action]) -> str:
    """A heading and a table, whose rows are the settings among a parser's actions; nothing where there are none."""
    rows = [setting_row(action) for action in actions if action.default != SUPPRESS]  # which whole sections have
    heading = f"\n## {name}\n" if name else ""
    return f"{heading}\n| setting | default | meaning |\n|---|---|---|\n{''.join(rows)}" if rows else ""


def setting_row(action: Action) -> str:
    """A setting as a line of its table."""
    meaning = " ".join((action.help or "").split()).replace("|", "\\|")
    meaning = re.sub(r"\bdocs/([\w-]+\.md)", r"[docs/\1](../\1)", meaning)
    return f"| `{action.dest}` | {default_text(action.default)} | {meaning} |\n"


def default_text(value: object) -> str:
    """A default as it would be typed; empty for what a recipe has to give."""
    if value in (None, "", (), {}):
        return ""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


GENERATED = {"reference/commands": commands_reference, "reference/settings": settings_reference}
"""Pages that go on with what the program says of itself."""


def add_generated(app: Sphinx, docname: str, source: list[str]) -> None:
    """The tables and the help, below what the page says."""
    if docname in GENERATED:
        source[0] += GENERATED[docname]()


def read_again(*_: object) -> list[str]:
    """Pages that may have changed though their files have not."""
    return [root_doc, "decisions/index", *GENERATED]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-get-outdated", read_again)
    app.connect("source-read", add_chapters)
    app.connect("source-read", add_generated)
    app.connect("autodoc-process-docstring", parameters_as_list)
    app.connect("autodoc-process-docstring", names_as_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
