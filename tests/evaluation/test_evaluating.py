"""`gmar_hf.evaluate`: its figures against the metrics one by one, stops and resumes, processes, and bad input."""

import copy
import csv
import functools
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gmar_hf
from gmar_hf import ArgumentError, demo, metrics
from gmar_hf.evaluation import MAP_METHODS, Evaluation, MapMethod, evaluate, evaluation_run
from gmar_hf.evaluation.evaluation_checkpoint import Measured
from gmar_hf.metrics.registry import METRICS
from tests.helpers import zoo
from tests.helpers.state import snapshot

SCENES = demo.scenes(5, seed=40)
OTHER_MASKS = [{**scene, "masks": {name: ~mask for name, mask in scene["masks"].items()}} for scene in SCENES]
CHEAP = ["contribution", "rollout", "random"]


@pytest.fixture(scope="module")
def vit():
    return demo.load("vit")


def inputs(image_processor, scenes=SCENES):
    return image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]


def ones(model, pixel_values, target):
    return torch.ones(len(pixel_values), 8, 8)


@pytest.mark.slow
@pytest.mark.campaign
def test_figures_are_those_of_the_metrics_one_by_one(vit):
    model, image_processor = vit
    scenes = SCENES[:3]
    names = [
        "insertion", "deletion", "insertion_minus_deletion", "positive_perturbation", "negative_perturbation", "saco",
        "average_drop", "average_increase", "average_gain", "sparseness", "class_sensitivity", "pointing_game",
        "energy_pointing_game", "energy_on_other", "pixel_average_precision", "iou",
    ]  # fmt: skip
    found = evaluate(
        model, scenes, image_processor, methods=["contribution", "rollout"], metrics=names, target="label",
        baselines=["zero", "other"], num_steps=4, batch_size=3,
    )  # fmt: skip
    pixels = inputs(image_processor, scenes)
    rows = [(place, label) for place, scene in enumerate(scenes) for label in scene["labels"]]
    assert [(row.index, row.target) for row in found.rows] == rows
    places = [place for place, _ in rows]
    target = torch.tensor([label for _, label in rows])
    other = torch.tensor([label for scene in scenes for label in reversed(scene["labels"])])
    masks, other_masks = (
        torch.from_numpy(
            np.stack([scenes[place]["masks"][int(one)] for place, one in zip(places, which, strict=True)])
        )
        for which in (target, other)
    )
    score = metrics.score_function(model, target, "sigmoid")
    shown = pixels[places]
    for method in ("contribution", "rollout"):
        maps, other_maps = (
            gmar_hf.explain(model, shown, which, method=method).attribution for which in (target, other)
        )
        hide = {"_zero": torch.zeros_like(shown), "_other": pixels.roll(1, 0)[places]}
        expected = {
            "average_drop": metrics.average_drop(score, shown, maps),
            "average_increase": metrics.average_increase(score, shown, maps),
            "average_gain": metrics.average_gain(score, shown, maps),
            "sparseness": metrics.sparseness(maps),
            "class_sensitivity": metrics.class_sensitivity(maps, other_maps).correlation,
            "pointing_game": metrics.pointing_game(maps, masks),
            "energy_pointing_game": metrics.energy_pointing_game(maps, masks),
            "energy_on_other": metrics.energy_pointing_game(maps, other_masks),
            "pixel_average_precision": metrics.pixel_average_precision(maps, masks),
            "iou": metrics.iou(maps, masks),
        }

        def predict(rows):
            with torch.no_grad():
                return model(pixel_values=rows).logits.argmax(-1)

        for suffix, filling in hide.items():
            key = "" if suffix == "_zero" else suffix
            inserted = metrics.insertion(score, shown, maps, num_steps=4, baseline=filling)
            deleted = metrics.deletion(score, shown, maps, num_steps=4, baseline=filling)
            expected |= {
                f"insertion{key}": inserted.auc,
                f"deletion{key}": deleted.auc,
                f"insertion_minus_deletion{key}": inserted.auc - deleted.auc,
                f"positive_perturbation{key}": metrics.positive_perturbation(
                    predict, shown, maps, baseline=filling
                ).auc,
                f"negative_perturbation{key}": metrics.negative_perturbation(
                    predict, shown, maps, baseline=filling
                ).auc,
                f"saco{key}": metrics.saco(score, shown, maps, baseline=filling),
            }
            number = ["contribution", "rollout"].index(method)
            assert found.curves[f"insertion{key}"][number] == pytest.approx(inserted.scores.mean(0), abs=1e-5)
            assert found.curves[f"deletion{key}"][number] == pytest.approx(deleted.scores.mean(0), abs=1e-5)
        assert {metric.key for metric in found.metrics} == set(expected)
        for key, values in expected.items():
            assert found.of(method, key) == pytest.approx(values.numpy(), abs=2e-5, nan_ok=True), key
    assert found.curves["shares"].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_rows_say_how_sure_and_how_right_the_model_is(vit):
    model, image_processor = vit
    with torch.no_grad():
        logits = model(pixel_values=inputs(image_processor)).logits
    found = evaluate(model, SCENES, image_processor, methods=["random"], metrics=["sparseness"], target="label")
    firsts = [
        set(row.argsort(descending=True)[:2].tolist()) == set(scene["labels"])
        for row, scene in zip(logits, SCENES, strict=True)
    ]
    assert [row.labels_first for row in found.rows] == [first for first in firsts for _ in range(2)]
    assert [row.score for row in found.rows] == pytest.approx(
        [logits[row.index, row.target].sigmoid().item() for row in found.rows], abs=1e-6
    )
    predicted = evaluate(model, SCENES, image_processor, methods=["random"], metrics=["sparseness"])
    assert [row.target for row in predicted.rows] == logits.argmax(-1).tolist()
    assert [row.label for row in predicted.rows] == [model.config.id2label[row.target] for row in predicted.rows]


