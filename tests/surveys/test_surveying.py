"""A survey in one process: against a slow loop over single images, stopped and gone on with, and with bad input."""

import copy
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict

import numpy as np
import pytest
import torch
from accelerate import Accelerator, cpu_offload
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset, IterableDataset
from transformers import ViTConfig, ViTForImageClassification

import gmar_hf
from gmar_hf import ArgumentError, ArgumentTypeError, ArtifactError, HeadImportanceReport
from gmar_hf.data.items import ItemData
from gmar_hf.errors import GMARError
from gmar_hf.report.statistics import KEYS
from gmar_hf.report.traits import TRAITS
from gmar_hf.surveys.survey_checkpoint import Part
from gmar_hf.surveys.survey_run import SurveyInterrupted
from tests.helpers import oracle, zoo
from tests.helpers.explainers import image_processor, name_classes, photo
from tests.helpers.sampling import pick
from tests.helpers.state import make_uneven, snapshot
from tests.surveys.test_scoring import expected

NUM_IMAGES = 11
LABELS = [0, [1, 3], 2, 4, [0, 2], 1, 3, None, 4, 0, 1]


@pytest.fixture(scope="module")
def model():
    return name_classes(zoo.vit())


@pytest.fixture(scope="module")
def items():
    return [{"image": photo(seed), "label": label} for seed, label in zip(range(NUM_IMAGES), LABELS, strict=True)]


def survey(model, data, **kwargs):
    kwargs.setdefault("image_processor", image_processor())
    kwargs.setdefault("batch_size", 4)
    return gmar_hf.survey(model, data, **kwargs)


def same(one, other, tolerance=1e-12):
    """Counts are equal, means and deviations within a share of the largest."""
    assert one.settings["counts"] == other.settings["counts"]
    assert torch.equal(one.moments.count, other.moments.count)
    for key in KEYS:
        for found, wanted in ((one.mean, other.mean), (one.std, other.std)):
            assert (found[key] - wanted[key]).abs().max() <= tolerance * wanted[key].abs().max(), key
    for name in ("output", "gradient"):
        found, wanted = getattr(one.means, name), getattr(other.means, name)
        assert (found - wanted).abs().max() <= tolerance * wanted.abs().max(), name


class Counting(Dataset):
    """Remembers which items were asked for, and presses Ctrl-C or fails at one of them."""

    def __init__(self, items, at=None, action=None):
        self.items, self.at, self.action = items, at, action
        self.read = []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if sys._getframe(2).f_code is not ItemData.read.__code__:  # for what data they are, before the survey begins
            return self.items[index]
        self.read.append(index)
        if index == self.at:
            self.action()
        return self.items[index]


class Failure(GMARError):
    """Comes out as it is raised."""


def fail():
    raise Failure


class TestAgainstTheOracle:
    """Float64, explicit attention, one image and class at a time, NumPy over all values at once."""

    @pytest.fixture(scope="class")
    @classmethod
    def explained(cls, model, items):
        """For every image its six scores by class, and the predicted class."""
        found = []
        for item in items:
            pixels = image_processor()(item["image"], return_tensors="pt")["pixel_values"]
            by_class = {
                index: expected(oracle.explicit_reference(model, pixels, index)[0]) for index in range(zoo.NUM_LABELS)
            }
            with torch.no_grad():
                found.append((by_class, model(pixel_values=pixels).logits.argmax().item()))
        return found

    @pytest.mark.parametrize("target", ["predicted", "label"])
    def test_means_and_deviations(self, model, items, explained, target):
        report = survey(model, items, target=target)
        everything, by_class, by_outcome = [], defaultdict(list), defaultdict(list)
        counts = defaultdict(int)
        for (scores, predicted), label in zip(explained, LABELS, strict=True):
            labels = [label] if isinstance(label, int) else label or []
            outcome = "unlabelled" if not labels else "correct" if predicted in labels else "wrong"
            counts[outcome] += 1
            for index in [predicted] if target == "predicted" else labels:
                everything.append(scores[index])
                by_class[index].append(scores[index])
                by_outcome[outcome].append(scores[index])
        assert counts["wrong"] > 0
        assert report.num_explanations == len(everything) == (NUM_IMAGES if target == "predicted" else 12)
        assert report.num_images == (NUM_IMAGES if target == "predicted" else NUM_IMAGES - 1)
        tallies = report.settings["counts"]
        assert {name: tallies[f"num_{name}"] for name in ("correct", "wrong", "unlabelled")} == {
            name: counts[name] for name in ("correct", "wrong", "unlabelled")
        }
        self.check(report.overall, everything)
        for index, values in by_class.items():
            self.check(report.per_class(index), values)
            self.check(report.per_class(f"{model.config.id2label[index]}"), values)
        for outcome in ("correct", "wrong"):
            if by_outcome[outcome]:
                self.check(getattr(report, outcome), by_outcome[outcome])

    def check(self, statistics, values):
        values = np.stack(values)
        assert statistics.num_explanations == len(values)
        for number, key in enumerate(KEYS):
            largest = np.abs(values[:, number]).max()
            assert np.abs(statistics.mean[key].numpy() - values[:, number].mean(axis=0)).max() < 1e-5 * largest, key
            assert np.abs(statistics.std[key].numpy() - values[:, number].std(axis=0)).max() < 1e-5 * largest, key
            assert statistics.mean[key].dtype == torch.float64


