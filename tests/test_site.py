"""The site: it builds without a warning, every link within it leads somewhere, and it holds what people look for."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import iccld
from iccld.config import known_keys
from iccld.methods import METHODS

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(any(find_spec(name) is None for name in ("sphinx", "myst_nb", "furo")), reason="needs the extra docs"),
]


class Page(HTMLParser):
    """Ids of a page, and what it links to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("href", "src") and value:
                self.links.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, with warnings as errors."""
    out = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-E", "-b", "html", "-d", str(out / "doctrees"), str(ROOT / "docs"), str(out / "html")]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return out / "html"


def test_every_page_and_notebook_is_there(site: Path) -> None:
    found = [path.relative_to(ROOT / "docs") for kind in ("*.md", "*.ipynb") for path in (ROOT / "docs").rglob(kind)]
    written = {path.with_suffix(".html") for path in found if path.parts[0] != "_build"}  # `make docs` writes there
    assert len(written) > 30
    assert [str(page) for page in sorted(written) if not (site / page).is_file()] == []


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    pages = {file: Page(file) for file in site.rglob("*.html")}
    broken, followed = [], 0
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            followed += 1
            has_anchor = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].ids
            if not target.is_file() or not has_anchor:
                broken.append(f"{file.relative_to(site)}: {link}")
    assert broken == []
    assert followed > 1000


def test_every_public_name_is_explained(site: Path) -> None:
    ids = Page(site / "reference" / "python.html").ids
    assert {f"iccld.{name}" for name in iccld.__all__ if name != "__version__"} <= ids
    assert {"iccld.Model.segment", "iccld.Run.adapt", "iccld.Segmentation.overlay"} <= ids


def test_parameters_are_a_list(site: Path) -> None:
    """Docstrings name them in sentences, docs/conf.py makes a list of them."""
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "<strong>stage</strong>" in text
    assert "<strong>overrides</strong>" in text


def test_every_setting_and_command_is_explained(site: Path) -> None:
    settings = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    own = [f"settings.{field.name}" for method in METHODS.values() for field in fields(method.settings)]
    assert [key for key in (*known_keys(("STAGE",)), *own) if f">{key}<" not in settings] == []
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "usage: iccld checkpoint verify" in commands
    assert "usage: iccld completion" in commands


def test_notebooks_are_shown_with_their_outputs(site: Path) -> None:
    page = (site / "notebooks" / "first-adaptation.html").read_text(encoding="utf-8")
    assert "% mIoU" in page
    assert len(re.findall(r"<img[^>]+_images/\w+\.jpe?g", page)) == 2
