"""The house's rules: who may import whom, what an import costs, and what the package shows."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import gmar_hf
from tests.helpers.sampling import in_a_campaign

ROOT = Path(gmar_hf.__file__).parents[1]
HEAVY = ("accelerate", "captum", "datasets", "jinja2", "matplotlib", "pandas", "peft", "rich", "torchcam", "typer")


def loaded(code, before=""):
    """Names of the modules that some code loads in a new Python which has run other code before."""
    program = f"{before}\nimport sys; known = set(sys.modules)\n{code}\nprint(*sys.modules.keys() - known)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_every_package_imports_only_from_lower_floors(monkeypatch):
    config = ROOT / "pyproject.toml"
    if not config.is_file():
        pytest.skip("the installed package comes without pyproject.toml, which holds the rules")
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(config), no_cache=True) == 0


def test_the_package_alone_imports_neither_torch_nor_transformers():
    assert {"torch", "transformers", "numpy"}.isdisjoint(loaded("import gmar_hf"))


@pytest.mark.slow
@pytest.mark.campaign
def test_a_pipeline_needs_no_plots_tables_or_launchers():
    assert loaded(
        "import gmar_hf.pipeline, gmar_hf.report.head_importance_report", before="from transformers import pipeline"
    ).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "order",
    [
        in_a_campaign("import gmar_hf; from transformers import pipeline"),
        "from transformers import pipeline; import gmar_hf",
        in_a_campaign("import gmar_hf.cli"),
        *(in_a_campaign(f"import gmar_hf._pipeline.{name}") for name in ("models", "parameters", "scores")),
    ],
)
@pytest.mark.slow
def test_the_task_is_registered_whatever_is_imported_first(order):
    code = f"{order}\nimport transformers.pipelines as pipelines\n"
    code += "assert 'gmar-explanation' in pipelines.PIPELINE_REGISTRY.supported_tasks\n"
    # The module that is watched for keeps its own loader.
    code += "assert type(pipelines.__loader__) is type(pipelines.__spec__.loader) is type(gmar_hf.__loader__)"
    assert "gmar_hf.pipeline" in loaded(code)


def test_names_that_earlier_scripts_imported_are_there():
    assert (
        importlib.import_module("gmar_hf.files").replacing is importlib.import_module("gmar_hf.utils.files").replacing
    )
    joined = importlib.import_module("gmar_hf.runs.processes").joined
    assert importlib.import_module("gmar_hf.processes").joined is joined


@pytest.mark.parametrize("face", sorted(ROOT.glob("gmar_hf/**/__init__.pyi")), ids=lambda face: face.parent.name)
def test_every_name_on_a_face_is_there(face):
    package = importlib.import_module(".".join(face.parent.relative_to(ROOT).parts))
    (listed,) = [node for node in ast.parse(face.read_text()).body if isinstance(node, ast.Assign)]
    names = ast.literal_eval(listed.value)
    assert sorted(names) == sorted(package.__all__) == sorted(dir(package))
    for name in names:
        assert getattr(package, name) is not None
