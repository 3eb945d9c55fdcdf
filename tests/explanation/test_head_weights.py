"""Head weights from a report in place of the gradient's: in `explain` and in the pipeline."""

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

import gmar_hf
from gmar_hf import ArgumentError, ArgumentTypeError, ArtifactError
from tests.helpers import oracle, zoo
from tests.helpers.explainers import make_explainer, name_classes, photo
from tests.helpers.reports import report_of
from tests.helpers.state import make_uneven, snapshot
from tests.helpers.zoo import relative_error


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("name", ["vit", "vit_landscape", "deit_teacher", "beit_relative", "siglip"])
def test_the_map_is_the_rollout_by_the_reports_weights(name, norm):
    model = zoo.MODELS[name]()
    report = report_of(model)
    images = zoo.pixel_values(model, batch=2)
    classes = [1, 3]  # class 3 was seen once: it gets the weights of all images
    out = gmar_hf.explain(model, images, classes, head_weights=report, norm=norm, residual_weight=0.5, start_layer=1)
    weights = [report.per_class(1).mean[f"{norm}_weight"].numpy(), report.mean[f"{norm}_weight"].numpy()]
    for image, reference in enumerate(oracle.explicit_reference(model, images, classes)):
        theirs = oracle.weighted_rollout_map(reference, weights[image], 0.5, 1)
        assert relative_error(out.attribution[image], theirs) < 1e-5
        assert relative_error(out.head_importance[image], weights[image]) < 1e-6
    assert out.head_score is None
    assert out.head_contribution is None
    (dataset,) = report.settings["datasets"]
    assert out.settings["head_weights"] == {
        "model": "somebody/tiny-vit",
        "datasets": [[dataset["id"], dataset["split"], dataset["fingerprint"]]],
        "num_images": 60,
        "all_images_for": [3],
    }


def test_several_targets_have_the_weights_of_their_classes():
    model = zoo.vit()
    report = report_of(model)
    images = zoo.pixel_values(model, batch=2)
    out = gmar_hf.explain(model, images, [[0, 1], [2, 0]], head_weights=report)
    for row, column, index in ((0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 0)):
        alone = gmar_hf.explain(model, images[row : row + 1], index, head_weights=report)
        assert torch.allclose(out.attribution[row, column], alone.attribution[0], atol=1e-6)


def test_a_callable_has_no_class_and_gets_the_weights_of_all_images():
    model = zoo.vit()
    report = report_of(model)
    out = gmar_hf.explain(model, zoo.pixel_values(model, batch=2), lambda y: y[:, 0] - y[:, 1], head_weights=report)
    assert torch.allclose(out.head_importance[1].double(), report.mean["l1_weight"], atol=1e-6)
    assert out.settings["head_weights"]["all_images_for"] is None


def test_nothing_is_differentiated_inside_the_encoder(monkeypatch):
    model = zoo.vit()
    report = report_of(model)
    differentiated = []
    grad = torch.autograd.grad

    def watching(outputs, inputs, *args, **kwargs):
        differentiated.append(inputs)
        return grad(outputs, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watching)
    out = gmar_hf.explain(model, zoo.pixel_values(model, batch=1), 0, head_weights=report)
    assert out.readout[0, 0] == 1
    assert len(differentiated) == 3  # of tokens by patches, the score by the logits, these by the head's input
    gmar_hf.explain(model, zoo.pixel_values(model, batch=1), 0)
    assert len(differentiated) == 7  # and once more through the encoder


def test_head_maps_can_be_had_beside_them():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=1)
    out = gmar_hf.explain(model, images, 0, head_weights=report_of(model), return_head_maps=True)
    plain = gmar_hf.explain(model, images, 0, return_head_maps=True)
    assert torch.allclose(out.head_maps, plain.head_maps, atol=1e-6)
    assert not torch.allclose(out.head_importance, plain.head_importance, atol=1e-3)


def test_a_folder_will_do_and_the_model_may_be_in_half_precision(tmp_path):
    model = zoo.vit()
    report = report_of(model)
    report.save_pretrained(tmp_path / "report")
    images = zoo.pixel_values(model, batch=1)
    plain = gmar_hf.explain(model, images, 0, head_weights=report)
    for given in (tmp_path / "report", str(tmp_path / "report")):
        assert torch.equal(gmar_hf.explain(model, images, 0, head_weights=given).attribution, plain.attribution)
    for dtype in (torch.bfloat16, torch.float16):
        half = gmar_hf.explain(zoo.vit().to(dtype), images.to(dtype), 0, head_weights=report)
        assert relative_error(half.attribution, plain.attribution) < 0.05