class TestCentred:
    """The mean of `<O - mu, g>` over all images once mu is known: explicit, in float64, two passes."""

    @pytest.mark.parametrize("target", ["predicted", "label"])
    def test_against_the_oracle(self, model, items, target):
        report = survey(model, items, target=target, batch_size=3)
        outputs, gradients = [], []
        for item, label in zip(items, LABELS, strict=True):
            pixels = image_processor()(item["image"], return_tensors="pt")["pixel_values"]
            labels = [label] if isinstance(label, int) else label or []
            for index in [None] if target == "predicted" else labels:
                reference = oracle.explicit_reference(model, pixels, index)[0]
                outputs.append(reference.output)
                gradients.append(reference.output_gradient)
        assert len(outputs) == report.num_explanations
        mean = np.mean(outputs, axis=0)
        mean[:, :, 1:] = mean[:, :, 1:].mean(axis=2, keepdims=True)  # the class token by itself, the patches together
        expected = np.mean(
            [
                ((output - mean) * gradient).sum(axis=(2, 3))
                for output, gradient in zip(outputs, gradients, strict=True)
            ],
            axis=0,
        )
        found = report.mean["contribution_centred"].numpy()
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
        assert np.abs(found - report.mean["contribution"].numpy()).max() > 0.01 * np.abs(expected).max()


class TestDescribed:
    """Traits and top images of a survey, against one image at a time."""

    @pytest.mark.parametrize("target", ["predicted", "label"])
    def test_traits_and_top_images(self, model, items, tmp_path, target):
        options = dict(target=target, batch_size=2, describe_heads=True, top_images=2)
        with pytest.raises(Failure):
            survey(model, Counting(items, 5, fail), output_dir=tmp_path, save_every=1, **options)
        report = survey(
            model, Counting(items), output_dir=tmp_path, **options
        )  # goes on from what the first one saved
        values, contributions = [], []
        for number, (item, label) in enumerate(zip(items, LABELS, strict=True)):
            pixels = image_processor()(item["image"], return_tensors="pt")["pixel_values"]
            labels = [label] if isinstance(label, int) else label or []
            for index in [None] if target == "predicted" else labels:
                found = gmar_hf.describe_heads(model, pixels, index)
                values.append(np.stack([getattr(found, key)[0].double().numpy() for key in TRAITS]))
                explanation = gmar_hf.explain(model, pixels, index, method="contribution")
                name = (f"item {number}", int(explanation.target))
                contributions.append((name, explanation.head_contribution[0].double().numpy()))
        traits = report.traits.statistics
        for place, key in enumerate(TRAITS):
            theirs = np.stack(values)[:, place]
            assert np.abs(traits.mean[key].numpy() - theirs.mean(axis=0)).max() < 1e-5 * np.abs(theirs).max(), key
            assert np.abs(traits.std[key].numpy() - theirs.std(axis=0)).max() < 1e-5 * np.abs(theirs).max(), key
        best = sorted(contributions, key=lambda entry: -entry[1][1, 2])[:2]
        assert [(entry["image"], entry["class"]) for entry in report.top_images(1, 2)] == [name for name, _ in best]
        assert report.top_images(1, 2)[0]["contribution"] == pytest.approx(best[0][1][1, 2], rel=1e-4)
        # What was not asked for is not there, and belongs to another survey.
        assert survey(model, items[:2]).traits is None
        with pytest.raises(ArgumentError, match="`top_images` must be a whole number of 1 or more"):
            survey(model, items, top_images=0)

    def test_other_settings_are_another_survey(self, model, items, tmp_path):
        with pytest.raises(Failure):
            survey(model, Counting(items, 5, fail), output_dir=tmp_path, batch_size=2, save_every=1)
        with pytest.raises(ArgumentError, match="description of heads was False and is now True"):
            survey(model, items, output_dir=tmp_path, batch_size=2, describe_heads=True)


