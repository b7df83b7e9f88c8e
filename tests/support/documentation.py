"""The documentation as the tests read it: README.md, CONTRIBUTING.md, docs/*.md; their examples, tables and links."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Example(NamedTuple):
    """A fenced block of a page."""

    where: str
    language: str
    code: str


def text_of(name: str) -> str:
    """Return a page: "README", or the name of a page in docs."""
    folder = ROOT if name in {"README", "CONTRIBUTING"} else ROOT / "docs"
    return (folder / f"{name}.md").read_text(encoding="utf-8")


def examples() -> list[Example]:
    """Return the examples of all pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in _FENCED.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            found.append(Example(f"{page.relative_to(ROOT)}:{line}", block[1], _for_this_airflow(block[2])))
    return found


def _for_this_airflow(code: str) -> str:
    """Return an example as its comments say that it is written on Airflow before 3.2, or 2.11."""
    airflow = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
    if airflow < (3, 2):
        code = code.replace("from airflow.sdk.exceptions import", "from airflow.exceptions import")
    return code.replace("from airflow.sdk import", "from airflow.decorators import") if airflow < (3, 0) else code


def example(language: str, text: str) -> str:
    """Return the only example in this language that contains the text."""
    (code,) = [example.code for example in examples() if example.language == language and text in example.code]
    return code


def commands(code: str) -> list[list[str]]:
    """Return the commands of a shell example as words, without what its variables hold."""
    code = re.sub(r" +# .*$", "", code.replace("\\\n", " "), flags=re.MULTILINE)
    words = shlex.shlex(code, posix=True, punctuation_chars="&\n")
    words.whitespace, words.whitespace_split, words.commenters = " ", True, ""
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("&\n"):
            found.append([])
        else:
            found[-1].append(word)
    return [command for command in found if command]


def table(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the table of a page whose first line begins so, cell by cell."""
    lines = text_of(page).split(f"\n| {heading}")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def prose(page: Path) -> str:
    """Return a page without its examples."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return what a link to a page may have after its "#", as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Return the targets of a page's links."""
    return re.findall(r"\]\(([^()\s]+)\)", prose(page))