def test_the_model_is_as_it_was():
    model = zoo.vit()
    report = report_of(model)
    make_uneven(model)
    before = snapshot(model)
    gmar_hf.explain(model, zoo.pixel_values(model, batch=1), 0, head_weights=report)
    with pytest.raises(ArgumentError):
        gmar_hf.explain(model, zoo.pixel_values(model, batch=1), 9, head_weights=report)
    assert snapshot(model) == before


class TestRefused:
    def explain(self, model, report, **kwargs):
        return gmar_hf.explain(model, zoo.pixel_values(model, batch=1), 0, head_weights=report, **kwargs)

    def test_another_architecture(self):
        with pytest.raises(ArgumentError, match=r"must be of a DeiTForImageClassification; got those of ViTForImage"):
            self.explain(zoo.deit(), report_of(zoo.vit()))

    def test_other_weights(self):
        retrained = zoo.build(ViTForImageClassification, zoo.vit().config, seed=1)
        with pytest.raises(ArgumentError, match=r"'somebody/tiny-vit', whose weights are others. Survey this model"):
            self.explain(retrained, report_of(zoo.vit()))

    def test_the_same_weights_cut_into_other_heads(self):
        settings = {**zoo.NARROW, **zoo.SQUARE, "num_labels": zoo.NUM_LABELS}
        by_three = ViTForImageClassification(ViTConfig(**settings)).eval()
        by_six = ViTForImageClassification(ViTConfig(**{**settings, "num_attention_heads": 6})).eval()
        by_six.load_state_dict(by_three.state_dict())
        with pytest.raises(ArgumentError, match=r"3 layers of 6 heads; got those of .* 3 of 3"):
            self.explain(by_six, report_of(by_three))

    @pytest.mark.parametrize("method", ["rollout", "attention", "contribution", "gradient-rollout"])
    def test_methods_that_do_not_weigh_by_gradients(self, method):
        with pytest.raises(ArgumentError, match='must come with a method that weighs heads by their gradient, "gmar"'):
            self.explain(zoo.vit(), report_of(zoo.vit()), method=method)

    @pytest.mark.parametrize("given", [3, {"l1": 1}, [[0.5, 0.5]]])
    def test_what_is_no_report(self, given):
        with pytest.raises(ArgumentTypeError, match="must be a HeadImportanceReport, its repo id or its folder; got"):
            self.explain(zoo.vit(), given)

    def test_a_folder_without_a_report(self, tmp_path):
        with pytest.raises(ArtifactError):
            self.explain(zoo.vit(), tmp_path)


class TestPipeline:
    def test_a_tensor_is_of_one_batch_and_refused(self):
        with pytest.raises(
            ArgumentTypeError, match="must be a HeadImportanceReport, its repo id or its folder; got Tensor"
        ):
            make_explainer(head_weights=torch.ones(3, 3))

    def test_says_whose_weights_they_are(self):
        model = name_classes(zoo.vit())
        report = report_of(model)
        explain = make_explainer(model, head_weights=report)
        results = explain(photo(), target=[1, 3])
        assert [result["head_weights_from"] for result in results] == ["class", "all images"]
        assert torch.allclose(results[0]["head_importance"].double(), report.per_class(1).mean["l1_weight"], atol=1e-6)
        assert results[0]["head_contribution"] is None
        batch = explain([photo(1), photo(2), photo(3)], target=[3, 1], batch_size=2)
        assert [[one["head_weights_from"] for one in image] for image in batch] == [["all images", "class"]] * 3

    def test_a_call_can_take_them_and_leave_them(self, tmp_path):
        explain = make_explainer(name_classes(zoo.vit()))
        report_of(explain.model).save_pretrained(tmp_path / "report")
        assert "head_weights_from" not in explain(photo())[0]
        assert explain(photo(), head_weights=str(tmp_path / "report"), target=1)[0]["head_weights_from"] == "class"

    def test_a_report_of_another_model_is_refused(self):
        explain = make_explainer(name_classes(zoo.vit()), head_weights=report_of(zoo.deit()))
        with pytest.raises(ArgumentError, match="must be of a ViTForImageClassification"):
            explain(photo())
