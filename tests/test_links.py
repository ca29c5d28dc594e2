"""README.md and docs/ cite nothing that is not here: every link leads somewhere, and every file that is named exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

TAUGHT = {"src/iccld/methods/minent.py", "mine/minent.py"}
"""Files that a page tells its reader to write."""

ROOMS = ("src/", "tests/", "docs/", "benchmarks/")
PLACES = (ROOT, ROOT / "src" / "iccld")
"""Where a path begins: `benchmarks/city.py`, or short for one of the package, `training/update.py`."""


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What `#...` may follow the page's name: its headings in lower case, punctuation left out, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(file, anchor) of each relative link and picture; either may be empty."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"\w+:", target):
            file, _, anchor = target.partition("#")
            yield file, anchor


def cited(text: str) -> set[str]:
    """Words that name a file of the repository: Python files, pages in capitals, and anything in one of its rooms."""
    words = {word.strip("\"'(),;:") for word in re.findall(r"[^\s`]+", text)}
    return {
        word
        for word in words
        if re.fullmatch(r"[\w./<>*-]+", word) and (word.startswith(ROOMS) or re.fullmatch(r"[\w./<>*-]*\w\.py|[A-Z]{3,}\.md", word))
    }


def exists(word: str) -> bool:
    """`<method>` stands for any name; a bare Python file may lie in any room."""
    pattern = re.sub(r"<\w+>", "*", word).rstrip("./")
    places = PLACES if "/" in word else (*PLACES, *(path for path in (ROOT / "src").rglob("*") if path.is_dir()))
    return any(any(place.glob(pattern)) for place in places)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    broken = []
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors(target)):
            broken.append(f"{file}#{anchor}" if anchor else file)
    assert not broken, f"{name} links to what is not there"


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    """In sentences, in code and in commands."""
    missing = {word for word in cited((ROOT / name).read_text(encoding="utf-8")) if not exists(word)}
    assert missing <= TAUGHT, f"{name} names files that are not there"


@pytest.mark.parametrize(
    "text", ["see `src/iccld/nowhere.py`", "`python benchmarks/none.py --num 3`", "(FAULTS.md)", "`nowhere.py`", "docs/none.md,"]
)
def test_a_missing_file_is_noticed(text: str) -> None:
    (word,) = cited(text)
    assert not exists(word)


def test_links_and_files_are_found() -> None:
    """Were the pages read wrongly, everything above would pass."""
    assert ("docs/index.md", "") in links(ROOT / "README.md")
    assert ("experiments.md", "reading-the-tables") in links(ROOT / "docs" / "results.md")
    assert {"benchmarks/city.py", "benchmarks/gpu.sh"} <= cited((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"))


def test_every_page_is_in_a_chapter_of_the_site() -> None:
    """Without Sphinx, which says the same when the site is built."""
    tree = ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8"))
    named = (node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHAPTERS")
    chapters: dict[str, list[str]] = ast.literal_eval(next(named).value)
    listed = {page for pages in chapters.values() for page in pages}
    pages = {file.stem for file in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages - listed == set()
