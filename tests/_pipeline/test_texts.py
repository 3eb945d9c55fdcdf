"""The pipeline with labels that are texts, and around modules of the user's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, CLIPForImageClassification, CLIPModel, SiglipModel, ViTModel, pipeline
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.pipelines import ZeroShotImageClassificationPipeline

import gmar_hf
from tests.helpers import zoo
from tests.helpers.dual_encoders import LABELS, clip, siglip, tokenizer
from tests.helpers.explainers import image_processor, make_explainer, photo


def of_texts(model, **settings):
    return make_explainer(model, image_processor=image_processor(), tokenizer=tokenizer(), **settings)


def save(model, folder, *, with_tokenizer=True):
    model.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    if with_tokenizer:
        tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:1]])
@pytest.mark.parametrize("template", [None, "a photo of {}", "{{a}} {0}"])
def test_scores_are_those_of_transformers(template, labels):
    settings = {} if template is None else {"hypothesis_template": template}
    model = clip()
    theirs = ZeroShotImageClassificationPipeline(
        model=model, tokenizer=tokenizer(), image_processor=image_processor(), device="cpu"
    )(photo(), candidate_labels=labels, **settings)
    ours = of_texts(model)(photo(), candidate_labels=labels, top_k=3, **settings)
    assert [result["label"] for result in ours] == [entry["label"] for entry in theirs]
    assert [result["score"] for result in ours] == pytest.approx([entry["score"] for entry in theirs], abs=1e-6)


def test_maps_are_those_of_the_classifier_of_texts():
    model = siglip()
    explain = of_texts(model)
    (result,) = explain(
        photo(), candidate_labels=LABELS, target="a dog", versus="a cat", method="recommended", return_explanation=True
    )
    classifier = gmar_hf.text_classifier(model, tokenizer(), LABELS)
    pixel_values = image_processor()(photo(), return_tensors="pt")["pixel_values"]
    expected = gmar_hf.explain(classifier, pixel_values, lambda logits: logits[:, 1] - logits[:, 0], "recommended")
    assert torch.allclose(result["attribution"], expected.attribution[0], atol=1e-6)
    assert (result["label"], result["versus"]) == ("a dog", "a cat")
    against, score = (
        classifier(pixel_values).logits[0, :2].sigmoid().tolist()
    )  # each text alone, as SigLIP was trained
    assert (result["score"], result["versus_score"]) == pytest.approx((score, against), abs=1e-6)


def test_texts_of_the_constructor_and_of_a_call():
    explain = of_texts(clip(), candidate_labels=LABELS, target="a dog")
    assert explain(photo())[0]["label"] == "a dog"
    first = explain(photo(), method="contribution")[0]["attribution"]
    other = explain(photo(), hypothesis_template="{}", method="contribution")[0]["attribution"]
    assert not torch.allclose(first, other, rtol=1e-3)
    with pytest.raises(gmar_hf.ArgumentError, match="`target` must be given with other `candidate_labels`"):
        explain(photo(), candidate_labels=["a dog", "a cat"])
    assert explain(photo(), candidate_labels=["a dog", "grey"], target="grey")[0]["label"] == "grey"
    assert len(explain([photo(), photo(1)], candidate_labels=["a cat", "grey"], top_k=9, batch_size=2)[1]) == 2


def test_a_call_names_other_texts_and_takes_the_target_back():
    explain = of_texts(clip(), candidate_labels=["a cat", "a dog"], target="a cat")
    (result,) = explain(photo(), candidate_labels=LABELS, target=None)
    assert result["label"] == explain(photo(), candidate_labels=LABELS, top_k=1)[0]["label"]


def test_top_k_of_the_constructor_counts_the_texts_of_a_call():
    explain = of_texts(clip(), candidate_labels=LABELS[:1], top_k=2)
    assert len(explain(photo())) == 1
    assert len(explain(photo(), candidate_labels=LABELS)) == 2


def other_weights(explain):
    other = clip()
    zoo.perturb(other, seed=7)
    explain.model.load_state_dict(other.state_dict())


def another_model(explain):
    explain.model = clip()
    zoo.perturb(explain.model, seed=7)


def half_precision(explain):
    explain.model.bfloat16()


@pytest.mark.parametrize("change", [other_weights, another_model, half_precision])
def test_texts_of_the_constructor_are_read_again_when_the_model_has_changed(change):
    explain = of_texts(clip(), candidate_labels=LABELS)

    def scores(**texts):
        return {result["label"]: result["score"] for result in explain(photo(), top_k=3, **texts)}

    before = scores()
    assert scores() == before
    change(explain)
    assert scores() == scores(candidate_labels=LABELS) != before


def test_texts_are_read_again_between_two_images_of_an_iterator():
    explain = of_texts(clip(), candidate_labels=LABELS)
    results = iter(explain(iter([photo(), photo()]), top_k=3))
    before = next(results)
    other_weights(explain)
    after = next(results)
    assert [result["score"] for result in after] == [result["score"] for result in explain(photo(), top_k=3)]
    assert [result["score"] for result in after] != [result["score"] for result in before]


def test_a_classifier_of_texts_in_another_precision():
    model = clip()
    classifier = gmar_hf.text_classifier(model, tokenizer(), LABELS)
    pixel_values = zoo.pixel_values(model, batch=1)
    expected = classifier(pixel_values).logits
    model.double()  # the tower, and not the texts that were read
    torch.testing.assert_close(classifier(pixel_values.double()).logits.float(), expected, atol=1e-4, rtol=1e-4)


def test_a_model_by_its_name_loads_as_what_it_is(tmp_path):
    name = save(clip(), tmp_path / "clip")
    explain = pipeline("gmar-explanation", model=name, device="cpu")
    assert type(explain.model) is CLIPModel
    assert explain.tokenizer is None  # until there is a text to read
    assert explain(photo(), candidate_labels=LABELS, target="a cat")[0]["label"] == "a cat"
    explain.tokenizer = tokenizer()
    explain.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again").vocab_size == tokenizer().vocab_size
    # A classifier of the same config is one.
    name = save(zoo.clip(), tmp_path / "classifier", with_tokenizer=False)
    explain = pipeline("gmar-explanation", model=name, device="cpu")
    assert type(explain.model) is CLIPForImageClassification
    assert explain(photo())[0]["label"].startswith("LABEL_")
    assert type(pipeline("gmar-explanation", model=save(siglip(), tmp_path / "s")).model) is SiglipModel


def refused(message, call, *args, error=gmar_hf.ArgumentError, **kwargs):
    with pytest.raises(error, match=message):
        call(*args, **kwargs)


def test_what_is_refused(tmp_path):
    explain = of_texts(clip())
    refused(r"`candidate_labels` must be given \(CLIPModel compares", explain, photo())
    refused("`candidate_labels` must be given", explain, photo(), hypothesis_template="{}")
    refused("`candidate_labels` must be given", of_texts, clip(), target="a cat")
    refused("`candidate_labels` must hold at least one text", explain, photo(), candidate_labels=[])
    refused("`candidate_labels` must all be different", explain, photo(), candidate_labels=["a", "a"])
    for labels in ("a cat", [1, 2]):
        refused(
            "`candidate_labels` must be",
            explain,
            photo(),
            candidate_labels=labels,
            error=gmar_hf.ArgumentTypeError,
        )
    refused("`target` must be one of the model's labels", explain, photo(), candidate_labels=LABELS, target="a cow")
    refused(
        "`candidate_labels` must come with a model that compares images with texts .* got ViTForImageClassification",
        make_explainer(),
        photo(),
        candidate_labels=LABELS,
    )
    without = make_explainer(clip(), image_processor=image_processor())
    refused("`tokenizer` must be given", without, photo(), candidate_labels=LABELS)
    name = save(clip(), tmp_path, with_tokenizer=False)
    by_name = pipeline("gmar-explanation", model=name, device="cpu")
    refused(
        "`tokenizer` must be given where the model's repository has none", by_name, photo(), candidate_labels=LABELS
    )


class Own(nn.Module):
    """A head of the user's on a backbone of transformers."""

    def __init__(self):
        super().__init__()
        model = zoo.vit()
        self.backbone = zoo.build(ViTModel, copy.deepcopy(model.config))
        self.head = nn.Linear(24, 3)

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(self.backbone(pixel_values).last_hidden_state.mean(dim=1)))


def test_a_module_of_ones_own():
    module = Own()
    refused(
        "`model` must have a config of transformers, .* got Own, whose `config` is NoneType. Set `model.config`",
        make_explainer,
        module,
        image_processor=image_processor(),
        error=gmar_hf.ArgumentTypeError,
    )
    module.config = copy.deepcopy(module.backbone.config)
    module.config.id2label = dict(enumerate(["cat", "dog", "bird"]))
    explain = make_explainer(module, image_processor=image_processor())
    assert explain.model is module
    assert repr(explain) == "GMARExplainer(Own, device='cpu')"
    (result,) = explain(photo(), target="dog", method="contribution")
    pixel_values = image_processor()(photo(), return_tensors="pt")["pixel_values"]
    expected = gmar_hf.explain(module, pixel_values, 1, "contribution").attribution[0]
    assert torch.equal(result["attribution"], expected)
    refused("must be one of transformers to be saved", explain.save_pretrained, "x", error=gmar_hf.ArgumentTypeError)


def test_a_classifier_of_texts_as_the_model():
    classifier = gmar_hf.text_classifier(clip(), tokenizer(), LABELS)
    explain = make_explainer(classifier, image_processor=image_processor())
    assert explain(photo(), target="a grey garden")[0]["target"] == 2
