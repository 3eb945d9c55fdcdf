"""Surveys in several processes, killed and gone on with: the report must be that of an undisturbed one, always."""

import itertools
import json
import os
import re
import shutil
import signal
import time
from functools import partial

import pytest
import torch

from gmar_hf import HeadImportanceReport
from gmar_hf.report.statistics import KEYS
from tests.helpers import zoo
from tests.helpers.commands import save_model
from tests.helpers.explainers import name_classes, photo
from tests.helpers.kills import MOMENTS, SURVEY, kill_often
from tests.helpers.sampling import in_a_campaign
from tests.helpers.survey_processes import (
    PATIENCE,
    Command,
    Forks,
    accelerate_launch,
    free_port,
    prepare_forks,
    saved,
    torchrun,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

NUM_IMAGES, BATCH_SIZE, NUM_BATCHES = 23, 3, 8
CLASSES = ("bird", "cat", "dog")
REPORT = [
    "README.md",
    "config.json",
    "contribution.png",
    "contribution_abs.png",
    "index.html",
    "l1_weight.png",
    "report.safetensors",
]
STOPPING = "\nStopping once the work in hand is saved; Ctrl-C again stops at once.\n"
INTERRUPTED = f"{STOPPING}gmar-hf: interrupted. The same command goes on from out.\n"


def uncounted(errors):
    """Without how many images are done, which is up to the moment."""
    return re.sub(r"(?<=interrupted\. )(about )?\d+ of \d+ images are done\. ", "", errors)


EQUAL, NEAR = 1e-9, 1e-6  # of the largest: with the same number of processes, and with another


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    prepare_forks(home)
    return home


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), name_classes(zoo.vit()))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Indivisible by whatever there is, in a folder for each class, and one that is broken."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(NUM_IMAGES):
        (folder / CLASSES[number % 3]).mkdir(exist_ok=True)
        photo(number).save(folder / CLASSES[number % 3] / f"{number:02}.png")
    (folder / "dog" / "11.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The same, all of them intact, as a file of `datasets`."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    rows = {"image": [photo(n) for n in range(NUM_IMAGES)], "label": [n % 3 for n in range(NUM_IMAGES)]}
    folder = tmp_path_factory.mktemp("table")
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")
    return folder


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Pictures that take their time, for commands that are to be met at work."""
    folder = tmp_path_factory.mktemp("large") / "big"
    folder.mkdir()
    for number in range(20):
        if number < 8:
            photo(number, (3000, 2000)).save(folder / f"{number:02}.png", compress_level=1)
        else:
            os.link(folder / f"{number % 8:02}.png", folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def variants(model, images, table, big):
    """Arguments of the command, by name."""
    common = ["--model", model, "--out", "out", "--batch-size", BATCH_SIZE, "--max-unreadable", 0.05]
    stream = ["--data", table, "--streaming", "--split", "train"]
    return {
        "predicted": [*common, "--data", images, "--shuffle-seed", 5],
        "label": [*common, "--data", images, "--target", "label"],
        "stable": [*common, "--data", images, "--batch-size", 1, "--until-stable", 1e-4],
        "big": [*common, "--data", big, "--batch-size", 2],
        "stream": [*common, *stream],
    }


@pytest.fixture(scope="module")
def undisturbed(home, variants, tmp_path_factory):
    """The report of a survey in so many processes that nothing happens to."""
    made = {}

    def get(name, num_processes=1):
        if (name, num_processes) not in made:
            folder = tmp_path_factory.mktemp("undisturbed")
            with Forks(variants[name], [folder] * num_processes) as survey:
                assert survey.finish() == [0] * num_processes, survey.errors
            made[name, num_processes] = load(folder)
        return made[name, num_processes]

    return get


def load(*folders):
    """The report that a survey has left in one of its processes' folders, and nothing else in any."""
    (found,) = {folder / "out" for folder in folders if (folder / "out" / "config.json").exists()}
    assert sorted(path.name for path in found.iterdir()) == REPORT
    assert all(not list((folder / "out").iterdir()) for folder in folders if folder / "out" != found)
    return HeadImportanceReport.from_pretrained(found)


def assert_same(report, expected, tolerance):
    for name, value in expected.settings.items():
        assert name == "date" or report.settings[name] == value, name
    assert torch.equal(report.moments.count, expected.moments.count)
    for key in KEYS:
        for name in ("mean", "std", "standard_error"):
            found, wanted = getattr(report, name)[key], getattr(expected, name)[key]
            assert (found - wanted).abs().max() <= tolerance * wanted.abs().max(), (key, name)


# However many processes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predicted", in_a_campaign("label")])
def test_one_two_and_three_processes(undisturbed, name):
    reports = [undisturbed(name, number) for number in (1, 2, 3)]
    counts = reports[0].settings["counts"]
    assert counts["num_images"] == NUM_IMAGES - 1
    assert counts["num_correct"] + counts["num_wrong"] == NUM_IMAGES - 1
    assert counts["num_correct"] > 0
    assert counts["num_unreadable"] == 1
    assert [entry["image"] for entry in reports[0].settings["unreadable"]] == ["dog/11.png"]
    if name == "label":
        assert [reports[0].per_class(label).num_explanations for label in CLASSES] == [8, 8, 6]
    for report in reports[1:]:
        assert_same(report, reports[0], NEAR)


@pytest.mark.campaign
def test_more_processes_than_batches(home, variants, undisturbed, tmp_path):
    with Forks([*variants["label"], "--batch-size", 20], [tmp_path] * 3) as survey:
        assert survey.finish() == [0, 0, 0], survey.errors
        assert sorted(survey.taken) == [0, 1]
    report = load(tmp_path)
    expected = undisturbed("label")
    assert report.settings["counts"] == expected.settings["counts"]
    for key in KEYS:
        assert (report.mean[key] - expected.mean[key]).abs().max() < 1e-5 * expected.mean[key].abs().max()


@pytest.mark.campaign
@pytest.mark.parametrize(("launcher", "number"), [(torchrun, 3), (accelerate_launch, 2)])
def test_launchers(home, variants, undisturbed, tmp_path, launcher, number):
    with Command(*launcher(number), *variants["label"], "--json", folder=tmp_path / "run", home=home) as command:
        code, out, err = command.finish()
    assert code == 0, err
    summary = json.loads(out)  # one process's, and nothing else
    expected = undisturbed("label")
    assert {name: summary[name] for name in expected.settings["counts"]} == expected.settings["counts"]
    assert_same(load(tmp_path / "run"), expected, NEAR)


# Bad input: one line, whatever the number of processes


@pytest.fixture(scope="module")
def stopped(home, variants, tmp_path_factory):
    """A folder with the checkpoints of two killed processes."""
    folder = tmp_path_factory.mktemp("stopped")
    with Forks([*variants["predicted"], "--save-every", 1], [folder] * 2, pace=0.1) as survey:
        assert wait_until(lambda: len(saved(folder)) >= 3, lambda: survey.alive)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            ["--shuffle-seed", 6],
            "`output_dir` (`--out`) holds the checkpoint of another survey: shuffle seed was 5 and is now 6.",
        ),
        (
            ["--target", "label"],
            "`output_dir` (`--out`) holds the checkpoint of another survey: target was 'predicted' and is now",
        ),
        (["--model", "none"], "`--model` must be the Hub id or the folder of an image classifier"),
        (["--data", "./none"], "`data` must be a folder that exists or a data set's id on the Hub"),
        (["--max-unreadable", 7], "`max_unreadable` must be a share in [0, 1]; got 7.0."),
        (["--label-map", "none"], "`--label-map` must be a JSON file; got 'none' (No such file or directory)."),
    ],
)
def test_one_process_tells_for_all(stopped, variants, changed, message):
    before = {path.name: path.read_bytes() for path in (stopped / "out" / "checkpoints").glob("rank-*")}
    with Forks([*variants["predicted"], *changed], [stopped] * 2) as survey:
        assert survey.finish() == [1, 1], survey.errors
        assert survey.errors.startswith(f"gmar-hf: {message}")
        assert len(survey.errors.splitlines()) == 1
        assert (survey.output, survey.taken) == ("", [])
    assert {path.name: path.read_bytes() for path in (stopped / "out" / "checkpoints").glob("rank-*")} == before