def test_the_other_class_is_the_best_of_the_rest(vit):
    """Without labels, it is the runner-up."""
    model, image_processor = vit
    asked = []

    def noting(model, pixel_values, target):
        asked.append(target.tolist())
        return torch.rand(len(pixel_values), 8, 8, generator=torch.Generator().manual_seed(0))

    images = [{"image": scene["image"]} for scene in SCENES[:2]]
    evaluate(model, images, image_processor, methods=[MapMethod("noting", noting)], metrics=["class_sensitivity"])
    with torch.no_grad():
        ranking = model(pixel_values=inputs(image_processor, SCENES[:2])).logits.argsort(-1, descending=True)
    assert asked == [[*ranking[:, 0].tolist(), *ranking[:, 1].tolist()]]


def test_tokens_are_removed_and_pixels_imputed(vit):
    model, image_processor = vit
    names = ["insertion", "insertion_minus_deletion_logit", "saco"]
    settings = dict(methods=["edges"], metrics=names, num_steps=2, baselines=["zero", "removed", "road"])
    found = evaluate(model, SCENES[:2], image_processor, **settings)
    pixels = inputs(image_processor, SCENES[:2])
    maps = MAP_METHODS["edges"].draw(model, pixels, None)
    score = metrics.score_function(model, [row.target for row in found.rows], "sigmoid")
    removal = metrics.TokenRemoval(model)
    inserted = metrics.insertion(score, pixels, maps, num_steps=2, baseline=removal)
    assert found.of("edges", "insertion_removed") == pytest.approx(inserted.auc.numpy(), abs=1e-5)
    assert found.curves["insertion_removed"][0] == pytest.approx(inserted.scores.mean(0).numpy(), abs=1e-5)
    imputed = metrics.insertion(score, pixels, maps, num_steps=2, baseline="road").auc
    assert found.of("edges", "insertion_road") == pytest.approx(imputed.numpy(), abs=1e-5)
    expected = metrics.saco(score, pixels, maps, baseline=removal)
    assert found.of("edges", "saco_removed") == pytest.approx(expected.numpy(), abs=1e-5)
    logit = found.of("edges", "insertion_minus_deletion_logit_removed")
    assert np.isfinite(logit).all()
    assert (logit != found.of("edges", "insertion_minus_deletion_logit")).all()


def test_a_picture_alone_has_no_other_to_be_filled_with(vit):
    model, image_processor = vit
    names = ["insertion_minus_deletion"]
    found = evaluate(model, SCENES[:3], image_processor, methods=["random"], metrics=names, num_steps=2, batch_size=2)
    figures = found.of("random", "insertion_minus_deletion_other")
    assert np.isfinite(figures[:2]).all()
    assert np.isnan(figures[2])
    assert np.isfinite(found.of("random", "insertion_minus_deletion")).all()
    assert found.summary()["random"]["insertion_minus_deletion_other"]["num_rows"] == 2