def test_what_was_done_with_the_images_is_told(model, items):
    small, large = image_processor((32, 32)), image_processor((32, 32))
    large.resample = 3
    reports = [survey(model, items[:3], image_processor=processor) for processor in (small, large)]
    told = [report.settings["image_processing"] for report in reports]
    assert [processing.pop("resample") for processing in told] == ["bilinear", "bicubic"]
    assert told[0] == told[1]
    assert told[0]["size"] == {"height": 32, "width": 32}
    assert told[0]["image_mean"] == told[0]["image_std"] == [0.5, 0.5, 0.5]
    with pytest.raises(ArgumentError, match="must be of images processed alike"):
        reports[0].merge(reports[1])


def test_results_are_no_part_of_the_data(model, tmp_path):
    photo(0).save(tmp_path / "one.png")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "heads", tmp_path / "link" / "heads"):
        with pytest.raises(ArgumentError, match=r"`output_dir` \(`--out`\) must not lie in the folder of the data"):
            survey(model, str(tmp_path), output_dir=folder)
    assert sorted(os.listdir(tmp_path)) == ["link", "one.png"]


@pytest.mark.parametrize("name", ["resume", "streaming", "use_labels", "force", "overwrite_card", "describe_heads"])
def test_flags_that_are_none(model, items, name):
    with pytest.raises(ArgumentError, match=f"`{name}` must be True or False; got 'no'"):
        survey(model, items, **{name: "no"})


def test_a_model_that_accelerate_offloads(model, items):
    offloaded = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
    same(survey(offloaded, items), survey(model, items), tolerance=1e-5)
    assert all(parameter.is_meta for parameter in offloaded.parameters())


