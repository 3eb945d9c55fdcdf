"""Surveys of parts of a data set, merged: the report of one survey over all of it."""

import io
import tarfile
from itertools import permutations

import pytest
import torch

from gmar_hf import ArgumentError
from gmar_hf.report.statistics import OUTCOMES
from tests.helpers import zoo
from tests.helpers.explainers import image_processor, name_classes, photo
from tests.surveys.test_surveying import same, survey

NUM_IMAGES, NUM_PARTS = 11, 3
MADE = ("date",)  # what two surveys never have alike


@pytest.fixture(scope="module")
def model():
    return name_classes(zoo.vit())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images in which one is broken."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(NUM_IMAGES):
        name = ("bird", "cat", "dog")[number % 3]
        (folder / name).mkdir(exist_ok=True)
        photo(number).save(folder / name / f"{number:02}.png")
    (folder / "dog" / "05.png").write_bytes(b"no picture")
    return folder


def comparable(report):
    return {key: value for key, value in report.settings.items() if key not in (*MADE, "top_images")}


@pytest.mark.parametrize("target", ["predicted", "label"])
def test_merged_parts_are_one_survey(model, folder, target):
    """Images one by one, so that float32's rounding is the same; then what is left is float64's."""
    how = dict(target=target, batch_size=1, describe_heads=True, top_images=2, max_unreadable=1, shuffle_seed=3)
    whole = survey(model, folder, **how)
    parts = [survey(model, folder, part=(number, NUM_PARTS), **how) for number in range(1, NUM_PARTS + 1)]
    assert [part.num_images + part.settings["counts"]["num_unreadable"] for part in parts] == [4, 4, 3]
    for first, *others in permutations(parts):
        merged = first.merge(*others)
        assert comparable(merged) == comparable(whole)
        same(merged, whole, tolerance=1e-13)
        for statistics in ("overall", "correct", "wrong"):
            assert_alike(getattr(merged, statistics), getattr(whole, statistics))
        for label in ("bird", "cat", "dog"):
            if int(whole.moments.count.unflatten(0, (-1, len(OUTCOMES)))[whole.labels.index(label)].sum()):
                assert_alike(merged.per_class(label), whole.per_class(label))
        assert_alike(merged.traits.statistics, whole.traits.statistics)
        assert [head[:2] for head in merged.top_heads(5)] == [head[:2] for head in whole.top_heads(5)]
        assert merged.top_images(1, 2) == whole.top_images(1, 2)
    # The centred scores are of the whole's mean outputs, not a mean of the parts' centred scores.
    centred = [part.mean["contribution_centred"] * part.num_explanations for part in parts]
    mean_of_parts = sum(centred) / whole.num_explanations
    assert not torch.allclose(mean_of_parts, whole.mean["contribution_centred"], rtol=1e-3)


def assert_alike(found, wanted):
    assert found.num_explanations == wanted.num_explanations
    for statistic in ("mean", "std", "standard_error"):
        for key, value in getattr(wanted, statistic).items():
            torch.testing.assert_close(getattr(found, statistic)[key], value, rtol=1e-11, atol=1e-13, equal_nan=True)


def test_parts_that_do_not_belong_together(model, folder):
    def part(number, count, **changed):
        return survey(model, folder, part=(number, count), max_unreadable=1, limit=6, **changed)

    first = part(1, 3)
    with pytest.raises(ArgumentError, match=r"must be another part of .* got part 1 of 3 in both"):
        first.merge(part(2, 3), part(1, 3))
    for other in (part(2, 2), part(2, 3, shuffle_seed=4)):
        with pytest.raises(ArgumentError, match="that was cut like the others; got one of another number of parts"):
            first.merge(other)
    with pytest.raises(ArgumentError, match=r"must be of other images; got .* in both"):
        first.merge(survey(model, folder, max_unreadable=1, limit=6))
    with pytest.raises(ArgumentError, match="processed alike; got another image processor"):
        first.merge(part(2, 3, image_processor=image_processor(image_mean=[0.5, 0.4, 0.5])))
    assert first.settings["datasets"][0]["parts"] == {"count": 3, "numbers": [1], "limit": 6, "shuffle_seed": None}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ((0, 3), r"`part` must be a whole number in \[1, 3\]; got 0"),
        ((4, 3), r"`part` must be a whole number in \[1, 3\]; got 4"),
        ((1, 0), "`part` must be a whole number of 1 or more; got 0"),
        (3, r"must be a number and a count, such as \(3, 8\) for the third of eight; got 3"),
        ("3/8", r"must be a number and a count, .* got '3/8'"),
        ((12, 12), r"at most as many parts as there are images \(11, before any `limit`\); got 12/12"),
    ],
)
def test_parts_that_cannot_be(model, folder, part, reason):
    with pytest.raises(ArgumentError, match=reason):
        survey(model, folder, part=part)


def test_a_stream_has_no_parts(model):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield {"image": photo(0)}

    with pytest.raises(ArgumentError, match=r"`part` .* must be left out for streaming data"):
        survey(model, Stream(), part=(1, 2))


def test_streams_are_told_apart_by_their_names(model):
    """As shards of a data set that every job streams by itself."""

    class Shards(torch.utils.data.IterableDataset):
        def __init__(self, *seeds):
            self.seeds = seeds

        def __iter__(self):
            return ({"image": photo(seed)} for seed in self.seeds)

    first, second = (survey(model, Shards(*seeds), data_id=f"shards {seeds}") for seeds in ((0, 1), (2, 3)))
    assert first.merge(second).num_images == 4
    with pytest.raises(ArgumentError, match=r"count twice\. Survey what is missing\. Tell streams apart by `data_id`"):
        first.merge(survey(model, Shards(2, 3), data_id="shards (0, 1)"))


def test_another_part_does_not_go_on(model, folder, tmp_path):
    how = dict(max_unreadable=1, output_dir=tmp_path)
    survey(model, folder, part=(1, 3), **how)
    with pytest.raises(ArgumentError, match="must not hold a finished report"):
        survey(model, folder, part=(2, 3), **how)


@pytest.mark.slow
def test_shards_of_webdataset(model, tmp_path):
    """As examples/scaling.md has it: every job streams tar files of its own, and their reports are merged."""
    datasets = pytest.importorskip("datasets")
    for shard in range(4):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for number in range(3):
                content = io.BytesIO()
                photo(3 * shard + number).save(content, "PNG")
                entry = tarfile.TarInfo(f"{3 * shard + number:06}.png")
                entry.size = content.tell()
                content.seek(0)
                archive.addfile(entry, content)

    def surveyed(*shards):
        files = [str(tmp_path / f"{shard}.tar") for shard in shards]
        stream = datasets.load_dataset(
            "webdataset", data_files=files, split="train", streaming=True, cache_dir=tmp_path / "cache"
        )
        return survey(model, stream, batch_size=1, use_labels=False, data_id=f"shards {shards}")

    merged, whole = surveyed(0, 1).merge(surveyed(2, 3)), surveyed(0, 1, 2, 3)
    same(merged, whole, tolerance=1e-13)
    assert [dataset["id"] for dataset in merged.settings["datasets"]] == ["shards (0, 1)", "shards (2, 3)"]
    with pytest.raises(ArgumentError, match="whose images would count twice"):
        merged.merge(surveyed(0, 1))