@pytest.mark.slow
def test_a_finished_folder_is_not_overwritten(home, variants, tmp_path):
    def run(*options):
        with Forks([*variants["label"], *options], [tmp_path] * 2) as survey:
            return survey.finish(), survey.errors

    def written():
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    assert run("--limit", 7) == ([0, 0], "")
    before = written()
    codes, errors = run()
    assert codes == [1, 1]
    assert errors == (
        "gmar-hf: `output_dir` (`--out`) must not hold a finished report; 'out' does. Choose another folder, or "
        "replace it with `force=True` (`--force`).\n"
    )
    assert written() == before
    assert run("--limit", 5, "--force") == ([0, 0], "")
    assert load(tmp_path).num_images == 5
    assert all(time > before[name] for name, time in written().items())


# Machines without a common folder


@pytest.mark.parametrize(
    ("order", "name"),
    [
        pytest.param(order, name, marks=[pytest.mark.slow] if order == "ab ba ab" else [])
        for order, name in itertools.product(["ab ab ab", "ab ba ab"], ["predicted", "stream"])
    ],
)
@pytest.mark.campaign
def test_machines_with_folders_of_their_own(home, variants, undisturbed, tmp_path, name, order):
    """Killed twice; a machine may come back with the folder, and what is in it, of the other."""
    finished = set()
    for kills_left, names in zip((2, 1, 0), order.split(), strict=True):
        folders = [tmp_path / one for one in names]
        enough = len(finished) + 2
        with Forks([*variants[name], "--save-every", 1], folders, pace=0.05 if kills_left else 0) as survey:
            if kills_left:
                assert wait_until(lambda: len(saved(*folders)) >= enough, lambda: survey.alive)  # noqa: B023
                survey.signal(signal.SIGKILL)
            assert survey.finish() == ([-signal.SIGKILL] * 2 if kills_left else [0, 0]), survey.errors
            assert not finished.intersection(survey.taken)
        finished = saved(*folders) if kills_left else finished
    assert_same(load(*folders), undisturbed(name, 2), EQUAL)