class TestBatches:
    def test_the_batch_size_is_of_no_consequence(self, model, items):
        whole = survey(model, items, batch_size=32)
        for batch_size in (1, 3):
            same(survey(model, items, batch_size=batch_size), whole, 1e-5)

    def test_workers_read_the_same(self, model, items):
        same(survey(model, items, num_workers=2), survey(model, items))

    def test_an_order_drawn_by_seed_and_a_limit(self, model, items):
        report = survey(model, items, limit=5, shuffle_seed=3)
        order = torch.randperm(NUM_IMAGES, generator=torch.Generator().manual_seed(3))[:5]
        same(report, survey(model, [items[index] for index in order]))
        assert report.num_images == 5
        same(survey(model, items, limit=4), survey(model, items[:4]))
        same(survey(model, items, limit=400), survey(model, items))

    def test_processed_pixels_need_no_processor(self, model, items):
        pixels = image_processor()([item["image"] for item in items], return_tensors="pt")["pixel_values"]
        ready = [{"pixel_values": row, "label": label} for row, label in zip(pixels, LABELS, strict=True)]
        same(gmar_hf.survey(model, ready, batch_size=4), survey(model, items))
        with pytest.raises(ArgumentError, match="`image_processor` must be given where the data holds images"):
            gmar_hf.survey(model, items)

    def test_the_model_is_as_it_was(self, model, items):
        model = name_classes(zoo.vit())
        make_uneven(model)
        before = snapshot(model)
        survey(model, items)
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail))
        assert snapshot(model) == before

    @pytest.mark.parametrize("name", ["deit_teacher", "beit_relative", "clip", "dinov2"])
    def test_other_families(self, name, items):
        model = zoo.MODELS[name]()
        processor = image_processor(zoo.image_size(model))
        report = gmar_hf.survey(model, items[:3], processor)
        assert report.settings["model"]["class"] == type(model).__name__
        assert report.num_images == 3


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, also where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestFolder:
    def test_a_report_and_nothing_else_is_left(self, model, items, tmp_path):
        report = survey(model, items, output_dir=tmp_path / "new" / "out")
        left = {path.name for path in (tmp_path / "new" / "out").iterdir()}
        assert {"report.safetensors", "config.json", "README.md"} <= left
        assert "checkpoints" not in left
        loaded = HeadImportanceReport.from_pretrained(tmp_path / "new" / "out")
        assert loaded.settings == report.settings
        assert torch.equal(loaded.moments.mean, report.moments.mean)

    @pytest.mark.parametrize("at", range(0, NUM_IMAGES, 2))
    @pytest.mark.parametrize("save_every", [1, 2, 50])
    def test_it_goes_on_where_it_failed(self, model, items, tmp_path, at, save_every):
        undisturbed = survey(model, items)
        out = dict(output_dir=tmp_path, save_every=save_every)
        with pytest.raises(Failure):
            survey(model, Counting(items, at, fail), **out)
        data = Counting(items)
        same(survey(model, data, **out), undisturbed)
        saved = at // 4 * 4  # images in whole batches, whenever the last checkpoint was
        assert data.read == list(range(saved, NUM_IMAGES))

    def test_ctrl_c_saves_the_batch_in_hand(self, model, items, tmp_path, ctrl_c, capsys):
        undisturbed = survey(model, items)
        data = Counting(items, 5, lambda: signal.raise_signal(signal.SIGINT))
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(SurveyInterrupted, match=r"^8 of 11 images are done$"):
            survey(model, data, output_dir=tmp_path, save_every=50)
        assert signal.getsignal(signal.SIGINT) is handler
        rest = Counting(items)
        capsys.readouterr()
        same(survey(model, rest, output_dir=tmp_path), undisturbed)
        assert rest.read == [8, 9, 10]
        assert capsys.readouterr().err == "Going on: 8 of 11 images are done.\n"

    def test_ctrl_c_is_heard_in_a_survey_with_workers(self, model, items, tmp_path, ctrl_c):
        handler = signal.getsignal(signal.SIGINT)
        timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                survey(model, Slow(items * 20), output_dir=tmp_path, num_workers=1, save_every=1)
        finally:
            timer.join()
        assert signal.getsignal(signal.SIGINT) is handler

    def test_in_another_thread_nothing_is_changed(self, model, items):
        found = []
        thread = threading.Thread(target=lambda: found.append(survey(model, items)))
        thread.start()
        thread.join()
        assert found[0].num_images == NUM_IMAGES

    def test_not_resuming_starts_anew(self, model, items, tmp_path):
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
        data = Counting(items)
        survey(model, data, output_dir=tmp_path, resume=False)
        assert data.read == list(range(NUM_IMAGES))

    def test_a_finished_report_is_kept_unless_forced(self, model, items, tmp_path):
        survey(model, items, output_dir=tmp_path)
        before = (tmp_path / "config.json").read_bytes()
        data = Counting(items)
        with pytest.raises(
            ArgumentError, match=r"must not hold a finished report; .* does\. Choose another folder, or"
        ):
            survey(model, data, output_dir=tmp_path)
        assert not data.read
        assert (tmp_path / "config.json").read_bytes() == before
        report = survey(model, items[:5], output_dir=tmp_path, force=True)
        assert report.num_images == 5
        assert HeadImportanceReport.from_pretrained(tmp_path).num_images == 5

    def test_stopped_between_the_report_and_the_end(self, model, items, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr("gmar_hf.runs.run.remove_checkpoints", lambda folder: fail())
            with pytest.raises(Failure):
                survey(model, Counting(items), output_dir=tmp_path)
        assert (tmp_path / "config.json").exists()
        with pytest.raises(ArgumentError, match="must not hold a finished report"):  # another survey may not take over
            survey(model, Counting(items), output_dir=tmp_path, target="label")
        data = Counting(items)
        same(survey(model, data, output_dir=tmp_path), survey(model, items))
        assert not data.read
        assert not (tmp_path / "checkpoints").exists()

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            (dict(target="label"), "target was 'predicted' and is now 'label'"),
            (dict(batch_size=2), "batch size was 4 and is now 2"),
            (dict(shuffle_seed=1), "shuffle seed was None and is now 1"),
            (dict(part=(1, 2)), "part was None and is now '1/2'"),
            (dict(limit=10), "limit was None and is now 10"),
            (dict(until_stable=0.5), "until stable was None and is now 0.5"),
            (dict(use_labels=False), "reading of labels was 'by name' and is now 'not at all'"),
        ],
    )
    def test_a_checkpoint_of_other_settings(self, model, items, tmp_path, changed, words):
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
        data = Counting(items)
        with pytest.raises(ArgumentError) as caught:
            survey(model, data, output_dir=tmp_path, **changed)
        assert str(caught.value) == (
            f"`output_dir` (`--out`) holds the checkpoint of another survey: {words}. Go on with the same settings, "
            "choose another folder, or start anew with `resume=False` (`--no-resume`)."
        )
        assert not data.read

    def test_a_checkpoint_of_another_model_or_other_data(self, model, items, tmp_path):
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
        other = name_classes(
            zoo.build(ViTForImageClassification, ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=5), 1)
        )
        with pytest.raises(ArgumentError, match="another survey: the model's weights were others"):
            survey(other, Counting(items), output_dir=tmp_path)
        with pytest.raises(ArgumentError, match="another survey: the data were others \\(11 images, now 10\\)\\."):
            survey(model, Counting(items[:-1]), output_dir=tmp_path)
        with pytest.raises(ArgumentError, match="another survey: the image processor was another"):
            survey(model, Counting(items), output_dir=tmp_path, image_processor=image_processor(do_rescale=False))
        model.config._commit_hash = "a" * 40
        try:
            with pytest.raises(
                ArgumentError, match=r"another survey: model was None .*; model revision was None and is"
            ):
                survey(model, Counting(items), output_dir=tmp_path, model_id="a/b")
        finally:
            model.config._commit_hash = None

    def test_other_images_of_the_same_number(self, model, items, tmp_path):
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
        others = [{**item, "image": photo(100 + number)} for number, item in enumerate(items)]
        for data in (others, [*items[:-1], others[-1]], [*items[:-1], {**items[-1], "label": 0}]):
            with pytest.raises(
                ArgumentError, match=r"survey: the data were others, of the same number \(11 images\)\."
            ):
                survey(model, Counting(data), output_dir=tmp_path)
        assert survey(model, Counting([dict(item) for item in items]), output_dir=tmp_path).num_images == NUM_IMAGES

    def test_random_augmentation_can_be_gone_on_with(self, model, items, tmp_path):
        class Noisy(Dataset):
            def __init__(self, fails):
                self.fails, self.read = fails, 0

            def __len__(self):
                return 40

            def __getitem__(self, index):
                self.read += sys._getframe(2).f_code is ItemData.read.__code__
                if self.fails and self.read > 9:
                    fail()
                return {"image": photo(int(torch.randint(10_000, ())))}

        with pytest.raises(Failure):
            survey(model, Noisy(True), output_dir=tmp_path, save_every=1)
        rest = Noisy(False)
        assert survey(model, rest, output_dir=tmp_path).num_images == 40
        assert rest.read == 32

    def test_a_refused_survey_leaves_nothing(self, model, items, tmp_path):
        data = [{"image": "gone.png"}] * 13
        for folder in (tmp_path / "new" / "out", tmp_path):
            with pytest.raises(ArgumentError, match="must not have more unreadable images"):
                survey(model, data, output_dir=folder)
        assert [path.name for path in tmp_path.iterdir()] == ["new"]
        assert not (tmp_path / "new" / "out").exists()
        (tmp_path / "mine.txt").write_text("kept")
        with pytest.raises(Failure):
            survey(model, Counting(items, 1, fail), output_dir=tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "new"]

    def test_a_folder_that_another_process_has_cleared_away(self, model, items, tmp_path):
        data = Counting(items, 5, lambda: (tmp_path / "out" / "checkpoints").rmdir())
        assert survey(model, data, output_dir=tmp_path / "out").num_images == NUM_IMAGES

    def test_surveys_of_other_images_are_merged(self, model, items):
        one, other = (survey(model, part) for part in (items[:5], items[5:10]))
        assert one.merge(other).num_images == 10
        with pytest.raises(ArgumentError, match="whose images would count twice"):
            one.merge(survey(model, [dict(item) for item in items[:5]]))

    @pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"{}"])
    def test_a_corrupt_checkpoint(self, model, items, tmp_path, content):
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
        (file,) = (tmp_path / "checkpoints").iterdir()
        file.write_bytes(content)
        with pytest.raises(
            ArtifactError, match=r"rank-00000.safetensors' must be a checkpoint of a survey; it cannot"
        ):
            survey(model, items, output_dir=tmp_path)
        survey(model, items, output_dir=tmp_path, resume=False)

    def test_a_checkpoint_whose_tensors_do_not_fit(self, model, items, tmp_path):
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
        (file,) = (tmp_path / "checkpoints").iterdir()
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        tensors, header = load_file(file), json.loads(metadata["gmar_hf"])
        changes = [
            ({"groups": torch.tensor([99])}, {}), ({"mean": torch.zeros(2, 2)}, {}), ({"count": torch.ones(1)}, {}),
            ({"mean": tensors["mean"] * torch.nan}, {}), ({"squares": -1 - tensors["squares"]}, {}),
            ({}, {"counts": {}}), ({}, {"checked": "no"}),
            ({}, {"settings": [1]}), ({}, {"unreadable": [1]}), ({}, {"identity": None}),
        ]  # fmt: skip
        for broken, content in changes:
            changed = {**header, "content": {**header["content"], **content}}
            save_file({**tensors, **broken}, tmp_path / "broken", {"gmar_hf": json.dumps(changed)})
            shutil.copy(file, tmp_path / "good")
            shutil.move(tmp_path / "broken", file)
            with pytest.raises(ArtifactError, match="must be a checkpoint of a survey"):
                survey(model, items, output_dir=tmp_path)
            shutil.move(tmp_path / "good", file)

    def test_checkpoints_of_other_ranks_are_counted_once(self, model, items, tmp_path):
        """What two processes have left, one goes on with, and another call goes on with what that has left."""
        undisturbed = survey(model, items, batch_size=2)
        with pytest.raises(Failure):
            survey(model, Counting(items, 5, fail), output_dir=tmp_path, batch_size=2, save_every=1)
        folder = tmp_path / "checkpoints"
        (folder / "rank-00000.safetensors").rename(folder / "rank-00007.safetensors")
        data = Counting(items, 9, fail)
        with pytest.raises(Failure):
            survey(model, data, output_dir=tmp_path, batch_size=2, save_every=1)
        assert data.read == [4, 5, 6, 7, 8, 9]
        assert sorted(path.name for path in folder.iterdir()) == ["rank-00000.safetensors", "rank-00007.safetensors"]
        data = Counting(items)
        same(survey(model, data, output_dir=tmp_path, batch_size=2), undisturbed)
        assert data.read == [8, 9, 10]

    def test_checkpoints_that_share_images_are_refused(self, model, items, tmp_path):
        with pytest.raises(Failure):
            survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
        folder = tmp_path / "checkpoints"
        part = Part.load(folder / "rank-00000.safetensors")
        part.identity = "another"
        part.save(folder / "rank-00001.safetensors")
        with pytest.raises(ArgumentError, match="holds checkpoints that share images"):
            survey(model, Counting(items), output_dir=tmp_path)

    def test_a_place_that_cannot_be_written(self, model, items, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ArgumentError, match=r"`output_dir` \(`--out`\) must be a folder that can be written"):
            survey(model, items, output_dir=tmp_path / "file")


