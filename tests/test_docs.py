"""The site's pages: their code runs as it stands, their commands parse, and the reference has every public name."""

import importlib
import re
import shlex
from pathlib import Path

import matplotlib.pyplot
import pytest

import gmar_hf
from gmar_hf.evaluation.maps import map_registry
from gmar_hf.explanation.methods import METHODS
from tests.helpers.documents import CLIP, MODEL, check_command, code_blocks, make_stand_ins

ROOT = Path(gmar_hf.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "reference")
FACES = ["gmar_hf", *(f"gmar_hf.{name}" for name in ("demo", "errors", "evaluation", "metrics", "pages", "plotting"))]


def of(language):
    """The pages that have code of a language."""
    pages = [page for page in PAGES if code_blocks(page, language)]
    assert pages
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.stem)


def run_code(page, tmp_path, monkeypatch):
    """Runs a page's blocks one after the other, in a folder that has what they name."""
    make_stand_ins(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(map_registry, "MAP_METHODS", dict(map_registry.MAP_METHODS))  # a page adds one
    namespace = {}
    for block in code_blocks(page, "python"):
        block = block.replace(MODEL, str(tmp_path / "model")).replace(CLIP, str(tmp_path / "clip"))
        exec(compile(block, str(page), "exec"), namespace)
    matplotlib.pyplot.close("all")


def test_code_of_the_tour_runs(tmp_path, monkeypatch):
    run_code(DOCS / "tour.md", tmp_path, monkeypatch)


@pytest.mark.slow
@of("python")
def test_code_runs(page, tmp_path, monkeypatch):
    run_code(page, tmp_path, monkeypatch)


@of("bash")
def test_commands_are_those_of_the_command_line(page):
    for line in "".join(code_blocks(page, "bash")).splitlines():
        words = shlex.split(line, comments=True)
        if "-m" in words and words[words.index("-m") + 1] == "gmar_hf":  # under a launcher
            words = ["gmar-hf", *words[words.index("-m") + 2 :]]
        if "gmar-hf" in words:
            check_command(words[words.index("gmar-hf") + 1 :])
        else:
            assert words[0] == "pip"


@pytest.mark.parametrize("face", FACES)
def test_the_reference_has_every_public_name(face):
    listed = {
        name for page in (DOCS / "reference").glob("*.md") for name in re.findall(r"::: (\S+)", page.read_text())
    }
    if face in listed:  # with all that is public in it
        return
    public = importlib.import_module(face).__all__
    elsewhere = {name.rpartition(".")[2] for name in listed} | set(gmar_hf.evaluation.__all__)
    elsewhere |= {name for name in public if name.endswith("Error")} | {"__version__"}
    assert set(public) <= elsewhere


def test_the_table_of_methods_is_that_of_the_code():
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", text, flags=re.MULTILINE)
    assert rows == [(name, method.summary) for name, method in METHODS.items()]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_lead_to_files_of_the_repository(page):
    for link in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=lambda page: page.stem)
def test_pages_of_docstrings_say_where_these_stand(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"<!-- (commands|docstrings) -->\n.*\]\(\.\./\.\./gmar_hf", text)