def test_where_no_mask_is_there_is_no_figure(vit):
    model, image_processor = vit
    scenes = [SCENES[0], {**SCENES[1], "masks": None}]
    found = evaluate(model, scenes, image_processor, methods=["random"], metrics=["pointing_game", "iou"])
    first = SCENES[0]["masks"].get(found.rows[0].target)
    assert np.isnan(found.values[1]).all()
    assert np.isfinite(found.values[0]).all() == (first is not None)
    with pytest.raises(ArgumentError, match=r"`metrics` must not name iou for data without masks.*give masks"):
        evaluate(model, [{"image": SCENES[0]["image"]}], image_processor, metrics=["iou"])


def test_masks_that_name_no_class_say_nothing_of_another(vit):
    model, image_processor = vit
    single = [{"image": scene["image"], "mask": next(iter(scene["masks"].values()))} for scene in SCENES[:2]]
    found = evaluate(model, single, image_processor, methods=["random"], num_steps=2)
    functions = {metric.function for metric in found.metrics}
    assert "pointing_game" in functions
    assert "energy_on_other" not in functions
    with pytest.raises(ArgumentError, match="`metrics` must not name energy_on_other for data without masks by class"):
        evaluate(model, single, image_processor, metrics=["energy_on_other", "iou"])


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on(vit, tmp_path):
    model, image_processor = vit
    calls = []

    def stopping(model, pixel_values, target):
        calls.append(len(pixel_values))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return gmar_hf.explain(model, pixel_values, target, method="contribution").attribution

    settings = dict(
        metrics=["insertion_minus_deletion", "sparseness"], num_steps=2, batch_size=2, output_dir=tmp_path / "out"
    )
    method = MapMethod("stopping", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, SCENES, image_processor, methods=[method, "rollout"], **settings)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["checkpoints"]
    found = evaluate(model, SCENES, image_processor, methods=[method, "rollout"], **settings)
    assert calls[:4] == [2, 2, 2, 1]  # the first batch is not drawn again
    whole = evaluate(
        model, SCENES, image_processor, methods=["contribution", "rollout"], **{**settings, "output_dir": None}
    )
    assert np.array_equal(found.values, whole.values, equal_nan=True)
    assert {name: curve.tolist() for name, curve in found.curves.items()} == {
        name: curve.tolist() for name, curve in whole.curves.items()
    }
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "images.csv", "index.html", "results.csv", "results.json", "rows.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("is_asked", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["Ctrl-C", "a kill"])
def test_a_batch_goes_on_at_the_map_where_it_was_stopped(vit, tmp_path, monkeypatch, capsys, is_asked):
    """Asked to stop, it saves the map in hand; killed, it has what was saved in time before."""
    model, image_processor = vit
    monkeypatch.setattr(evaluation_run, "_SAVE_EVERY", 1e9 if is_asked else 0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests' shell has it ignored
    drawn, is_stopping = [], True

    def method(name):
        def draw(model, pixel_values, target):
            drawn.append(name)
            if is_stopping and drawn == ["first", "second"]:
                if not is_asked:
                    raise RuntimeError("killed")
                signal.raise_signal(signal.SIGINT)
            return gmar_hf.explain(model, pixel_values, target, method="contribution").attribution

        return MapMethod(name, draw)

    methods = [method(name) for name in ("first", "second", "third")]
    settings = dict(methods=methods, metrics=["deletion", "sparseness"], num_steps=2, batch_size=3, target="label")
    with pytest.raises(RuntimeError if not is_asked else KeyboardInterrupt):
        evaluate(model, SCENES, image_processor, output_dir=tmp_path, **settings)
    signal.signal(signal.SIGINT, before)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert len(Measured.load(checkpoint).seconds) == (2 if is_asked else 1)

    is_stopping = False
    drawn.clear()
    found = evaluate(model, SCENES, image_processor, output_dir=tmp_path, **settings)
    rest = ["third"] if is_asked else ["second", "third"]
    told = f"Of the next 3 images {3 - len(rest)} of 3 maps are measured already.\n"
    assert told in capsys.readouterr().err
    assert drawn[: len(rest) + 3] == [*rest, "first", "second", "third"]
    whole = evaluate(model, SCENES, image_processor, **settings)
    assert found.rows == whole.rows
    assert np.array_equal(found.values, whole.values)
    assert np.array_equal(found.curves["deletion"], whole.curves["deletion"])
    assert all(method["milliseconds"] > 0 for method in found.methods)


def test_how_far_a_batch_is_shows(vit, capsys, monkeypatch):
    model, image_processor = vit
    monkeypatch.setattr(gmar_hf.runs.progress, "_EVERY", 0)
    evaluate(model, SCENES[:2], image_processor, methods=CHEAP, metrics=["sparseness"])
    told = capsys.readouterr().err
    assert [told.count(f"0 of 2 images are done; map {number} of 3 of the batch in hand") for number in (1, 2, 3)] == [
        1,
        1,
        1,
    ]


def test_another_evaluation_is_not_gone_on_with(vit, tmp_path):
    model, image_processor = vit

    def stopping(model, pixel_values, target):
        if len(pixel_values) == 1:
            raise KeyboardInterrupt
        return torch.ones(len(pixel_values), 8, 8)

    method = MapMethod("stopping", stopping)
    settings = dict(methods=[method], metrics=["sparseness"], batch_size=4, output_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, SCENES, image_processor, **settings)
    for changed, words in (
        ({"metrics": ["iou"]}, r"metrics was \['sparseness'\] and is now \['iou'\]"),
        ({"target": "label"}, "target was 'predicted' and is now 'label'"),
        ({"num_steps": 3}, "steps was 16 and is now 3"),
        ({"methods": ["random"]}, r"methods was \['stopping \(tests.*stopping\)'\] and is now \['random'\]"),
        ({"batch_size": 5}, "batch size was 4 and is now 5"),
        ({"use_labels": False}, "reading of labels was 'by name' and is now 'not at all'"),
        ({"label_map": {"0": 1}}, "reading of labels was 'by name' and is now 'by the label map [0-9a-f]{8}'"),
        ({"dataset": OTHER_MASKS}, "the masks were others"),
    ):
        with pytest.raises(ArgumentError, match=rf"the checkpoint of another evaluation: .*{words}.*`--no-resume`"):
            evaluate(model, image_processor=image_processor, **{"dataset": SCENES, **settings, **changed})
    found = evaluate(
        model, SCENES, image_processor, **{**settings, "methods": ["random"], "resume": False}
    )  # deletes what is there
    assert len(found.rows) == 5
    with pytest.raises(ArgumentError, match=r"must not hold finished results.*`force=True`"):
        evaluate(model, SCENES, image_processor, **{**settings, "methods": ["random"]})
    again = evaluate(model, SCENES, image_processor, **{**settings, "methods": ["edges"], "force": True})
    assert Evaluation.load(tmp_path / "rows.safetensors").values.tolist() == again.values.tolist()


def test_files_say_what_was_found(vit, tmp_path):
    model, image_processor = vit
    scenes = [{"image": Image.new("RGB", (90, 60), "#805020"), "label": 1}, SCENES[0]]
    found = evaluate(
        model, scenes, image_processor, methods=CHEAP, num_steps=2, metrics=["insertion_minus_deletion", "sparseness"],
        output_dir=tmp_path,
    )  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["num_images"] == 2
    assert list(results["methods"]) == CHEAP
    summary = found.summary()
    for name in CHEAP:
        for metric in found.metrics:
            for figure in ("mean", "low", "high"):
                assert results["methods"][name][metric.key][figure] == summary[name][metric.key][figure]
    with (tmp_path / "images.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == CHEAP * 2
    assert float(rows[1]["sparseness"]) == pytest.approx(found.of("rollout", "sparseness")[0])
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") > 2 * len(CHEAP)
    loaded = Evaluation.load(tmp_path / "rows.safetensors")
    assert loaded.values.tolist() == found.values.tolist()


def test_the_model_is_as_it_was(vit, tmp_path):
    model, image_processor = vit
    model.train()
    try:
        before = snapshot(model)
        evaluate(
            model, SCENES[:2], image_processor, num_steps=2, metrics=["insertion_minus_deletion"],
            methods=["contribution", "masked-contribution", "path", "gmar", "legrad", "attention"],
        )  # fmt: skip
        assert snapshot(model) == before
    finally:
        model.eval()


@pytest.mark.campaign
@pytest.mark.slow
def test_two_processes_find_the_same(vit, tmp_path):
    model, image_processor = vit
    command = [
        "-m", "gmar_hf", "evaluate", "--demo", "vit", "--limit", "7", "--methods", "rollout,random", "--metrics",
        "insertion_minus_deletion,pointing_game", "--num-steps", "2", "--batch-size", "2", "--target", "label",
    ]  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*launcher, *command, "--out", tmp_path / "two"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    two = Evaluation.load(tmp_path / "two" / "rows.safetensors")
    one = evaluate(
        model, demo.scenes(7), image_processor, methods=["rollout", "random"],
        metrics=["insertion_minus_deletion", "pointing_game"], num_steps=2, batch_size=2, target="label",
    )  # fmt: skip
    assert two.settings["num_processes"] == 2
    assert [(row.image, row.target) for row in two.rows] == [(row.image, row.target) for row in one.rows]
    assert two.values == pytest.approx(one.values, abs=1e-5, nan_ok=True)


@pytest.mark.campaign
def test_a_killed_evaluation_goes_on_with_more_processes(vit, tmp_path):
    """`kill -9`, then two processes."""
    model, image_processor = vit
    arguments = [
        "-m", "gmar_hf", "evaluate", "--demo", "vit", "--limit", "12", "--methods", "rollout,random", "--metrics",
        "insertion_minus_deletion,pointing_game", "--num-steps", "8", "--batch-size", "1", "--out", tmp_path / "out",
    ]  # fmt: skip
    checkpoints = tmp_path / "out" / "checkpoints"
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while len(list(checkpoints.glob("batch-*.safetensors"))) < 2:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert 2 <= len(list(checkpoints.glob("batch-*.safetensors"))) < 12  # it was killed before its end
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Going on: \d+ of 12 images are done", done.stdout + done.stderr)
    found = Evaluation.load(tmp_path / "out")
    whole = evaluate(
        model, demo.scenes(12), image_processor, methods=["rollout", "random"],
        metrics=["insertion_minus_deletion", "pointing_game"], num_steps=8, batch_size=1,
    )  # fmt: skip
    assert [(row.image, row.target) for row in found.rows] == [(row.image, row.target) for row in whole.rows]
    assert found.values == pytest.approx(whole.values, abs=1e-5, nan_ok=True)
    assert not checkpoints.exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"methods": ["gradcam"]}, r"`methods` must be .*grad-cam.*; got 'gradcam'"),
        ({"methods": []}, "`methods` must"),
        ({"methods": ["random", "random"]}, "twice"),
        (
            {"metrics": ["insertion_auc"]},
            "`metrics` must be one of \"insertion\", .*; got 'insertion_auc'. Did you mean 'insertion'",
        ),
        (
            {"metrics": ["head_ablation"]},
            "got 'head_ablation', which is none. Call `gmar_hf.metrics.head_ablation` by",
        ),
        ({"metrics": "insertion"}, "`metrics` must be a list of names; got 'insertion'"),
        (
            {"baselines": ["gray"]},
            '`baselines` must be one of "blur", "zero", "other", "mean", "black", "road", "removed"; got \'gray\'',
        ),
        ({"baselines": ["zero", "zero"]}, "`baselines` must name each one once; got 'zero' twice"),
        ({"target": "best"}, '`target` must be one of "predicted", "label"'),
        ({"batch_size": 0}, "`batch_size` must be a whole number of 1 or more; got 0"),
        ({"num_steps": 0}, "`num_steps` must be a whole number of 1 or more; got 0"),
        ({"blur_sigma": -1}, "`blur_sigma` must be a number of pixels above 0; got -1"),
        ({"function_to_apply": "none"}, '`function_to_apply` must be one of "sigmoid", "softmax"'),
    ],
)
def test_bad_arguments_are_refused(vit, changed, words):
    model, image_processor = vit
    with pytest.raises(ArgumentError, match=words):
        evaluate(model, SCENES[:2], image_processor, **{"methods": ["random"], **changed})