class Slow(Counting):
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)


class TestUnreadable:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "images"
        folder.mkdir()
        for number in range(10):
            photo(number).save(folder / f"{number}.png")
        (folder / "3.png").write_bytes(b"no picture")
        (folder / "7.png").write_bytes((folder / "8.png").read_bytes()[:200])
        return folder

    def test_they_are_counted_and_listed(self, model, folder):
        report = survey(model, folder, max_unreadable=0.2)
        assert report.num_images == 8
        assert report.settings["counts"]["num_unreadable"] == 2
        assert [entry["image"] for entry in report.settings["unreadable"]] == ["3.png", "7.png"]
        assert all(entry["reason"] for entry in report.settings["unreadable"])
        good = [{"image": photo(number)} for number in range(10) if number not in (3, 7)]
        whole = survey(model, good, batch_size=8)
        for key in KEYS:
            assert torch.allclose(report.mean[key], whole.mean[key], rtol=1e-4, atol=1e-7)

    def test_too_many_stop_the_survey(self, model, folder, tmp_path):
        with pytest.raises(ArgumentError) as caught:
            survey(model, folder, output_dir=tmp_path / "out", save_every=1, max_unreadable=0)
        message = str(caught.value)
        assert message.startswith(
            "`dataset` (`--data`) must not have more unreadable images than a share of 0; got 1 of 10 so"
        )
        assert "so far: '3.png'. The first: `image` must be of a format that Pillow reads; got '3.png'." in message
        assert message.endswith("Mend them, or raise `max_unreadable` (`--max-unreadable`).")
        assert ".)" not in message.replace("`).", "")
        assert survey(model, folder, output_dir=tmp_path / "out", max_unreadable=0.2).num_images == 8

    def test_up_to_five_are_named(self, model, tmp_path):
        for number in range(7):
            (tmp_path / f"{number}.png").write_bytes(b"no picture")
        with pytest.raises(ArgumentError, match=r"got 3 of 7 so far: '0.png', '1.png', '2.png'\. The first: "):
            survey(model, tmp_path, batch_size=3)
        with pytest.raises(ArgumentError, match=r"got 7 of 7 so far: '0.png', .*, '4.png' and 2 more\. The first: "):
            survey(model, tmp_path, batch_size=7)

    def test_a_share_that_is_just_met(self, model, folder):
        assert survey(model, folder, max_unreadable=0.2).num_images == 8
        with pytest.raises(ArgumentError, match="got 2 of 10"):
            survey(model, folder, max_unreadable=0.1)

    def test_a_share_is_rounded_up_to_whole_images(self, model, folder):
        """Of ten images 1 % is one: a broken file does not stop a small survey."""
        (folder / "3.png").unlink()
        assert survey(model, folder).num_images == 8

    def test_none_is_readable(self, model, tmp_path):
        for name in "ab":
            (tmp_path / f"{name}.png").write_bytes(b"no picture")
        with pytest.raises(
            ArgumentError, match=r"`dataset` \(`--data`\) must hold at least one image to explain; got none"
        ):
            survey(model, tmp_path, max_unreadable=1.0)


