"""The notebooks of `examples/` run as they stand, and show what is kept with them."""

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.helpers.sampling import in_a_campaign

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = ["quickstart", "heads", "which_map"]


def read(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def printed(notebook):
    """What all cells print, without what progress bars and warnings say."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def pictures(notebook):
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = ("image/png", "image/jpeg")
    contents = [output.data[kind] for output in outputs for kind in kinds if kind in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(content))).convert("L") for content in contents]


def numbers(text):
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d+", text)]


def after(text, name):
    """The numbers of the line that begins with a name."""
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return numbers(line.removeprefix(name))


def says_what_the_text_says(name, text):
    if name == "quickstart":
        whole, by_map, by_chance = (
            after(text, start)[-1] for start in ("nothing hidden", "six by the map", "six by chance")
        )
        assert by_map < 0.5 < by_chance <= whole
    elif name == "heads":
        said_and_found = [numbers(line) for line in text.splitlines() if "said" in line]
        assert len(said_and_found) == 5
        assert all(said * found > 0 for said, found in said_and_found)
        table = re.findall(r"^ +(\d+) +(\S+) +(\S+) +(\S+)$", text, re.MULTILINE)
        assert [row[0] for row in table] == ["6", "12", "18", "24"]
        assert all(float(most) < min(float(least), float(chance)) for _, least, chance, most in table)
        assert float(table[-1][1]) > float(table[-1][2])  # half of the heads: the least important, and by chance
    else:
        best, chance = after(text, "recommended "), after(text, "random ")
        assert len(best) == len(chance) == 5
        assert all(mine > theirs for mine, theirs in zip(best[:4], chance[:4], strict=True))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_kept_with_a_notebook(name):
    assert (EXAMPLES / f"{name}.ipynb").stat().st_size < 400_000
    notebook = read(name)
    nbformat.validate(notebook)
    assert not any(
        output.output_type == "error" or output.get("name") == "stderr"
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    says_what_the_text_says(name, printed(notebook))
    assert len(pictures(notebook)) >= 2
    links = re.findall(r"\]\(([^)#:]+)\)", "".join(c.source for c in notebook.cells if c.cell_type == "markdown"))
    assert links
    assert all((EXAMPLES / link).is_file() for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("name", [in_a_campaign(name) if name != "quickstart" else name for name in NOTEBOOKS])
def test_a_notebook_runs(name, tmp_path):
    kept, notebook = read(name), read(name)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    says_what_the_text_says(name, printed(notebook))
    # A notebook opens without a warning: the widgets that tqdm asks for are in the extras `notebook` and `test`.
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "Warning" not in told
    shown = pictures(notebook)
    assert len(shown) == len(pictures(kept))
    assert all(np.asarray(picture).std() > 5 for picture in shown)