@pytest.mark.parametrize(
    ("maps", "got"),
    [
        (torch.ones(2, 8), r"shape \(2, 8\)"),
        (torch.full((2, 8, 8), torch.nan), "NaN or infinity"),
        ([1, 1], "list"),
    ],
)
def test_a_method_that_gives_no_maps_is_named(vit, maps, got):
    model, image_processor = vit
    method = MapMethod("mine", lambda model, pixel_values, target: maps[: len(pixel_values)])
    with pytest.raises(ArgumentError, match=rf'`methods` must give finite maps .*"mine" gave {got}'):
        evaluate(model, SCENES[:2], image_processor, methods=[method], metrics=["sparseness"])


def test_milliseconds_are_for_one_class_of_one_image(vit, monkeypatch):
    """By a clock that is a second on whenever it is looked at."""
    model, image_processor = vit
    seconds = itertools.count()
    monkeypatch.setattr("gmar_hf.evaluation.batch.time.perf_counter", lambda: float(next(seconds)))
    settings = dict(methods=["edges", "random"], batch_size=4)
    found = evaluate(model, SCENES[:4], image_processor, metrics=["sparseness"], **settings)
    assert [method["milliseconds"] for method in found.methods] == [250.0, 250.0]
    found = evaluate(model, SCENES[:4], image_processor, metrics=["class_sensitivity"], **settings)
    assert [method["milliseconds"] for method in found.methods] == [125.0, 125.0]  # two classes of each image