class TestStability:
    def data(self, count=200):
        generator = torch.Generator().manual_seed(0)
        return [{"pixel_values": row} for row in torch.randn(count, 3, 32, 32, generator=generator)]

    def test_it_stops_when_the_standard_errors_are_small(self, model):
        data = self.data()
        report = gmar_hf.survey(model, data, batch_size=2, until_stable=0.075)
        stability = report.settings["stability"]
        assert stability["reached"]
        assert stability["num_images"] == report.num_images < 200
        assert report.num_images % 32 == 0  # 16 batches of 2
        same(report, gmar_hf.survey(model, data[: report.num_images], batch_size=2))

        def worst(found):
            return (found.standard_error["contribution_abs"].max() / found.mean["contribution_abs"].max()).item()

        assert worst(report) < 0.075
        earlier = gmar_hf.survey(model, data[: report.num_images - 32], batch_size=2)
        assert worst(earlier) >= 0.075

    def test_a_tolerance_that_is_never_reached(self, model):
        report = gmar_hf.survey(model, self.data(20), batch_size=4, until_stable=1e-4)
        assert report.settings["stability"] == {"tolerance": 1e-4, "reached": False, "num_images": 20}

    @pytest.mark.parametrize("at", pick([3, 31, 70, 126], 1))
    def test_it_stops_at_the_same_image_after_a_failure(self, model, tmp_path, at):
        data = self.data()
        out = dict(output_dir=tmp_path, batch_size=2, until_stable=0.075, save_every=3)
        undisturbed = gmar_hf.survey(model, data, batch_size=2, until_stable=0.075)
        with pytest.raises(Failure):
            gmar_hf.survey(model, Counting(data, at, fail), **out)
        same(gmar_hf.survey(model, Counting(data), **out), undisturbed)


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class FailingStream(Stream):
    def __iter__(self):
        yield from self.items[:9]
        raise Failure