@pytest.mark.campaign
def test_two_machines_under_accelerate_launch(home, variants, undisturbed, tmp_path):
    """Killed with their launchers; then the machines have changed places."""
    folders = [tmp_path / "a", tmp_path / "b"]
    port = free_port()
    arguments = [*variants["predicted"], "--save-every", 1]

    def start(rank):
        launcher = accelerate_launch(2, machine=rank, num_machines=2, port=port)
        return Command(*launcher, *arguments, folder=folders[rank], home=home)

    with start(0) as first, start(1) as second:
        assert wait_until(lambda: saved(*folders), lambda: first.alive and second.alive), (
            first.finish(),
            second.finish(),
        )
        second.kill()
        first.kill()
    finished = saved(*folders)
    with Forks(arguments, folders[::-1]) as survey:
        assert survey.finish() == [0, 0], survey.errors
        assert sorted([*finished, *survey.taken]) == list(range(NUM_BATCHES))
    assert_same(load(*folders), undisturbed("predicted", 2), EQUAL)


# Killed at any moment


def check_report(expected):
    """What looks at the report of a survey whose processes were of these numbers: it is an undisturbed one's."""

    def check(folder, used):
        assert_same(load(folder), expected(max(used)), EQUAL if len(used) == 1 else NEAR)

    return check


@pytest.mark.parametrize(("name", "numbers"), [("predicted", [1, 2]), ("stream", [2])])
@pytest.mark.slow
@pytest.mark.campaign
def test_a_few_kills(home, variants, undisturbed, tmp_path, name, numbers):
    check = check_report(partial(undisturbed, name))
    met = kill_often(tmp_path, SURVEY, variants[name], check, seed=1, num_kills=2, numbers=numbers)
    assert met["kills"] == 2
    assert met["results"] >= 1


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("name", "numbers", "seed"),
    [("predicted", [1, 2], 0), ("label", [1, 2, 3], 1), ("stable", [1, 2], 2), ("stream", [2], 3)],
)
def test_many_kills(home, variants, undisturbed, tmp_path, name, numbers, seed, record_property):
    check = check_report(partial(undisturbed, name))
    met = kill_often(tmp_path, SURVEY, variants[name], check, seed=seed, num_kills=25, numbers=numbers)
    record_property("met", dict(met))
    assert all(met[name] for name in MOMENTS)


# Asked to stop


@pytest.mark.parametrize(
    ("signals", "control_c"),
    [
        ([signal.SIGINT], signal.default_int_handler),
        ([signal.SIGTERM], signal.default_int_handler),
        ([signal.SIGINT, signal.SIGINT], signal.default_int_handler),  # the terminal's and the launcher's
        ([signal.SIGTERM], signal.SIG_IGN),  # a background job's
    ],
)
@pytest.mark.slow
def test_the_batch_in_hand_is_finished_and_saved(home, variants, tmp_path, signals, control_c):
    arguments = [*variants["predicted"], "--save-every", 50]
    with Forks(arguments, [tmp_path], pace=0.5, control_c=control_c) as survey:
        assert wait_until(lambda: len(survey.taken) == 2, lambda: survey.alive)
        for number in signals:
            survey.signal(number)
            time.sleep(0.05)
        assert survey.finish() == [130], survey.errors
        assert survey.output == ""
        said = survey.errors.removeprefix(STOPPING)
        assert re.fullmatch(r"gmar-hf: interrupted\. \d+ of \d+ images are done\. The same .*\n", said)
        assert uncounted(survey.errors) == INTERRUPTED
        assert saved(tmp_path) == set(survey.taken)


