"""What a type checker tells users of the public calls: mypy reads a script of theirs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gmar_hf

ROOT = Path(gmar_hf.__file__).parents[1]
SCRIPT = """
import gmar_hf
import torch
from torch import nn


def use(explainer: gmar_hf.GMARExplainer, model: nn.Module, pixel_values: torch.Tensor) -> None:
    result = explainer("cat.jpg")[0]
    reveal_type(result)
    reveal_type(explainer(["a.jpg"]))
    reveal_type(explainer(iter(["a.jpg"])))
    reveal_type(result["label"])
    reveal_type(result["score"])
    reveal_type(result["target"])
    reveal_type(result["attribution"])
    reveal_type(result["head_contribution"])
    reveal_type(result["heatmap"])
    reveal_type(result["explanation"].logits)
    reveal_type(result.to_dict())
    reveal_type(result.top_heads()[0]["layer"])
    reveal_type(gmar_hf.explain(model, pixel_values))
    reveal_type(gmar_hf.explain(model, pixel_values, method=["gmar", "rollout"], num_points=2))
    reveal_type(gmar_hf.Explanation.load("a.safetensors").attribution)
    reveal_type(gmar_hf.evaluate(model, "photos").verdict().text)
    report = gmar_hf.survey(model, "photos")
    reveal_type(report)
    reveal_type(report.prunable_heads(0.25))
    reveal_type(gmar_hf.demo.load("vit"))
    with gmar_hf.retain_attention(model) as attentions:
        reveal_type(attentions[0])
    gmar_hf.explain(model, pixel_values, num_points="two")
    result["label"] + 1
"""
REVEALED = [
    "gmar_hf._pipeline.results.ExplanationResult",
    "gmar_hf._pipeline.results.ResultList[gmar_hf._pipeline.results.ResultList"
    "[gmar_hf._pipeline.results.ExplanationResult]]",
    "typing.Iterable[gmar_hf._pipeline.results.ResultList[gmar_hf._pipeline.results.ExplanationResult]]",
    "str",
    "float",
    "int",
    "torch._tensor.Tensor",
    "torch._tensor.Tensor | None",
    "PIL.Image.Image",
    "torch._tensor.Tensor | None",
    "dict[str, Any]",
    "int",
    "gmar_hf.explanation.result.Explanation",
    "list[gmar_hf.explanation.result.Explanation]",
    "torch._tensor.Tensor | None",
    "str",
    "gmar_hf.report.head_importance_report.HeadImportanceReport",
    "list[tuple[int, int]]",
    "tuple[Any, Any]",
    "torch._tensor.Tensor",
]


def test_the_package_says_that_it_has_types():
    assert (Path(gmar_hf.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_mypy_knows_the_types_of_public_calls(tmp_path):
    config = ROOT / "pyproject.toml"
    if not config.is_file():
        pytest.skip("the installed package comes without pyproject.toml, which holds mypy's settings")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, script], capture_output=True, text=True, cwd=ROOT
    )
    revealed = re.findall(r'note: Revealed type is "(.*)"', done.stdout)
    assert [name.replace("builtins.", "") for name in revealed] == REVEALED, done.stdout
    # What is wrong is found, and nothing else is.
    errors = re.findall(r"error: .*\[([a-z-]+)\]$", done.stdout, flags=re.MULTILINE)
    assert errors == ["call-overload", "operator"], done.stdout