class TestStreams:
    def test_a_stream_is_as_good_as_a_list(self, model, items):
        same(survey(model, Stream(items)), survey(model, items))
        same(survey(model, Stream(items), limit=7), survey(model, items[:7]))

    def test_it_goes_on(self, model, items, tmp_path, monkeypatch):
        out = dict(output_dir=tmp_path, save_every=1)
        monkeypatch.setattr(Stream, "__iter__", FailingStream.__iter__)
        with pytest.raises(Failure):
            survey(model, Stream(items), **out)
        monkeypatch.undo()
        same(survey(model, Stream(items), **out), survey(model, items))

    def test_with_another_number_of_processes_it_is_refused(self, model, items, tmp_path, monkeypatch):
        out = dict(output_dir=tmp_path, save_every=1)
        monkeypatch.setattr(Stream, "__iter__", FailingStream.__iter__)
        with pytest.raises(Failure):
            survey(model, Stream(items), **out)
        monkeypatch.undo()
        (file,) = (tmp_path / "checkpoints").iterdir()
        part = Part.load(file)
        assert part.settings["number of processes, of streaming data"] == 1
        part.settings["number of processes, of streaming data"] = 2
        part.save(file)
        with pytest.raises(ArgumentError, match="number of processes, of streaming data was 2 and is now 1"):
            survey(model, Stream(items), **out)


