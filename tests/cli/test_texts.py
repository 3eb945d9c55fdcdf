"""`--label`: texts in place of labels, on every command that has a model."""

import json

import pytest

from gmar_hf import HeadImportanceReport
from tests.helpers import zoo
from tests.helpers.commands import printed, refusal, save_model
from tests.helpers.dual_encoders import LABELS, clip, tokenizer
from tests.helpers.explainers import name_classes, photo

TEXTS = ["--label", LABELS[0], "--label", LABELS[1]]
COMMANDS = {
    "check": ["check", "--json"],
    "report": ["report", "-d", "pets", "-o", "out", "--json"],
    "evaluate": [
        *["evaluate", "-d", "pets", "-o", "out", "--json"],
        *["--methods", "contribution", "--metrics", "sparseness"],
    ],
}


@pytest.fixture
def dual_encoder(tmp_path, monkeypatch):
    """The folder of a CLIP with its tokenizer; the command is started beside two pictures."""
    monkeypatch.chdir(tmp_path)
    name = save_model(tmp_path / "clip", clip())
    tokenizer().save_pretrained(name)
    (tmp_path / "pets").mkdir()
    for number in range(2):
        photo(number).save(tmp_path / "pets" / f"{number}.png")
    return name


def test_check(run, dual_encoder):
    told = json.loads(printed(run(*COMMANDS["check"], "-m", dual_encoder, *TEXTS)))
    assert (told["class"], told["verdict"]) == ("TextClassifier", "ok")


def test_a_reports_settings_name_the_texts(run, dual_encoder):
    template = ["--hypothesis-template", "a photo of {}"]
    told = json.loads(printed(run(*COMMANDS["report"], "-m", dual_encoder, *TEXTS, *template)))
    report = HeadImportanceReport.from_pretrained(told["out"])
    assert report.labels == LABELS[:2]
    assert report.settings["model"]["hypothesis_template"] == "a photo of {}"
    with open("out/README.md", encoding="utf-8") as card:
        assert "2 classes, which are texts, each put into “a photo of " in card.read()


def test_an_evaluations_settings_name_the_texts(run, dual_encoder):
    code, out, _ = run(*COMMANDS["evaluate"], "-m", dual_encoder, *TEXTS)
    assert (code, json.loads(out)["num_rows"]) == (0, 2)
    with open("out/results.json", encoding="utf-8") as results:
        model = json.load(results)["settings"]["model"]
    assert (model["labels"], model["hypothesis_template"]) == (LABELS[:2], "This is a photo of {}.")


@pytest.mark.parametrize("command", COMMANDS)
def test_texts_are_for_models_that_compare_images_with_them(run, dual_encoder, tmp_path, command):
    assert "`--label` must be given (CLIPModel compares images with texts" in refusal(
        run(*COMMANDS[command], "-m", dual_encoder)
    )
    classifier = save_model(tmp_path / "vit", name_classes(zoo.vit(), list("abcde")))
    message = refusal(run(*COMMANDS[command], "-m", classifier, *TEXTS))
    assert message.startswith("`--label` must come with a model that compares images with texts")