def test_black_is_the_processors(vit):
    model, image_processor = vit
    names = ["positive_perturbation", "insertion"]
    settings = dict(methods=["edges"], metrics=names, num_steps=2, baselines=["black", "mean"])
    found = evaluate(model, SCENES, image_processor, **settings)
    pixels = inputs(image_processor)
    black = image_processor([Image.new("RGB", SCENES[0]["image"].size)], return_tensors="pt")["pixel_values"]
    maps = MAP_METHODS["edges"].draw(model, pixels, torch.zeros(5, dtype=torch.long))

    def predict(rows):
        return model(pixel_values=rows).logits.argmax(-1)

    wanted = metrics.positive_perturbation(predict, pixels, maps, baseline=black).auc
    assert np.allclose(found.of("edges", "positive_perturbation"), wanted)
    mean = metrics.positive_perturbation(predict, pixels, maps, baseline="mean").auc
    assert np.allclose(found.of("edges", "positive_perturbation_mean"), mean)
    tensors = [{"pixel_values": one} for one in pixels]
    with pytest.raises(ArgumentError, match='`baselines` must not name "black" without an image processor'):
        evaluate(model, tensors, **settings)


def test_pixels_beyond_the_last_whole_patch(tmp_path):
    """As of SigLIP so400m, whose 384 pixels are no multiple of 14."""
    model = zoo.MODELS["dinov2_registers"]()
    model.config.id2label = {number: f"class {number}" for number in range(model.config.num_labels)}
    height, width = zoo.patch_size(model)
    whole = zoo.pixel_values(model, batch=3)
    pixels = torch.nn.functional.pad(whole, (0, width - 1, 0, 1), value=0.3)
    masks = np.zeros(pixels.shape[-2:], dtype=bool)
    masks[: 2 * height] = True
    items = [{"pixel_values": one, "mask": masks} for one in pixels]
    names = [name for name, entry in METRICS.items() if entry.needs not in ("class_masks", "cell")]
    found = evaluate(model, items, methods=["contribution", "random"], metrics=names, num_steps=4)
    assert np.isfinite(found.values).all()
    target = torch.tensor([row.target for row in found.rows])
    maps = gmar_hf.explain(model, pixels, target, method="contribution").attribution
    score = metrics.score_function(model, target, "softmax")
    blurred = metrics.baseline_pixels(pixels, "blur", blur_sigma=float(height))
    curve = metrics.insertion(score, pixels, maps, num_steps=4, baseline=blurred, patch_size=(height, width))
    assert np.allclose(found.of("contribution", "insertion"), curve.auc)
    cut = torch.from_numpy(masks)[: whole.shape[2], : whole.shape[3]].expand(3, -1, -1)
    assert np.allclose(found.of("contribution", "iou"), metrics.iou(maps, cut))


