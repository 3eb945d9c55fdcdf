"""What goes into the pipeline and what comes out: sources, batches, parameters, results, models of every kind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY, ImageClassificationPipeline
from transformers.pipelines.pt_utils import KeyDataset

import gmar_hf
from gmar_hf.explanation.methods import METHODS
from tests.helpers import zoo
from tests.helpers.explainers import LABELS, image_processor, make_explainer, name_classes, photo, serving
from tests.helpers.state import make_uneven, snapshot

TASK = "gmar-explanation"
PHOTOS = [photo(seed, size) for seed, size in enumerate([(60, 40), (32, 32), (45, 70), (40, 40), (90, 31)])]


@pytest.fixture(scope="module")
def explainer():
    return make_explainer()


@pytest.fixture
def folder(tmp_path):
    """Saves a model and its image processor, as a repository is."""

    def save(model):
        model.save_pretrained(tmp_path / "model")
        image_processor(zoo.image_size(model)).save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


def same(one, other, tolerance=1e-5):
    """Whether two results for one image are equal, up to the order of sums in a batch."""
    if [result.keys() for result in one] != [result.keys() for result in other]:
        return False
    pairs = [(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a]
    return all(equal(a, b, tolerance) for a, b in pairs)


def equal(a, b, tolerance):
    if isinstance(a, torch.Tensor):
        return torch.allclose(a, b, rtol=0, atol=tolerance * b.abs().max().item())
    if isinstance(a, Image.Image):
        difference = np.asarray(a, dtype=int) - np.asarray(b, dtype=int)
        return a.mode == b.mode and np.abs(difference).max() <= 1
    return a == pytest.approx(b, abs=tolerance)


# The task


def test_the_task_is_registered_with_the_model_that_transformers_pins():
    task = PIPELINE_REGISTRY.supported_tasks[TASK]
    assert task["impl"] is gmar_hf.GMARExplainer
    (loader,) = task["pt"]
    assert issubclass(loader, AutoModelForImageClassification)
    assert task["type"] == "image"
    assert task["default"] == PIPELINE_REGISTRY.supported_tasks["image-classification"]["default"]
    assert task["default"]["model"][0] == "google/vit-base-patch16-224"


@pytest.mark.campaign
@pytest.mark.slow
def test_importing_again_says_nothing():
    code = "import gmar_hf.pipeline, importlib; importlib.reload(gmar_hf.pipeline); importlib.reload(gmar_hf)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_only_the_image_processor_is_loaded(folder):
    path = folder(zoo.clip())
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
        Path(path, name).write_text("broken")
    explainer = pipeline(TASK, model=path)
    assert explainer.image_processor is not None
    assert explainer.tokenizer is explainer.feature_extractor is explainer.processor is None
    assert len(explainer(PHOTOS[0])) == 1


def test_a_folder_and_a_loaded_model_give_the_same(folder):
    model = name_classes(zoo.vit())
    path = folder(model)
    loaded = pipeline(TASK, model=path)(PHOTOS[0])
    assert same(loaded, make_explainer(model)(PHOTOS[0]))
    assert same(loaded, pipeline(TASK, model=path, device_map={"": "cpu"})(PHOTOS[0]))
    assert same(loaded, pipeline(TASK, model=path, device="cpu", dtype=torch.float32)(PHOTOS[0]))


def test_deit_with_teacher_loads_as_its_own_class(folder):
    explainer = pipeline(TASK, model=folder(zoo.deit_teacher()))
    assert type(explainer.model).__name__ == "DeiTForImageClassificationWithTeacher"
    assert explainer(PHOTOS[0])[0]["attribution"].shape == (3, 5)


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_every_family(name):
    model = zoo.MODELS[name]()
    (result,) = make_explainer(model, image_processor=image_processor(zoo.image_size(model)))(PHOTOS[0])
    rows, cols = (size // patch for size, patch in zip(zoo.image_size(model), zoo.patch_size(model), strict=True))
    assert result["attribution"].shape == (rows, cols)
    assert result["heatmap"].size == PHOTOS[0].size
    layers, heads = result["head_importance"].shape
    config = zoo.vision_config(model)
    assert (layers, heads) == (config.num_hidden_layers, config.num_attention_heads)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_a_peft_model():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(name_classes(zoo.vit()), peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    zoo.perturb(model, std=0.1)
    result = make_explainer_around(model)(PHOTOS[0], target="dog")
    expected = make_explainer(model.merge_and_unload())(PHOTOS[0], target="dog")
    assert same(result, expected, 1e-4)


def make_explainer_around(model):
    """Through `pipeline`, which knows PEFT models for some tasks only."""
    return pipeline(TASK, model=model, image_processor=image_processor(), device="cpu")


# Sources


class Pictures(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.fixture(scope="module")
def expected(explainer):
    return [explainer(image, top_k=2) for image in PHOTOS]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(PHOTOS))]
    for path, image in zip(paths, PHOTOS, strict=True):
        image.save(path)
    return paths


def test_a_path_and_an_image(explainer, expected, files):
    for source in (files[0], str(files[0]), PHOTOS[0]):
        assert same(explainer(source, top_k=2), expected[0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_sources_of_every_kind_keep_their_order(explainer, expected, files, batch_size):
    dicts = [{"image": image, "label": 0} for image in PHOTOS]
    sources = {
        "list": PHOTOS,
        "list of paths": [str(path) for path in files],
        "mixed list": [files[0], str(files[1]), *PHOTOS[2:]],
        "tuple": tuple(PHOTOS),
        "generator": (image for image in PHOTOS),
        "data set": Pictures(PHOTOS),
        "KeyDataset": KeyDataset(Pictures(dicts), "image"),
    }
    for kind, source in sources.items():
        found = explainer(source, batch_size=batch_size, top_k=2)
        assert isinstance(found, list) or kind in ("generator", "data set", "KeyDataset")
        found = list(found)
        assert len(found) == len(PHOTOS), kind
        assert all(map(same, found, expected)), kind


def test_a_column_of_a_hub_data_set(explainer, expected):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"image": PHOTOS}, features=datasets.Features({"image": datasets.Image()}))
    found = list(explainer(KeyDataset(data, "image"), batch_size=2, top_k=2))
    assert len(found) == len(PHOTOS)
    assert all(map(same, found, expected))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is a single core
def test_worker_processes(explainer, expected, files):
    for source in ([str(path) for path in files], Pictures(PHOTOS)):
        found = list(explainer(source, num_workers=2, batch_size=2, top_k=2))
        assert len(found) == len(PHOTOS)
        assert all(map(same, found, expected))


def test_a_url(explainer, expected, files, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with serving({"/cat.png": (200, "image/png", files[0].read_bytes())}) as address:
        assert same(explainer(f"{address}/cat.png", top_k=2, timeout=60), expected[0])
        assert all(same(found, expected[0]) for found in explainer([f"{address}/cat.png"] * 2, top_k=2))


def test_the_constructor_sets_the_batch_size(expected):
    explainer = make_explainer(batch_size=2, top_k=2)
    assert all(map(same, explainer(PHOTOS), expected))


def test_sizes_that_differ_after_the_processor(explainer):
    """A processor without a fixed size: one by one they go, in a batch they are refused in words."""
    flexible = make_explainer(
        image_processor=image_processor(do_resize=False), interpolate_pos_encoding=True, model=explainer.model
    )
    images = [photo(0, (32, 32)), photo(1, (48, 40))]
    shapes = [result[0]["attribution"].shape for result in flexible(images)]
    assert shapes == [(4, 4), (5, 6)]
    with pytest.raises(gmar_hf.ArgumentError) as caught:
        flexible(images, batch_size=2)
    assert str(caught.value) == (
        "Images of one batch must leave the image processor in one size; got 32 x 32 and 40 x 48 pixels. "
        "Pass `batch_size=1`, or give the processor a fixed size."
    )
    assert len(flexible([images[1]] * 2, batch_size=2)) == 2


# Scores


def scorers():
    multi_label = zoo.vit()
    multi_label.config.problem_type = "multi_label_classification"
    regression = zoo.build(zoo.ViTForImageClassification, zoo.ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=1))
    regression.config.problem_type = "regression"
    single = zoo.build(zoo.ViTForImageClassification, zoo.ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=1))
    return {"softmax": zoo.vit(), "multi-label": multi_label, "regression": regression, "one output": single}


@pytest.mark.parametrize("kind", ["softmax", "multi-label", "regression", "one output"])
def test_scores_are_those_of_image_classification(kind):
    model = scorers()[kind]
    classify = ImageClassificationPipeline(model=model, image_processor=image_processor(), device="cpu")
    explain = make_explainer(model)
    for function in (None, "sigmoid", "softmax", "none"):
        theirs = "none" if (kind, function) == ("regression", None) else function  # they did not always know that one
        expected = classify(PHOTOS[0], function_to_apply=theirs, top_k=9)
        found = explain(PHOTOS[0], function_to_apply=function, top_k=9)
        assert [result["label"] for result in found] == [one["label"] for one in expected]
        assert [result["score"] for result in found] == pytest.approx([one["score"] for one in expected], abs=1e-6)
    assert isinstance(found[0]["score"], float)
    assert same(explain(PHOTOS[0], function_to_apply="NONE"), explain(PHOTOS[0], function_to_apply="none"))


# Targets


def test_top_k_gives_the_best_first(explainer):
    found = explainer(PHOTOS[0], top_k=3)
    scores = [result["score"] for result in found]
    assert scores == sorted(scores, reverse=True)
    assert len({result["target"] for result in found}) == 3
    assert same(explainer(PHOTOS[0]), found[:1])
    assert len(explainer(PHOTOS[0], top_k=100)) == len(LABELS)


def test_targets_by_label_and_index_in_the_order_given(explainer):
    found = explainer(PHOTOS[0], target=["tabby cat", 0, np.int64(3), "dog"])
    assert [result["target"] for result in found] == [2, 0, 3, 1]
    assert [result["label"] for result in found] == ["tabby cat", "cat", "bird", "dog"]
    for result in found:
        assert same(explainer(PHOTOS[0], target=result["label"]), [result])
        assert same(explainer(PHOTOS[0], target=result["target"]), [result])
    assert all(same(one, found) for one in explainer(PHOTOS[:1] * 3, target=("tabby cat", 0, 3, "dog"), batch_size=2))


def test_a_repeated_label_is_reached_by_its_index():
    explainer = make_explainer(name_classes(zoo.vit(), ["crane", "dog", "crane", "bird", "car"]))
    assert explainer(PHOTOS[0], target=2)[0]["label"] == "crane"
    with pytest.raises(gmar_hf.ArgumentError, match=r"the label of classes \[0, 2\]. Pass an index."):
        explainer(PHOTOS[0], target="crane")


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("versus", [None, "cat"])
def test_maps_are_those_of_explain(explainer, method, versus):
    """`versus` explains the difference of two logits."""
    pixel_values = explainer.image_processor(PHOTOS[0], return_tensors="pt")["pixel_values"]
    settings = dict(method=method, norm="l2", residual_weight=0.5, start_layer=1, return_head_maps=True)
    target = 1 if versus is None else lambda logits: logits[:, 1] - logits[:, 0]
    out = gmar_hf.explain(explainer.model, pixel_values, target, **settings)
    (result,) = explainer(PHOTOS[0], target="dog", **settings, **({} if versus is None else {"versus": versus}))
    for field in ("attribution", "head_importance", "head_contribution", "head_maps"):
        ours, theirs = result[field], getattr(out, field)
        assert (ours is None) == (theirs is None), field
        if ours is not None:
            torch.testing.assert_close(ours, theirs[0], rtol=1e-5, atol=1e-6)
    assert (result["head_importance"] is None) == (method not in ("gmar", "rollout", "attention"))
    assert result.get("versus") == versus
    assert result["label"] == "dog"


def test_methods_of_one_forward_have_no_contributions(explainer):
    for method in ("rollout", "attention"):
        assert explainer(PHOTOS[0], method=method)[0]["head_contribution"] is None


@pytest.mark.parametrize(
    ("method", "is_told"), [("gmar", True), ("rollout", True), ("gradient-rollout", False), ("contribution", False)]
)
def test_a_map_that_cannot_tell_labels_apart_says_so(explainer, method, is_told):
    (result,) = explainer(PHOTOS[0], target="dog", versus="cat", method=method)
    assert ("nearly the same for every label" in result.get("note", "")) == is_told
    (alone,) = explainer(PHOTOS[0], target="dog", method=method)
    assert "every label" not in alone.get("note", "")


def test_versus_in_a_batch(explainer):
    found = explainer(PHOTOS[:3], batch_size=2, target=["dog", "bird"], versus="cat", method="contribution")
    for image, results in zip(PHOTOS, found, strict=False):
        assert [(result["label"], result["versus"]) for result in results] == [("dog", "cat"), ("bird", "cat")]
        assert same(explainer(image, target=["dog", "bird"], versus=0, method="contribution"), results)


def test_a_call_overrides_the_constructor(explainer):
    model = explainer.model
    named = make_explainer(model, target="dog", versus="cat", method="contribution", return_overlay=True)
    assert same(named(PHOTOS[0]), explainer(PHOTOS[0], target=1, versus=0, method="contribution", return_overlay=True))
    plain = dict(return_overlay=False, method="gmar")
    assert same(named(PHOTOS[0], target="bird", **plain), explainer(PHOTOS[0], target="bird", versus="cat"))
    assert same(named(PHOTOS[0], versus=None, **plain), explainer(PHOTOS[0], target="dog"))
    assert same(named(PHOTOS[0], versus="bird", **plain), explainer(PHOTOS[0], target="dog", versus="bird"))
    assert same(named(PHOTOS[0], top_k=2, **plain), explainer(PHOTOS[0], top_k=2))
    assert same(named(PHOTOS[0], target=None, versus=None, **plain), explainer(PHOTOS[0]))
    assert same(named(PHOTOS[0]), named(PHOTOS[0]))
    many = make_explainer(model, top_k=3)
    assert same(many(PHOTOS[0], target="cat"), explainer(PHOTOS[0], target="cat"))
    assert same(many(PHOTOS[0], top_k=None), explainer(PHOTOS[0]))
    assert len(many(PHOTOS[0])) == 3


# Results


def test_what_a_result_holds(explainer):
    (result,) = explainer(PHOTOS[0])
    assert list(result) == [
        "label", "score", "target", "predicted_label", "predicted_score", "explained_logit", "method",
        "attribution", "unit", "box", "heatmap", "head_importance", "head_contribution", "head_contribution_centred",
    ]  # fmt: skip
    assert (result["predicted_label"], result["predicted_score"]) == (result["label"], result["score"])
    (other,) = explainer(PHOTOS[0], target=(result["target"] + 1) % 3)
    assert other["label"] != other["predicted_label"] == result["label"]
    assert other["predicted_score"] == result["score"]
    assert isinstance(result["label"], str)
    assert isinstance(result["score"], float)
    assert type(result["target"]) is int
    assert result["box"] == (0, 0, 60, 40)
    assert (result["heatmap"].mode, result["heatmap"].size) == ("L", (60, 40))
    torch.testing.assert_close(result["head_importance"].sum(dim=1), torch.ones(3))


def test_no_full_size_picture_that_nobody_asked_for(explainer):
    (result,) = explainer(PHOTOS[0], return_heatmap=False)
    assert "heatmap" not in result
    assert "image" not in explainer.preprocess(PHOTOS[0])  # or a batch would hold all of its photographs
    assert explainer.preprocess(PHOTOS[0], return_overlay=True)["image"].size == (60, 40)


def test_several_methods_follow_each_other_for_each_target(explainer):
    methods = ["gmar", "removal", "recommended"]
    results = explainer(PHOTOS[:2], target=["dog", "cat"], method=methods, batch_size=2, return_explanation=True)
    for photo_results, image in zip(results, PHOTOS, strict=False):
        assert [(result["label"], result["method"]) for result in photo_results] == [
            (label, method) for label in ("dog", "cat") for method in methods
        ]
        for method in methods:
            alone = explainer(image, target=["dog", "cat"], method=method)
            together = [result for result in photo_results if result["method"] == method]
            for ours, theirs in zip(together, alone, strict=True):
                torch.testing.assert_close(ours["attribution"], theirs["attribution"], rtol=1e-5, atol=1e-6)
                assert ours["score"] == pytest.approx(theirs["score"])
                assert ("completeness_gap" in ours) == (method == "recommended")
                assert ours["explanation"].settings["method"] == method


@pytest.mark.parametrize("versus", [None, "cat"])
def test_what_attention_adds_is_the_logit_less_that_of_the_silenced_model(explainer, versus):
    how = {} if versus is None else {"versus": versus}
    (result,) = explainer(PHOTOS[0], target="dog", method="recommended", **how)
    model, pixel_values = explainer.model, explainer.preprocess(PHOTOS[0])["pixel_values"][0]
    all_heads = result["head_contribution"].isfinite().nonzero().tolist()
    with torch.no_grad():
        whole = model(pixel_values).logits[0]
        with gmar_hf.silence_heads(model, all_heads):
            without = model(pixel_values).logits[0]
    dog, cat = LABELS.index("dog"), LABELS.index("cat")
    explained, rest = (logits[dog] - (0 if versus is None else logits[cat]) for logits in (whole, without))
    assert result["explained_logit"] == pytest.approx(explained.item(), abs=1e-5)
    assert result["attention_contribution"] == pytest.approx((explained - rest).item(), abs=1e-5)
    total = result["head_contribution"].sum().item()
    assert result["completeness_gap"] == pytest.approx(total - (explained - rest).item(), abs=1e-5)


@pytest.mark.parametrize(("method", "has_note"), [("rollout", True), ("contribution", False)])
def test_a_rollout_on_two_patches_is_noted(explainer, monkeypatch, method, has_note):
    monkeypatch.setattr("gmar_hf._pipeline.results.concentration_note", lambda attribution: "Two of 64.")
    assert explainer(PHOTOS[0], method=method)[0].get("note") == ("Two of 64." if has_note else None)


def test_a_path_far_from_complete_is_noted(explainer, monkeypatch):
    monkeypatch.setattr("gmar_hf.explanation.engine.completeness_gap", lambda *given: torch.tensor([[1e3]]))
    (result,) = explainer(PHOTOS[0], method="path")
    assert "where all attention adds -1000" in result["note"]
    assert "note" not in explainer(PHOTOS[0], method="contribution")[0]


def test_images_by_the_name_that_image_classification_gives_them(explainer):
    (result,) = explainer(images=PHOTOS[0])
    assert result["score"] == explainer(PHOTOS[0])[0]["score"]


def test_an_option_may_go_with_the_constructors_method():
    explain = make_explainer(method="path")
    (result,) = explain(PHOTOS[0], num_points=3, return_explanation=True)
    assert result["explanation"].settings["num_points"] == 3
    with pytest.raises(gmar_hf.ArgumentError, match='`num_points` must come with method "path"'):
        explain(PHOTOS[0], num_points=3, method="rollout")


def test_overlay_and_head_maps_on_request(explainer):
    (result,) = explainer(PHOTOS[0], return_overlay=True, return_head_maps=True, method="rollout")
    assert (result["overlay"].mode, result["overlay"].size) == ("RGB", (60, 40))
    assert result["head_maps"].shape == (3, 3, 4, 4)
    assert result["head_contribution"].shape == (3, 3)


def test_overlays_are_drawn_as_asked_for(explainer):
    signed = dict(return_overlay=True, overlay_style="signed", method="contribution")
    (result,) = explainer(PHOTOS[0], **signed)
    map_and_place = dict(heatmap=result["attribution"], box=result["box"], style="signed")
    assert result["overlay"].tobytes() == gmar_hf.plotting.overlay(PHOTOS[0], **map_and_place).tobytes()
    (result,) = explainer(PHOTOS[0], **signed, overlay_grid=True, overlay_caption=True, target="cat", versus="dog")
    caption = f"cat: {result['score']:.2f}, not dog: {result['versus_score']:.2f}"
    assert result["predicted_label"] not in ("cat", "dog")
    caption += f" (the model says {result['predicted_label']}: {result['predicted_score']:.2f}) · contribution, logits"
    map_and_place["heatmap"] = result["attribution"]
    words = dict(caption=caption, sides=("for cat", "for dog"))
    expected = gmar_hf.plotting.overlay(PHOTOS[0], **map_and_place, grid=True, **words)
    assert result["overlay"].tobytes() == expected.tobytes()
    with pytest.raises(gmar_hf.ArgumentError, match=r"^`overlay_style` must be one of \"positive\", \"signed\"; got"):
        make_explainer(explainer.model, overlay_style="diverging")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_plain(dtype):
    model = zoo.vit().to(dtype)
    found = make_explainer(model)(PHOTOS, batch_size=2, top_k=2, return_head_maps=True)
    tensors = [value for results in found for one in results for value in one.values() if torch.is_tensor(value)]
    assert len(tensors) == len(PHOTOS) * 2 * 5
    for tensor in tensors:
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4  # no piece of a batch's memory
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


def test_half_precision_says_the_same(explainer):
    expected = explainer(PHOTOS[0], target=1)[0]["attribution"]
    for dtype in (torch.bfloat16, torch.float16):
        found = make_explainer(zoo.vit().to(dtype))(PHOTOS[0], target=1)[0]["attribution"]
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * expected.max().item())


def test_outer_no_grad_and_inference_mode(explainer):
    expected = explainer(PHOTOS[0])
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            found = explainer(PHOTOS[0])
        assert same(found, expected)


def test_position_encodings_are_interpolated_on_request(explainer):
    larger = make_explainer(explainer.model, image_processor=image_processor((48, 64)))
    (result,) = larger(PHOTOS[0], interpolate_pos_encoding=True)
    assert result["attribution"].shape == (6, 8)
    assert result["box"] == (0, 0, 60, 40)


# The model


def state(model):
    found = snapshot(model)
    del found["random"]  # torch's data loaders draw a number
    return found


@pytest.mark.parametrize("name", ["vit", "siglip"])
def test_the_model_stays_as_it_was(name):
    model = zoo.MODELS[name]()
    make_uneven(model)
    explainer = make_explainer(model)
    before = state(model)
    explainer(PHOTOS, batch_size=2, top_k=2, return_head_maps=True)
    assert state(model) == before
    with pytest.raises(gmar_hf.ArgumentError):
        explainer(PHOTOS[0], start_layer=7)
    assert state(model) == before
    started = explainer(image for image in PHOTOS)
    next(iter(started))  # a stream that is never finished
    assert state(model) == before


@pytest.mark.parametrize("name", ["vit", "deit_teacher", "beit_relative"])
def test_saved_pipelines_are_plain_repositories(name, tmp_path):
    model = name_classes(zoo.MODELS[name]())
    explainer = make_explainer(model)
    explainer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "custom_pipelines" not in config
    assert "auto_map" not in config
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, trust_remote_code=False)
    assert type(loaded) is type(model)
    processor = AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=False)
    inputs = processor(PHOTOS[0], return_tensors="pt")
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
    for task in ("image-classification", TASK):
        assert pipeline(task, model=str(tmp_path))(PHOTOS[0])[0]["label"] in LABELS


def test_classes_that_explain_themselves_are_saved_as_plain_models(tmp_path):
    config = DeiTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=len(LABELS))
    model = name_classes(zoo.build(gmar_hf.GMARDeiTForImageClassificationWithTeacher, config))
    explainer = make_explainer(model)
    explainer.save_pretrained(tmp_path)
    loaded = pipeline(TASK, model=str(tmp_path))
    assert type(loaded.model) is DeiTForImageClassificationWithTeacher
    assert same(loaded(PHOTOS[0]), explainer(PHOTOS[0]))


def test_streams_are_lazy(explainer):
    read = []

    def images():
        for number, image in enumerate(PHOTOS):
            read.append(number)
            yield image

    stream = explainer(images())
    if isinstance(stream, list):
        pytest.skip("older versions of transformers read a generator to its end")
    next(iter(stream))
    assert len(read) < len(PHOTOS)