@pytest.mark.slow
def test_the_second_control_c_stops_at_once(home, variants, undisturbed, tmp_path):
    with Forks([*variants["predicted"], "--save-every", 1], [tmp_path], pace=6.0) as survey:
        assert wait_until(lambda: survey.taken, lambda: survey.alive)
        start = time.monotonic()
        while survey.alive:  # until it is taken for another one
            survey.signal(signal.SIGINT)
            time.sleep(0.1)
            assert time.monotonic() < start + PATIENCE
        assert survey.finish() == [130], survey.errors
        then = "gmar-hf: interrupted. The same command starts anew: nothing is saved yet.\n"
        assert uncounted(survey.errors) == STOPPING + then
        assert saved(tmp_path) == set()


@pytest.mark.parametrize("name", ["predicted", in_a_campaign("stable")])
@pytest.mark.slow
def test_who_waits_for_the_others_tells_of_it_too(home, variants, tmp_path, name):
    """The first process has nothing left to do when both are interrupted, and hears of it when the second is gone."""
    arguments = [*variants[name], "--batch-size", 3, "--limit", 9]
    with Forks(arguments, [tmp_path] * 2, pace=(0.0, 1.5)) as survey:
        assert wait_until(lambda: saved(tmp_path) == {0, 2}, lambda: survey.alive), survey.errors
        survey.signal(signal.SIGINT)
        assert survey.finish() == [130, 130], survey.errors
        assert uncounted(survey.errors).removeprefix(STOPPING) == INTERRUPTED.removeprefix(STOPPING)
        assert saved(tmp_path) == {0, 1, 2}


@pytest.mark.campaign
def test_control_c(home, variants, undisturbed, big, tmp_path):
    """The command itself. What it has finished is gone afterwards, so nobody reads it again."""
    copy = shutil.copytree(big, tmp_path / "big", copy_function=os.link)
    arguments = [*variants["big"], "--data", copy, "--save-every", 1]
    folder = tmp_path / "run"
    with Command("-m", "gmar_hf", "report", *arguments, folder=folder, home=home) as command:
        assert wait_until(lambda: saved(folder), lambda: command.alive), command.finish()
        command.process.send_signal(signal.SIGINT)
        code, out, err = command.finish()
        assert (code, out, uncounted(err)) == (130, "", INTERRUPTED)
    finished = saved(folder)
    assert 0 < len(finished) < 10
    for file in [file for number in finished for file in sorted(copy.iterdir())[2 * number : 2 * number + 2]]:
        size = file.stat().st_size
        file.unlink()
        file.touch()
        os.truncate(file, size)
    with Forks(arguments, [folder]) as survey:
        assert survey.finish() == [0], survey.errors
        assert sorted([*finished, *survey.taken]) == list(range(10))
    assert_same(load(folder), undisturbed("big", 2), NEAR)


@pytest.mark.campaign
def test_a_launcher_is_asked_to_stop(home, variants, undisturbed, tmp_path):
    """torchrun, which passes it on."""
    arguments = [*variants["big"], "--save-every", 1]
    folder = tmp_path / "run"
    with Command(*torchrun(2), *arguments, folder=folder, home=home) as command:
        assert wait_until(lambda: saved(folder), lambda: command.alive), command.finish()
        command.process.send_signal(signal.SIGTERM)
        code, out, err = command.finish()
    assert (code, out) == (1, "")  # the launcher's
    assert uncounted(err).count(INTERRUPTED) == 1
    finished = saved(folder)
    assert 0 < len(finished) < 10
    with Forks(arguments, [folder] * 2) as survey:
        assert survey.finish() == [0, 0], survey.errors
        assert sorted([*finished, *survey.taken]) == list(range(10))
    assert_same(load(folder), undisturbed("big", 2), EQUAL)


# Streams


@pytest.mark.slow
@pytest.mark.campaign
def test_streams_go_on_with_the_same_number_of_processes(home, variants, undisturbed, tmp_path):
    arguments = [*variants["stream"], "--save-every", 1]
    with Forks(arguments, [tmp_path] * 2, pace=0.1) as survey:
        assert wait_until(lambda: len(saved(tmp_path)) >= 3, lambda: survey.alive), survey.errors
        survey.signal(signal.SIGKILL)
        survey.finish()
    finished = saved(tmp_path)
    for number in (1, 3):
        with Forks(arguments, [tmp_path] * number) as survey:
            assert survey.finish() == [1] * number
            assert survey.errors.startswith(
                "gmar-hf: `output_dir` (`--out`) holds the checkpoint of another survey: number of processes, of "
                f"streaming data was 2 and is now {number}. Go on with the same settings, choose another folder, or"
            )
            assert len(survey.errors.splitlines()) == 1
        assert saved(tmp_path) == finished
    with Forks(arguments, [tmp_path] * 2) as survey:
        assert survey.finish() == [0, 0], survey.errors
        assert not finished.intersection(survey.taken)
    report = load(tmp_path)
    assert report.num_images == NUM_IMAGES
    assert_same(report, undisturbed("stream", 2), EQUAL)
    assert_same(report, undisturbed("stream", 1), NEAR)