@pytest.mark.parametrize(("rows", "cols"), [(64, 64), (4, 4), (7, 7), (8, 16)])
def test_maps_of_another_resolution_are_refused(vit, rows, cols):
    model, image_processor = vit
    method = MapMethod("mine", lambda model, pixel_values, target: torch.rand(len(pixel_values), rows, cols))
    words = rf"one value for each of the model's 8 x 8 patches; \"mine\" gave {rows} x {cols}\."
    with pytest.raises(ArgumentError, match=words):
        evaluate(model, SCENES[:2], image_processor, methods=[method], metrics=["sparseness"])


def test_an_error_in_a_function_of_ones_own_says_whose_it_is(vit):
    model, image_processor = vit

    def broken(model, pixel_values, target):
        return pixel_values[0, 0, 0, 10**6]

    with pytest.raises(IndexError) as caught:
        evaluate(model, SCENES[:2], image_processor, methods=[MapMethod("mine", broken)], metrics=["sparseness"])
    assert caught.value.__notes__ == ['This happened in the function of the map "mine".']


@pytest.mark.slow
@pytest.mark.campaign
def test_a_module_where_the_command_is_given(vit, tmp_path):
    (tmp_path / "my_maps_here.py").write_text(
        "import torch\ndef flat_map(model, pixel_values, target):\n    return torch.ones(len(pixel_values), 8, 8)\n"
    )
    command = [str(Path(sys.executable).with_name("gmar-hf")), "evaluate", "--demo", "vit", "--limit", "2"]
    command += ["--out", "out", "--metrics", "sparseness", "--methods"]
    done = subprocess.run([*command, "my_maps_here:flat_map"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "flat-map" in done.stdout


def test_anything_that_can_be_called_may_be_a_method(vit):
    model, image_processor = vit
    method = MapMethod("partial", functools.partial(ones))
    found = evaluate(model, SCENES, image_processor, methods=[method], metrics=["sparseness"])
    assert (found.values == 0).all()


def test_a_method_of_ones_own_may_write_into_its_arguments(vit):
    model, image_processor = vit

    def writing(model, pixel_values, target):
        maps = gmar_hf.explain(model, pixel_values, target, method="contribution").attribution
        pixel_values.mul_(0.5)
        target.zero_()
        return maps

    def needing(model, pixel_values, target):
        pixel_values.requires_grad_()
        (slope,) = torch.autograd.grad(model(pixel_values=pixel_values).logits.sum(), pixel_values)
        return slope.unflatten(2, (8, 8)).unflatten(4, (8, 8)).sum(dim=(1, 3, 5))

    names = ["insertion", "class_sensitivity"]
    expected = evaluate(model, SCENES[:3], image_processor, methods=["contribution"], metrics=names, num_steps=2)
    methods = [MapMethod("writing", writing), "contribution", MapMethod("needing", needing)]
    with torch.no_grad():
        found = evaluate(model, SCENES[:3], image_processor, methods=methods, metrics=names, num_steps=2)
    for name in ("writing", "contribution"):
        for column in expected.metrics:
            np.testing.assert_array_equal(found.of(name, column.key), expected.of("contribution", column.key))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.register_forward_hook(lambda *args: None),
        lambda model: model(pixel_values=torch.zeros(1, 3, 64, 64)).logits.sum().backward(),
        lambda model: model.requires_grad_(False),
    ],
)
def test_a_method_of_ones_own_must_leave_the_model_as_it_was(vit, change):
    model, image_processor = copy.deepcopy(vit[0]), vit[1]
    model.requires_grad_()

    def changing(model, pixel_values, target):
        change(model)
        return torch.ones(len(pixel_values), 8, 8)

    with pytest.raises(ArgumentError, match='leave the model as it was; "changing" changed its modes, hooks, weights'):
        evaluate(model, SCENES[:2], image_processor, methods=[MapMethod("changing", changing)], metrics=["sparseness"])


