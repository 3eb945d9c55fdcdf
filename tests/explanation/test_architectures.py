"""Every class that transformers has for the task is explained rightly, or refused in words of this package."""

from pathlib import Path

import pytest
import transformers
from transformers.utils import is_timm_available

import gmar_hf
from gmar_hf.explanation import architectures as module
from gmar_hf.explanation import steps
from gmar_hf.explanation.architectures import Architecture, ArchitectureCheck, architectures, check_architecture
from gmar_hf.explanation.methods import METHODS
from gmar_hf.models.tiny_models import TINY_CONFIGS
from tests.helpers.sampling import pick

PAGE = Path(gmar_hf.__file__).parents[1] / "examples" / "models.md"
SERVED = {
    "BeitForImageClassification", "CLIPForImageClassification", "Data2VecVisionForImageClassification",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher", "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification", "IJepaForImageClassification", "MetaClip2ForImageClassification",
    "SiglipForImageClassification", "Siglip2ForImageClassification", "ViTForImageClassification",
    "ViTMSNForImageClassification",
    "AltCLIPModel", "ChineseCLIPModel", "CLIPModel", "CLIPSegModel", "MetaClip2Model", "SiglipModel", "Siglip2Model",
}  # fmt: skip
BY_NAME = {architecture.name: architecture for architecture in architectures()}
STAGED = {
    "DonutSwinForImageClassification", "HieraForImageClassification", "PvtForImageClassification",
    "PvtV2ForImageClassification", "SegformerForImageClassification", "SwinForImageClassification",
    "Swinv2ForImageClassification",
}  # fmt: skip
if is_timm_available():
    SERVED.add("TimmWrapperForImageClassification")
SOME = [*pick(sorted(SERVED), 3), *pick(sorted(STAGED), 1), *pick(sorted(set(BY_NAME) - SERVED - STAGED), 5)]


@pytest.mark.parametrize("name", SOME)
def test_every_architecture(name):
    check = check_architecture(BY_NAME[name])
    assert check.is_right, check.sentence
    if name in SERVED | STAGED:
        assert check.error is not None
        assert check.error < 1e-5
    if name in SERVED:
        assert check.methods == tuple(METHODS)
        assert check.sentence == ""
    elif name in STAGED:
        assert check.methods == ("contribution", "removal", "path", "recommended")
        assert check.sentence.startswith("`method` must be one of ")
    else:
        assert (check.methods, check.error) == ((), None)
        assert check.sentence.startswith((f"{name} cannot be explained", f"{name} requires the "))


@pytest.mark.parametrize("name", [*pick(sorted(SERVED), 1), *pick(sorted(set(BY_NAME) - SERVED), 3, seed=1)])
def test_the_page_says_the_same(name):
    if not PAGE.is_file() or f"with transformers {transformers.__version__};" not in PAGE.read_text():
        pytest.skip("there is no page that was written with this transformers")
    check = check_architecture(BY_NAME[name])
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name} |")]
    _, methods, error, words = [cell.strip() for cell in line.strip("|").split("|")]
    if "requires the" in words or "requires the" in check.sentence:
        return  # what was installed where the page was written is another matter
    has_all = len(check.methods) == len(METHODS)
    assert (methods, words) == ("all" if has_all else ", ".join(check.methods) or "-", check.reason)
    assert (error == "-") == (check.error is None)


def test_the_sample_has_what_matters():
    assert set(BY_NAME) >= SERVED
    assert {architecture.task for architecture in BY_NAME.values()} == set(module._MAPPINGS)
    known = {architecture.config_class.model_type for architecture in BY_NAME.values()}
    assert set(TINY_CONFIGS) <= known


@pytest.fixture
def vit() -> Architecture:
    return BY_NAME["ViTForImageClassification"]


def test_what_is_wrong_is_told_of(vit, monkeypatch):
    def shuffle(row, step):
        return add_contribution(row, step).roll(1, dims=-1)

    add_contribution = steps.add_contribution
    monkeypatch.setattr(steps, "add_contribution", shuffle)
    check = check_architecture(vit)
    assert not check.is_right
    assert check.sentence == "ViTForImageClassification: contribution differs from explicit attention."


def test_foreign_errors_are_told_of(vit, monkeypatch):
    def explain(*args, **kwargs):
        raise KeyError("inside")

    monkeypatch.setattr(module, "explain", explain)
    check = check_architecture(vit)
    assert (check.is_right, check.methods) == (False, ())
    assert check.sentence == "a foreign error, KeyError: 'inside'"


def test_the_reason_is_what_is_between_the_name_and_the_advice(vit):
    def reason(sentence: str) -> str:
        return ArchitectureCheck(architecture=vit, sentence=sentence).reason

    assert reason(f"{vit.name} cannot be explained: it is shy. {module.ADVICE}") == "it is shy"
    assert reason(f"{vit.name} requires the timm library") == "requires the timm library"
    assert reason("") == ""
