"""What commands are pointed at: code that a repository brings is never run, and nobody is asked."""

import io
import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import pipeline, pipelines

import gmar_hf
from gmar_hf.cli import loading
from gmar_hf.cli.loading import load_classifier, load_explainer
from gmar_hf.errors import ArgumentError
from gmar_hf.runs.identity import describe_model
from tests.helpers import dual_encoders
from tests.helpers.commands import printed, refusal, save_model
from tests.helpers.explainers import image_processor, photo

CODE = """
from pathlib import Path
Path({ran!r}).touch()
from transformers import {base}
class Own({base}):
    model_type = {model_type!r}
"""
CODE_OF_CONFIG = {
    "AutoConfig": "own.Own",
    "AutoModelForImageClassification": "own.Own",
    "AutoImageProcessor": "own.Own",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A model's folder with code of its own, which nothing names yet, and an image; whoever asks is told "yes"."""
    monkeypatch.chdir(tmp_path)
    save_model("model")
    (tmp_path / "images").mkdir()
    photo(0).save("images/one.png")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    return tmp_path


def bring_code(file, **settings):
    """Lets a JSON file of the model name the code, which leaves the file `ran` when it is run."""
    is_config = file == "config.json"
    model_type, base = ("own", "ViTConfig") if is_config else (None, "ViTImageProcessorPil")
    path = Path("model/own.py")
    path.write_text(CODE.format(ran=str(Path("ran").absolute()), base=base, model_type=model_type))
    content = json.loads(Path("model", file).read_text())
    Path("model", file).write_text(json.dumps({**content, "auto_map": CODE_OF_CONFIG, **settings}))


COMMANDS = [
    ("explain", "images/one.png", "--out", "out"),
    ("check",),
    ("report", "--data", "images", "--no-labels", "--out", "out"),
    ("evaluate", "--data", "images", "--no-labels", "--out", "out"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_model_of_its_own_class_is_refused(run, here, command):
    bring_code("config.json", model_type="own")
    err = refusal(run(*command, "--model", "model", "--json"))
    assert err == (
        "`--model` must be of a class that transformers has; got 'model', which needs code of its own (`auto_map`), "
        "and the command line runs none. If you trust it, load it in Python and call `gmar_hf.explain`.\n"
    )
    assert not Path("ran").exists()


def test_so_is_an_image_processor_of_its_own_class(run, here):
    bring_code("preprocessor_config.json", image_processor_type="OwnImageProcessor")
    for command in (COMMANDS[0], *COMMANDS[2:]):
        assert "which needs code of its own (`auto_map`)" in refusal(run(*command, "--model", "model", "--json"))
    verdict = json.loads(printed(run("check", "--model", "model", "--json")))
    assert verdict["image_processor"].startswith("none that can be loaded")
    assert not Path("ran").exists()


def test_image_processors_come_from_where_pipelines_have_them():
    """transformers 5.9 puts something in its place under its own name, where torchvision is missing."""
    assert loading.AutoImageProcessor is pipelines.AutoImageProcessor


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_where_transformers_has_the_class_it_is_taken_and_the_code_is_not(run, here, file):
    bring_code(file)
    (image,) = json.loads(printed(run(*COMMANDS[0], "--model", "model", "--json")))
    assert image["results"]
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nobody/has-this", "Downloading nobody/has-this, once, into the Hub's cache ...\n"),
        ("not/a/name", "Loading not/a/name ...\n"),
        ("model", "Loading model ...\n"),
    ],
)
def test_a_terminal_is_told_of_a_download(here, monkeypatch, capsys, name, told):
    def refuse(*args, **kwargs):
        raise ArgumentError("no network in tests")

    monkeypatch.setattr(loading, "_load", refuse)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(ArgumentError):
        loading.load_model(name, None)
    assert capsys.readouterr().err == told


def classifier_in(explainer):
    """The classifier of the texts that the constructor was given."""
    return explainer._classifier(explainer._forward_params["texts"])


class TestRevisions:
    """What reads the labels is of the revision that the model is of."""

    @pytest.fixture
    def first(self, hub, tmp_path, monkeypatch):
        """The commit of a repository whose main branch has another tokenizer by now."""
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
        dual_encoders.clip().save_pretrained(tmp_path / "clip")
        image_processor((32, 32)).save_pretrained(tmp_path / "clip")
        dual_encoders.tokenizer().save_pretrained(tmp_path / "clip")
        files = {path.name: path.read_bytes() for path in (tmp_path / "clip").iterdir()}
        repo = hub.add("me/clip", files)
        first = repo.refs["main"]
        others = files["tokenizer.json"].replace(b'"cat"', b'"cow"').replace(b'"dog"', b'"cat"')
        assert others != files["tokenizer.json"]
        hub.commit(repo, "main", repo.trees[first] | {"tokenizer.json": hub.blob("tokenizer.json", others)})
        return first

    def test_the_tokenizer_of_a_revision(self, first):
        labels = ["a cat", "a dog"]
        expected = gmar_hf.text_classifier(dual_encoders.clip(), dual_encoders.tokenizer(), labels).head.text_embeds
        explainer, _ = load_explainer("me/clip", first, "cpu", {"candidate_labels": labels, "method": None}, ["gmar"])
        piped = pipeline("gmar-explanation", model="me/clip", revision=first, candidate_labels=labels, device="cpu")
        classifier = load_classifier("me/clip", first, labels=labels, hypothesis_template=None)
        for each in (classifier_in(explainer), classifier_in(piped), classifier):
            torch.testing.assert_close(each.head.text_embeds, expected)
        # Transformers' own class keeps no revision; the cache has the weights of one only.
        given = {"image_processor": image_processor((32, 32)), "candidate_labels": labels}
        model = transformers.AutoModel.from_pretrained("me/clip", revision=first)
        explainer = gmar_hf.GMARExplainer(model=model, **given)
        torch.testing.assert_close(classifier_in(explainer).head.text_embeds, expected)
        of_main = load_classifier("me/clip", None, labels=labels, hypothesis_template=None)
        assert (of_main.head.text_embeds - expected).abs().max() > 0.01
        # And now it has those of two.
        with pytest.raises(ArgumentError) as caught:
            gmar_hf.GMARExplainer(model=model, **given)
        assert str(caught.value) == (
            "`tokenizer` must be given for a model whose revision is not known (a model of 'me/clip' does not keep it "
            "itself, and the Hub's cache does not have the weights of exactly one); got none. Pass "
            "`tokenizer=AutoTokenizer.from_pretrained('me/clip', revision=...)`, of the revision of its weights."
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained("me/clip", revision=first)
        explainer = gmar_hf.GMARExplainer(model=model, tokenizer=tokenizer, **given)
        torch.testing.assert_close(classifier_in(explainer).head.text_embeds, expected)

    def test_results_name_no_commit_that_nobody_knows(self, first):
        of_first = transformers.AutoModel.from_pretrained("me/clip", revision=first)
        labels = ["a cat", "a dog"]
        classifier = gmar_hf.text_classifier(of_first, dual_encoders.tokenizer(), labels)
        assert describe_model(classifier, None, None)["commit"] == first  # though the main branch is another by now
        main = load_classifier("me/clip", None, labels=labels, hypothesis_template=None)
        assert describe_model(main, None, None)["commit"] not in (first, None)
        assert describe_model(classifier, None, None)["commit"] is None
        assert describe_model(classifier, None, first)["commit"] == first