def test_the_first_batch_tells_how_long_the_rest_will_take(vit, monkeypatch, capsys):
    told = []
    monkeypatch.setattr("gmar_hf.runs.run.time_left", lambda *figures: told.append(figures) or "Not long.")
    model, image_processor = vit
    evaluate(model, SCENES[:5], image_processor, methods=["random"], metrics=["sparseness"], batch_size=2)
    ((seconds, num_done, num_left),) = told
    assert 0 < seconds < 60
    assert (num_done, num_left) == (2, 3)
    cost, rest = capsys.readouterr().err.splitlines()
    assert cost.startswith("An explained class of an image costs about 0 forwards of the model: 0 for 1 map")
    assert rest == "Not long."


def test_the_first_forward_tells_how_long_all_will_take(vit, monkeypatch, capsys):
    """By a clock that is a second on whenever it is looked at: a forward of two images takes half of one each."""
    seconds, told = itertools.count(), []
    monkeypatch.setattr("gmar_hf.evaluation.batch.time.perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr("gmar_hf.evaluation.evaluation_run.duration", lambda *took: told.extend(took) or "3 years")
    monkeypatch.setattr("gmar_hf.evaluation.evaluation_run._LONG", 4.0)
    model, image_processor = vit
    evaluate(model, SCENES[:5], image_processor, methods=["contribution"], metrics=["sparseness"], batch_size=2)
    assert told == [0.5 * 2 * 5]  # two forwards for a map, of five images; said once
    said = capsys.readouterr().err
    assert (
        "At the speed of the first forward that will take about 3 years.\nFewer `methods`, `metrics`, `num_steps`"
        in said
    )


@pytest.mark.slow
def test_the_command_line(run, tmp_path):
    common = ["evaluate", "--demo", "vit", "--limit", 2, "--num-steps", 2, "--out", tmp_path / "out"]
    code, out, err = run(*common, "--methods", "contribution, masked-contribution")
    assert code == 0
    # 2 and 9 forwards, twice as the maps of two classes are compared; 3 fillings' curves of 2 steps, 4 forwards each.
    assert err == (
        "An explained class of an image costs about 46 forwards of the model: 22 for 2 maps and 24 for 16 figures of "
        "each; about 92 for 2 images, for one class each. So few images give figures and no verdict: it takes 8 at "
        "least.\n"
    )
    assert out.startswith("Which map to believe cannot be said: figures are of 2 images, and it takes 8 at least.\n")
    assert "masked-contribution" in out
    assert "*" in out  # the mark of a map that was made with the baseline
    assert "index.html" in out
    code, out, err = run(*common, "--methods", "contribution")
    assert code == 1
    assert "must not hold finished results" in err
    code, out, _ = run(*common, "--methods", "random", "--force", "--json")
    told = json.loads(out)
    assert (told["num_rows"], told["verdict"]["map"]) == (2, None)
    code, _, err = run("evaluate", "--out", tmp_path / "b")
    assert (code, err) == (
        1, "gmar-hf: `--model` and `--data` must both be given; one is missing. Or pass `--demo vit`.\n",
    )  # fmt: skip
    code, _, err = run(*common, "--methods", "contributon", "--force")
    assert code == 1
    assert "got 'contributon'. Did you mean 'contribution' or 'masked-contribution'?" in err
    alone = ["evaluate", "--demo", "vit", "--limit", 1, "--num-steps", 2, "--out", tmp_path / "alone"]
    code, out, _ = run(*alone, "--methods", "random")
    assert code == 0
    assert '-: no figure; masks are missing, or for "other" a second image in the batch.' in out
    metrics = ["saco", "average_drop", "positive_perturbation", "sparseness"]
    code, out, _ = run(*common, "--methods", "random", "--force", "--metrics", ",".join(metrics))
    assert code == 0
    assert "2 more columns, and all intervals, are on the page." in out
    assert "saco" in out


def test_the_command_line_says_how_many_masks_there_are(vit, run, tmp_path):
    for part in vit:
        part.save_pretrained(tmp_path / "model")
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, scene in enumerate(SCENES[:3]):
        scene["image"].save(tmp_path / "images" / f"{number}.png")
    Image.new("L", SCENES[0]["image"].size, 255).save(tmp_path / "masks" / "1.png")
    places = ["--model", tmp_path / "model", "--data", tmp_path / "images", "--masks", tmp_path / "masks"]
    places += ["--methods", "random", "--metrics"]
    code, out, _ = run("evaluate", *places, "pointing_game", "--out", tmp_path / "one")
    assert code == 0
    assert "Masks say where the object is for 1 of 3 explained classes." in out
    code, out, _ = run("evaluate", *places, "sparseness", "--out", tmp_path / "two")
    assert code == 0
    assert "Masks say" not in out


def test_help_names_every_map_and_metric(run):
    code, out, _ = run("evaluate", "--help")
    assert code == 0
    words = set(re.findall(r"[\w-]+", out))
    assert {*MAP_METHODS, *METRICS} <= words
