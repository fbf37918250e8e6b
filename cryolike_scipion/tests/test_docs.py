"""The pages of docs/: links lead somewhere, and every picture of a window is made by a script."""

import re
import runpy

import pytest

from .helpers import REPOSITORY

PAGES = sorted([*(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "README.md"])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_picture_of_a_window_is_made_by_the_script_and_shown():
    made = set(runpy.run_path(str(REPOSITORY / "tools" / "screenshots.py"))["SHOWN"].values())
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = set(re.findall(r"images/([\w-]+)\.png", text))
    assert made == shown - {"result"}
    assert {path.stem for path in (REPOSITORY / "docs" / "images").glob("*.png")} == shown
