"""Dual encoders as classifiers of texts: against transformers' own `logits_per_image` and explicit attention."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from transformers import (
    AlignConfig,
    AlignModel,
    CLIPProcessor,
    PreTrainedModel,
    ViTImageProcessorPil,
)

import gmar_hf
from gmar_hf.explanation.parity import check_parity
from tests.explanation.test_engine_parity import METHODS, TARGETS, Case, assert_matches, expected_fields, explain
from tests.helpers import oracle, state, zoo
from tests.helpers.dual_encoders import DUAL_ENCODERS, LABELS, TEXT, PairLogits, clip, siglip, tokenizer
from tests.helpers.explainers import photo
from tests.helpers.sampling import sample_product
from tests.helpers.zoo import relative_error

TEXTS = [f"This is a photo of {label}." for label in LABELS]
CLASSES = [target % len(LABELS) for target in TARGETS]


def make_images(seed: int = 0, batch: int = len(TARGETS)) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def classifier_of(model: PreTrainedModel, labels: list[str] = LABELS, **settings: str) -> gmar_hf.TextClassifier:
    return gmar_hf.text_classifier(model, tokenizer(), labels, **settings)


@functools.cache
def make_case(name: str) -> Case:
    """The classifier beside what the oracle says of the whole dual encoder, in which the package has no part."""
    model, images = DUAL_ENCODERS[name](), make_images()
    references = oracle.explicit_reference(PairLogits(model, TEXTS), images, CLASSES)
    return Case(name, classifier_of(model), images, references)


@pytest.mark.parametrize("name", DUAL_ENCODERS)
def test_logits_are_those_of_the_whole_model(name):
    model, images = DUAL_ENCODERS[name](), make_images()
    for template in ("This is a photo of {}.", "{}"):
        texts = [template.replace("{}", label) for label in LABELS]
        with torch.no_grad():
            expected = PairLogits(model, texts)(images).logits
            logits = classifier_of(model, hypothesis_template=template)(images).logits
        assert relative_error(logits, expected) < 1e-6
        assert (expected[:, 1:] - expected[:, :1]).abs().min() > 1e-3  # else the texts would not matter


@pytest.mark.parametrize(
    ("name", "method"), sample_product(sorted(DUAL_ENCODERS), sorted(METHODS), number=len(DUAL_ENCODERS), seed=14)
)
def test_parity_with_explicit_attention_in_the_whole_model(name, method):
    case = make_case(name)
    actual = explain(case, method, CLASSES, return_head_maps=True)
    assert_matches(actual, expected_fields(case.references, method))


def test_what_the_head_reads():
    readout = gmar_hf.explain(classifier_of(clip()), make_images()).readout
    assert torch.equal(readout[:, 0], torch.ones(2))
    # SigLIP's pooling attends to all tokens, to some more than to others.
    readout = gmar_hf.explain(classifier_of(siglip()), make_images()).readout
    assert readout.shape == (2, 16)
    assert readout.min() > 0
    assert readout.std(dim=1).min() > 1e-3


def test_gradients_are_those_of_the_logits():
    parity = check_parity(classifier_of(siglip()), make_images())
    assert parity.agrees


def test_one_text_against_another():
    classifier, images = classifier_of(siglip()), make_images()

    def versus(logits):
        return logits[:, 0] - logits[:, 2]

    (reference,) = oracle.explicit_reference(PairLogits(siglip(), TEXTS), images[:1], versus)
    actual = gmar_hf.explain(classifier, images[:1], versus, method="contribution")
    assert relative_error(actual.attribution[0], oracle.contribution_map(reference)) < 1e-5


def test_labels_and_what_a_config_says():
    classifier = classifier_of(clip())
    assert classifier.config.id2label == dict(enumerate(LABELS))
    assert classifier.config.num_labels == 3
    assert classifier.config.problem_type == "single_label_classification"
    assert classifier_of(siglip()).config.problem_type == "multi_label_classification"


def test_the_model_stays_as_it_was():
    model = clip()
    state.make_uneven(model)
    before = state.snapshot(model)
    classifier = classifier_of(model)
    assert not any(p.requires_grad for name, p in classifier.named_parameters() if name.endswith("text_embeds"))
    gmar_hf.explain(classifier, make_images(), method="recommended")
    with pytest.raises(gmar_hf.ArgumentError):
        classifier_of(model, ["a cat . " * 9])
    assert state.snapshot(model) == before
    assert classifier.vision_model is model.vision_model


def test_inside_no_grad_and_inference_mode():
    model, images = clip(), make_images()
    expected = gmar_hf.explain(classifier_of(model), images, 1).attribution
    with torch.inference_mode():
        assert torch.equal(gmar_hf.explain(classifier_of(model), images, 1).attribution, expected)
        with pytest.raises(gmar_hf.ArgumentError, match="`model` must have been loaded outside"):
            classifier_of(copy.deepcopy(model))


def test_positions_are_interpolated_on_demand():
    classifier = classifier_of(clip())
    images = torch.randn(1, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(gmar_hf.ArgumentError, match="interpolate_pos_encoding=True"):
        gmar_hf.explain(classifier, images)
    assert gmar_hf.explain(classifier, images, interpolate_pos_encoding=True).attribution.shape == (1, 6, 4)


def test_survey_and_evaluation():
    classifier, processor = classifier_of(clip()), ViTImageProcessorPil(size={"height": 32, "width": 32})
    images = [{"image": photo(seed)} for seed in range(2)]
    report = gmar_hf.survey(classifier, images, image_processor=processor)
    assert report.mean["contribution"].shape == (3, 4)
    assert report.labels == LABELS
    evaluation = gmar_hf.evaluate(
        classifier, images, processor, methods=["recommended", "legrad"], metrics=["deletion"], num_steps=4
    )
    # The value of a deletion is a mean of probabilities of one of the texts.
    assert evaluation.values.shape == (2, 2, 3)
    assert ((evaluation.values > 0) & (evaluation.values < 1)).all()
    assert [row.target for row in evaluation.rows] == classifier(
        processor([item["image"] for item in images], return_tensors="pt")["pixel_values"]
    ).logits.argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ("a cat", gmar_hf.ArgumentTypeError, r"`labels` must be a list of texts; got 'a cat'. Pass \['a cat'\]"),
        (None, gmar_hf.ArgumentTypeError, "`labels` must be a list of texts; got None. Make a list of it."),
        (iter(["a cat"]), gmar_hf.ArgumentTypeError, r"got <list_iterator .*\. Make a list of it\."),
        ([], gmar_hf.ArgumentError, r"`labels` must hold at least one text; got \[\]"),
        (["a cat", " "], gmar_hf.ArgumentError, "`labels` must not be empty texts; got ' '"),
        (["a cat", 3], gmar_hf.ArgumentTypeError, "`labels` must be texts; got 3. Write them as strings"),
        (["a cat", "a dog", "a cat"], gmar_hf.ArgumentError, "`labels` must all be different; got 'a cat' twice"),
        (["a cat", "dog " * 12], gmar_hf.ArgumentError, "at most 12 tokens .* got 20"),
    ],
)
def test_labels_that_cannot_be(labels, error, message):
    for model in (clip(), siglip()):
        with pytest.raises(error, match=message):
            classifier_of(model, labels)


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        *(
            (template, gmar_hf.ArgumentError, r"must have one \{\} where each label goes; got '")
            for template in ("a photo", "{} and {}", "{label}", "{{}}", "{", "{0.x}")
        ),
        (None, gmar_hf.ArgumentTypeError, r"must be a text with \{\} in it; got None"),
    ],
)
def test_templates_that_cannot_be(template, error, message):
    with pytest.raises(error, match=f"`hypothesis_template` {message}"):
        classifier_of(clip(), hypothesis_template=template)


def test_a_processor_holds_a_tokenizer():
    processor = CLIPProcessor(ViTImageProcessorPil(), tokenizer())
    found = gmar_hf.text_classifier(clip(), processor, LABELS)
    assert torch.equal(found.head.text_embeds, classifier_of(clip()).head.text_embeds)


def test_tokenizers_and_models_that_cannot_be():
    with pytest.raises(gmar_hf.ArgumentTypeError, match=r"`tokenizer` must be the model's tokenizer .* got NoneType"):
        gmar_hf.text_classifier(clip(), None, LABELS)
    with pytest.raises(gmar_hf.ArgumentTypeError, match=r"such as CLIPModel; got ViTForImageClassification. Load it"):
        classifier_of(zoo.vit())
    align = AlignConfig(
        text_config=TEXT, vision_config={"width_coefficient": 0.1, "depth_coefficient": 0.1, "image_size": 64}
    )
    with pytest.raises(gmar_hf.UnsupportedModelError, match="AlignModel cannot be explained: of models"):
        classifier_of(zoo.build(AlignModel, align))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_dual_encoder_without_texts_is_told_what_to_do(name):
    model = DUAL_ENCODERS[name]()
    message = f"{type(model).__name__} cannot be explained without texts, .* Explain `gmar_hf.text_classifier"
    for ask in (gmar_hf.survey, gmar_hf.evaluate):
        with pytest.raises(gmar_hf.UnsupportedModelError, match=message):
            ask(model, [{"pixel_values": torch.rand(3, 32, 32)}])
    with pytest.raises(gmar_hf.UnsupportedModelError, match=message):
        gmar_hf.explain(model, make_images())