class TestBadInput:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            (dict(batch_size=0), "`batch_size` must be a whole number of 1 or more; got 0."),
            (dict(batch_size=2.0), "`batch_size` must be a whole number of 1 or more; got 2.0."),
            (dict(num_workers=-1), "`num_workers` must be a whole number of 0 or more; got -1."),
            (dict(save_every=True), "`save_every` must be a whole number of 1 or more; got True."),
            (dict(limit=0), "`limit` must be a whole number of 1 or more; got 0."),
            (dict(shuffle_seed=-1), "`shuffle_seed` must be a whole number in [0, 2**63 - 1]; got -1."),
            (dict(target="best"), '`target` must be one of "predicted", "label"; got \'best\'.'),
            (dict(max_unreadable=2), "`max_unreadable` must be a share in [0, 1]; got 2."),
            (dict(max_unreadable=None), "`max_unreadable` must be a share in [0, 1]; got None."),
            (dict(until_stable="x"), "`until_stable` must be a share in [0, 1]; got 'x'."),
            (
                dict(until_stable=0),
                "`until_stable` must be above 0 (standard errors never are 0); got 0. Leave it out.",
            ),
        ],
    )
    def test_values(self, model, items, kwargs, message):
        with pytest.raises(ArgumentError) as caught:
            survey(model, items, **kwargs)
        assert str(caught.value) == message

    def test_no_model(self, items):
        with pytest.raises(ArgumentTypeError, match="`model` must be an image classifier of transformers; got str"):
            survey("google/vit-base-patch16-224", items)

    def test_labels_that_are_not_there(self, model, items):
        bare = [{"image": item["image"]} for item in items]
        with pytest.raises(ArgumentError, match='`target` "label" needs labels; got data without any'):
            survey(model, bare, target="label")
        assert survey(model, bare).settings["counts"]["num_unlabelled"] == NUM_IMAGES

    def test_processes_that_are_not_joined(self, model, items, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(
            ArgumentError, match=r"`accelerator` must join the 2 processes that were launched; it has 1"
        ):
            survey(model, items, accelerator=Accelerator())

    def test_processed_images_of_several_sizes(self, model):
        sizes = [{"pixel_values": torch.zeros(3, 32, 32)}, {"pixel_values": torch.zeros(3, 32, 40)}]
        with pytest.raises(ArgumentError, match="Images of one batch must leave the image processor in one size"):
            gmar_hf.survey(model, sizes)


def test_what_the_report_says_of_its_making(model, items):
    report = survey(model, items, license="cc-by-4.0", model_id="me/tiny", data_id="me/photos", model_revision="v1")
    settings = json.loads(json.dumps(report.settings))
    assert settings["model"]["id"] == "me/tiny"
    assert settings["model"]["is_local"] is False
    assert settings["model"]["revision"] == "v1"
    assert settings["model"]["labels"] == ["cat", "dog", "tabby cat", "bird", "fire truck"]
    assert settings["datasets"][0]["id"] == "me/photos"
    assert settings["license"] == "cc-by-4.0"
    assert settings["survey"]["batch_size"] == 4
    assert settings["stability"] is None
    assert survey(model, items).settings["model"]["is_local"] is True
