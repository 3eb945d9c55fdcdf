"""`gmar-hf report` in one process: its options, what it prints, and how it ends."""

import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import transformers

import gmar_hf
from gmar_hf import HeadImportanceReport
from gmar_hf.cli import loading
from gmar_hf.report.report_files import read_settings
from gmar_hf.surveys import survey_run
from gmar_hf.surveys.survey_checkpoint import Part
from tests.helpers import zoo
from tests.helpers.commands import printed, refusal, save_model
from tests.helpers.explainers import name_classes, photo
from tests.helpers.hub_routes import READER

NAMES = ["cat", "dog", "tabby, tabby cat", "a\x1b[2J", "[red]x"]
SHARED = [
    "README.md",
    "config.json",
    "contribution.png",
    "contribution_abs.png",
    "l1_weight.png",
    "report.safetensors",
]
FILES = sorted([*SHARED, "index.html"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), name_classes(zoo.vit(), NAMES))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with class folders of pictures, where the command is started."""
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        folder = Path("pets", ["cat", "dog"][number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        photo(number).save(folder / f"{number}.png")
    Path("file").touch()
    return tmp_path


@pytest.fixture
def report(run, here, model):
    """Runs the command on the pictures, four at once."""
    return lambda *options: run("report", "-m", model, "-d", "pets", "-o", "out", "--batch-size", 4, *options)


@pytest.fixture
def stop(monkeypatch):
    """Lets the survey meet something when it has so many batches behind it."""

    def arrange(number, action):
        take = survey_run.SurveyRun.take
        numbers = itertools.count()

        def counting(self, batch):
            if next(numbers) == number:
                action()
            take(self, batch)

        monkeypatch.setattr(survey_run.SurveyRun, "take", counting)
        return lambda: monkeypatch.setattr(survey_run.SurveyRun, "take", take)

    return arrange


class Killed(BaseException):
    """Stands for a sudden end."""


@pytest.fixture
def kill(stop):
    """Lets a command end suddenly when the survey has a batch behind it."""

    def die():
        raise Killed

    def kill(command, *arguments):
        go = stop(1, die)
        with pytest.raises(Killed):
            command(*arguments)
        go()

    return kill


def counts(folder="out"):
    return read_settings(Path(folder, "config.json"), "out")[0]["counts"]


# What is written and printed


def test_what_is_written_and_printed(report, here):
    out = printed(report())
    assert sorted(path.name for path in Path("out").iterdir()) == FILES
    saved = HeadImportanceReport.from_pretrained("out")
    assert counts() == saved.settings["counts"]
    assert (saved.num_images, counts()["num_unlabelled"], counts()["num_unreadable"]) == (7, 0, 0)
    assert saved.settings["survey"]["batch_size"] == 4
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert len(cells) == 9  # all heads that it has
    assert "…" not in out
    for row, (layer, head, value) in zip(cells, saved.top_heads(9), strict=True):
        error = saved.standard_error["contribution_abs"][layer, head]
        assert row[0] == f"{layer}.{head}"
        assert row[1] == f"{value:.3f} ± {error:.3f}"
        assert row[2] == f"{saved.mean['contribution'][layer, head]:+.3f}"
        assert row[3] == f"{saved.mean['contribution_centred'][layer, head]:+.3f}"
        assert row[4] == f"{saved.mean['l1_weight'][layer, head]:.1%}"
    assert "This is of 7 images only: the ranking is a first look" in out
    assert "This is of 7 images only: the ranking is a first look" in Path("out", "README.md").read_text("utf-8")
    assert out.endswith(
        "7 images, 7 explanations. Report, card and page (index.html) are in out\nLook first at out/index.html\n"
    )


def test_json(report, here):
    out = printed(report("--json", "--target", "label"))
    saved = HeadImportanceReport.from_pretrained("out")
    assert json.loads(out) == {
        "out": "out",
        "page": "out/index.html",
        **saved.settings["counts"],
        "top_heads": [
            {"layer": layer, "head": head, "contribution_abs": value} for layer, head, value in saved.top_heads(5)
        ],
        "url": None,
    }
    assert saved.settings["target"] == "label"
    assert saved.per_class("cat").num_explanations == 4


def test_it_is_the_survey(report, here, model):
    assert report("--target", "label", "--limit", 5, "--shuffle-seed", 3, "--license", "mit")[0] == 0
    saved = HeadImportanceReport.from_pretrained("out")
    classifier = loading.load_model(model, None)
    processor = loading.load_image_processor(model, None)
    expected = gmar_hf.survey(
        classifier, "pets", processor, batch_size=4, target="label", limit=5, shuffle_seed=3, license="mit"
    )
    assert {**saved.settings, "date": ""} == {**expected.settings, "date": ""}
    torch.testing.assert_close(saved.moments.mean, expected.moments.mean)
    assert saved.settings["license"] == "mit"
    assert "license: mit" in Path("out/README.md").read_text()


def test_the_demo(run, here):
    out = printed(run("report", "--demo", "vit", "--limit", 6, "--batch-size", 4, "-o", "out", "--json"))
    assert json.loads(out)["num_images"] == 6
    settings = HeadImportanceReport.from_pretrained("out").settings
    assert settings["model"]["id"] == "gmar_hf.demo.load('vit')"
    assert settings["datasets"][0]["id"] == "gmar_hf.demo.scenes(6)"
    for more in (["--model", "x"], ["--data", "x"]):
        assert refusal(run("report", "--demo", "vit", *more, "-o", "other")).startswith(
            "`--demo` must not be given together with `--model`, `--data` or `--label`. Drop one."
        )
    assert (
        refusal(run("report", "--demo", "cnn", "-o", "other"))
        == '`--demo` must be one of "vit", "deit", "beit"; got \'cnn\'.\n'
    )
    assert not Path("other").exists()


def test_a_number_of_images_that_limit_and_stability_set(report, here):
    assert report("--limit", 3)[0] == 0
    assert counts()["num_images"] == 3
    assert report("--force", "--until-stable", 0.9, "--limit", 6)[0] == 0
    settings = read_settings("out/config.json", "out")[0]
    assert settings["survey"]["until_stable"] == 0.9
    assert settings["stability"] == {"tolerance": 0.9, "reached": True, "num_images": 6}


def test_one_image(report, here):
    out = printed(report("--limit", 1))
    assert out.endswith(
        "\n1 image, 1 explanation. Report, card and page (index.html) are in out\nLook first at out/index.html\n"
    )
    assert "inf" not in out
    assert "±" not in out


def test_without_labels(report, here):
    os.rename("pets/dog", "pets/no label of the model's")
    err = refusal(report())
    assert err.startswith(
        "`class folder` must be one of the model's labels or an index; got \"no label of the model's\". Near it: "
    )
    assert "`--label-map FILE`" in err
    assert report("--no-labels")[0] == 0
    assert counts()["num_unlabelled"] == 7
    assert refusal(report("--no-labels", "--target", "label", "--force")).startswith(
        '`target` "label" needs labels; got data without any. Use target "predicted".'
    )


def test_unreadable_images(report, here):
    Path("pets/cat/bro\x1bken.png").write_bytes(b"no picture")
    err = refusal(report("--max-unreadable", 0))
    assert err.startswith(
        "`dataset` (`--data`) must not have more unreadable images than a share of 0; got 1 of 8 so far: 'cat/bro"
    )
    assert err.endswith("Mend them, or raise `max_unreadable` (`--max-unreadable`).\n")
    assert [path.name for path in Path("out").iterdir()] == ["checkpoints"]  # from which the next goes on
    code, out, err = report("--max-unreadable", 0.2)
    assert (code, err) == (0, "Going on: 4 of 8 images are done.\n")
    assert "7 images, 7 explanations, 1 unreadable (cat/bro\\x1bken.png; reasons stand in the card). Report" in out
    assert "1 image could not be read (cat/bro\\x1bken.png; reasons" in Path("out/index.html").read_text()


# Labels that are called otherwise


@pytest.fixture
def others(here):
    os.rename("pets/cat", "pets/n02123045")
    os.rename("pets/dog", "pets/\x1b[1mhound")
    return here


def test_a_label_map(report, others):
    Path("map.json").write_text(json.dumps({"n02123045": "tabby, tabby cat", "\x1b[1mhound": 1}))
    code, _, err = report("--label-map", "map.json", "--target", "label")
    assert (code, err) == (0, "")
    saved = HeadImportanceReport.from_pretrained("out")
    assert saved.per_class("tabby, tabby cat").num_explanations == 4
    assert saved.per_class("dog").num_explanations == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "`--label-map` must be a JSON file; got 'map.json' (No such file or directory). Check the path and"),
        (b"{", "`--label-map` must be a JSON file; got 'map.json' (Expecting property name enclosed in double quotes"),
        (b"\xff\xfe", "`--label-map` must be a JSON file; got 'map.json' ('utf-8' codec can't decode byte"),
        (b"[" * 100_000, "`--label-map` must be a JSON file; got 'map.json' ("),
        (b'["cat"]', "`--label-map` must be a JSON object from folder names to labels or indices; got 'map.json', wh"),
        (b'{"cat": null}', "`--label-map` must be a JSON object from folder names to labels or indices; got 'map.jso"),
        (b'{"cat": 1.5}', "`--label-map` must be a JSON object from folder names to labels or indices; got 'map.json"),
        (b'{"n02123045": "tabby", "\\u001b[1mhound": 1}', "`label_map` must be one of the model's labels or an ind"),
        (b'{"n02123045": 5, "\\u001b[1mhound": 1}', "`label_map` must be an index in [0, 4] or a label; got 5."),
        (b'{"n02123045": true, "\\u001b[1mhound": 1}', "`label_map` must be a label or an index; got True."),
        (b'{"n02123045": 2}', "`class folder` must be one of the model's labels or an index; got '\\x1b[1mhound'. N"),
    ],
)
def test_label_maps_that_cannot_be_used(report, others, content, message):
    if content is not None:
        Path("map.json").write_bytes(content)
    assert refusal(report("--label-map", "map.json")).startswith(message)
    assert not Path("out").exists()


def test_a_label_map_of_other_data(report, here):
    Path("map.json").write_text('{"Nope": "dog"}')
    assert refusal(report("--label-map", "map.json")) == (
        "`label_map` (`--label-map`) must name at least one class folder of the data; got 'Nope', and the data have "
        "'cat', 'dog'. Mend the names, or leave it out.\n"
    )


# Folders that hold something already


def test_a_finished_report_is_kept_unless_forced(report, here):
    assert report("--limit", 2)[0] == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    for options in ([], ["--limit", 2], ["--no-resume"], ["--json"]):
        assert refusal(report(*options)) == (
            "`output_dir` (`--out`) must not hold a finished report; 'out' does. Choose another folder, or replace "
            "it with `force=True` (`--force`).\n"
        )
        assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
    assert report("--force")[0] == 0
    assert counts()["num_images"] == 7


def test_a_card_written_by_hand(report, here):
    Path("out").mkdir()
    Path("out/README.md").write_text("# My own words\n")
    kept = "gmar-hf: README.md in out was written by hand and is kept; --overwrite-card replaces it.\n"
    code, out, err = report()
    assert (code, err) == (0, kept)
    assert out.endswith(
        "7 images, 7 explanations. The report and its page (index.html) are in out\nLook first at out/index.html\n"
    )
    assert Path("out/README.md").read_text() == "# My own words\n"
    code, out, err = report("--force", "--json")
    assert (code, err) == (0, kept)
    assert json.loads(out)["num_images"] == 7
    out = printed(report("--force", "--overwrite-card"))
    assert out.endswith("Report, card and page (index.html) are in out\nLook first at out/index.html\n")
    assert "library_name: gmar_hf" in Path("out/README.md").read_text()


def test_going_on(report, here, kill):
    kill(report, "--save-every", 1)
    assert Part.load("out/checkpoints/rank-00000.safetensors").done == {0}
    for options, words in (
        (["--target", "label"], "target was 'predicted' and is now 'label'"),
        (["--shuffle-seed", 0], "shuffle seed was None and is now 0"),
        (["--limit", 6], "limit was None and is now 6"),
        (["--batch-size", 3], "batch size was 4 and is now 3"),
    ):
        assert refusal(report(*options)) == (
            f"`output_dir` (`--out`) holds the checkpoint of another survey: {words}. Go on with the same settings, "
            "choose another folder, or start anew with `resume=False` (`--no-resume`).\n"
        )
    Path("pets/cat/0.png").write_bytes(b"read already, and as many by")  # another size: other data
    assert refusal(report()).startswith(
        "`output_dir` (`--out`) holds the checkpoint of another survey: the data were others, of the same "
    )
    photo(0).save("pets/cat/0.png")
    size = os.path.getsize("pets/cat/0.png")
    Path("pets/cat/0.png").write_bytes(b"\0" * size)  # nobody reads it again
    assert report()[0] == 0
    assert counts()["num_images"] == 7
    assert sorted(path.name for path in Path("out").iterdir()) == FILES


def test_starting_anew(report, here, kill):
    kill(report, "--save-every", 1)
    assert report("--no-resume", "--target", "label")[0] == 0
    assert counts()["num_images"] == 7


def test_a_corrupt_checkpoint(report, here):
    Path("out/checkpoints").mkdir(parents=True)
    Path("out/checkpoints/rank-00000.safetensors").write_bytes(b"half")
    err = refusal(report())
    assert err.startswith("'out/checkpoints/rank-00000.safetensors' must be a checkpoint of a survey; it can")
    assert "`--no-resume`" in err
    assert report("--no-resume")[0] == 0


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, also where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(report, here, stop, number, ctrl_c):
    handlers = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    go = stop(0, lambda: signal.raise_signal(number))
    assert report("--json") == (
        130,
        "",
        "gmar-hf: interrupted. 4 of 7 images are done. The same command goes on from out.\n",
    )
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == handlers
    go()
    assert Part.load("out/checkpoints/rank-00000.safetensors").done == {0}
    code, _, err = report()
    assert (code, err) == (0, "Going on: 4 of 7 images are done.\n")
    assert counts()["num_images"] == 7


def test_asked_to_stop_before_anything_is_saved(report, here, monkeypatch, ctrl_c):
    def stop(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("gmar_hf.cli.loading.load_image_processor", stop)
    assert report("--json") == (
        130, "", "gmar-hf: interrupted. The same command starts anew: nothing is saved yet.\n",
    )  # fmt: skip


def test_what_a_kill_leaves_is_cleared_away(report, here):
    leftovers = [f".gmar_hf-{name}" for name in ("config-0123abcd", "report-0123abc_", "contribution_abs-01234567")]
    for name in (*leftovers, ".mine", ".report-original"):
        Path("out", name).mkdir(parents=True)
        Path("out", name, "half").write_bytes(b"half")
    assert report()[0] == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [".mine", ".report-original", *FILES]


# What cannot be used


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "./none"], "`--model` must be the Hub id or the folder of an image classifier with its image proc"),
        (["-m", "a\x1b[2J"], "`--model` must be the Hub id or the folder of an image classifier with its image p"),
        (["-d", "./none"], "`data` must be a folder that exists or a data set's id on the Hub ('owner/name'); got"),
        (["-d", "./\x1b[2J"], "`data` must be a folder that exists or a data set's id on the Hub ('owner/name');"),
        (["-d", "empty"], "`data` must be a folder with images (or with Parquet files, or one that `datasets` sav"),
        (["-d", "pets/cat/0.png"], "`data` must be a folder or a data set's id on the Hub; got the file 'pets/cat"),
        (["--split", "train"], "`split` must be left out for a folder of images"),
        (["--streaming"], "`streaming` must be left out for a folder of images; got True."),
        (["--data-revision", "main"], "`data_revision` (`--data-revision`) must be left out for a folder; got 'ma"),
        (["--until-stable", "0"], "`until_stable` must be above 0 (standard errors never are 0); got 0. Leave it"),
        (["--until-stable", "2"], "`until_stable` must be a share in [0, 1]; got 2.0."),
        (["--max-unreadable", "-1"], "`max_unreadable` must be a share in [0, 1]; got -1.0."),
        (["-o", "file"], "`output_dir` (`--out`) must be a folder that can be written; got 'file' (a file). Choose"),
        (["-o", "pets/heads"], "`output_dir` (`--out`) must not lie in the folder of the data (its pictures would be"),
        (["-o", "x" * 300], "`output_dir` (`--out`) must be a folder that can be written; got 'xxx"),
    ],
)
def test_bad_values_end_in_one_line(report, here, options, message):
    Path("empty").mkdir()
    assert refusal(report(*options, "--json")).startswith(message)
    assert not Path("out").exists()


@pytest.mark.parametrize("given", [["-m", "x"], ["-d", "x"], []])
def test_something_is_missing(run, here, given):
    assert (
        refusal(run("report", "-o", "out", *given))
        == "`--model` and `--data` must both be given; one is missing. Or pass `--demo vit`.\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "best"], ["best", "predicted", "label"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--limit", "0"], ["--limit"]),
        (["--save-every", "0"], ["--save-every"]),
        (["--num-workers", "-1"], ["--num-workers"]),
        (["--shuffle-seed", "-1"], ["--shuffle-seed"]),
        (["--colour"], ["--colour"]),
    ],
)
def test_wrong_usage(report, here, options, words):
    code, out, err = report(*options)
    assert (code, out) == (2, "")
    assert all(word in err for word in words)


def test_a_folder_is_needed(run):
    code, out, err = run("report", "--demo", "vit")
    assert (code, out) == (2, "")
    assert "--out" in err


def test_models_that_cannot_be_explained(run, here, tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("convnext"), zoo.convnext())
    assert refusal(run("report", "-m", folder, "-d", "pets", "--no-labels", "-o", "out")).startswith(
        "ConvNextForImageClassification cannot be explained: "
    )
    broken = shutil.copytree(folder, "broken")
    Path(broken, "config.json").write_text("{")
    assert refusal(run("report", "-m", "broken", "-d", "pets", "-o", "out")).startswith(
        "`--model` must be the Hub id or the folder of an image classifier"
    )


def test_names_that_would_steer_a_terminal(run, here, model):
    pets, out_folder = "pe\x1b[2Jts", "o\x1b]0;t\x07[red]ut"
    os.rename("pets", pets)
    for old, new in (("cat", "a\x1b[2J"), ("dog", "[red]x")):
        os.rename(Path(pets, old), Path(pets, new))
    arguments = ["report", "-m", model, "-d", pets, "-o", out_folder, "--batch-size", 4]
    out = printed(run(*arguments, "--target", "label"))
    assert r"Report, card and page (index.html) are in o\x1b]0;t\x07[red]ut" in out
    everything = out + "".join(run(*arguments)[1:])
    Path(pets, "a\x1b[2J").rename(Path(pets, "b\x1b[2J"))
    everything += "".join(run(*arguments, "--force")[1:])
    assert r"must not hold a finished report; 'o\x1b]0;t\x07[red]ut' does" in everything
    assert r"got 'b\x1b[2J'." in everything
    assert all(letter.isprintable() or letter == "\n" for letter in everything)
    summary = json.loads(run(*arguments, "--json", "--force", "--no-labels")[1])
    assert summary["out"] == out_folder


# The Hub


@pytest.fixture
def hub(here, hub):
    """Where the folder of pictures is."""
    return hub


PUSHED = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # as in test_hub.py


@PUSHED
@pytest.mark.parametrize("private", [[], ["--private"]])
def test_pushing(report, hub, private):
    out = printed(report("--push", "me/heads", "--json", *private))
    commit = hub.repos["me/heads"].refs["main"]
    assert json.loads(out)["url"] == f"{hub.url}/me/heads/commit/{commit}"
    assert {name: hub.read("me/heads", name) for name in SHARED} == {
        name: Path("out", name).read_bytes() for name in SHARED
    }
    assert hub.repos["me/heads"].is_private == bool(private)
    assert (
        printed(report("--push", "me/heads", "--force", "--limit", 3))
        .splitlines()[-1]
        .startswith(f"Pushed to {hub.url}/me/heads/commit/")
    )
    assert HeadImportanceReport.from_pretrained("me/heads").num_images == 3


@PUSHED
def test_a_card_on_the_hub_that_is_not_ours(report, hub):
    hub.add("me/heads", {"README.md": b"# My own words\n"})
    assert report("--push", "me/heads")[0] == 0
    assert hub.read("me/heads", "README.md") == b"# My own words\n"
    assert report("--push", "me/heads", "--force", "--overwrite-card")[0] == 0
    assert b"library_name: gmar_hf" in hub.read("me/heads", "README.md")


@PUSHED
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_push_that_fails_loses_nothing(report, hub, monkeypatch, as_json):
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", READER)
        err = refusal(report("--push", "me/heads", *as_json))
    assert err.startswith("To push the report, `token` must give the right to it; got 403 Forbidden for 'me/heads'")
    advice = "HeadImportanceReport.from_pretrained('out').push_to_hub('me/heads')"
    assert err.endswith(f"The report itself is complete in 'out'; push it with `{advice}`.\n")
    assert sorted(path.name for path in Path("out").iterdir()) == FILES
    eval(advice)  # as who may write
    assert hub.read("me/heads", "config.json") == Path("out/config.json").read_bytes()


def test_a_model_of_the_hub(run, hub, model, kill, monkeypatch):
    """Its revision is in the report, and another one is not gone on with."""
    monkeypatch.setattr(
        transformers.utils.hub, "_hf_api", None, raising=False
    )  # remembers the Hub that it asked first
    files = {path.name: path.read_bytes() for path in Path(model).iterdir()}
    repo = hub.add("me/vit", files)
    first = repo.refs["main"]
    arguments = ["report", "-m", "me/vit", "-d", "pets", "-o", "out", "--batch-size", 4, "--save-every", 1]
    kill(run, *arguments, "--revision", "main")
    second = hub.commit(repo, "main", repo.trees[first] | {"notes.txt": hub.blob("notes.txt", b"")})
    assert refusal(run(*arguments, "--revision", "main")).startswith(
        f"`output_dir` (`--out`) holds the checkpoint of another survey: model revision was '{first}' and is now "
        f"'{second}'. Go"
    )
    code, _, err = run(*arguments, "--revision", first)
    assert (code, err) == (0, "Going on: 4 of 7 images are done.\n")
    settings = HeadImportanceReport.from_pretrained("out").settings["model"]
    assert (settings["id"], settings["is_local"], settings["revision"]) == ("me/vit", False, first)
    assert settings["commit"] == first
    assert refusal(run(*arguments, "--revision", "v2", "--force")).startswith(
        "`--model` must be the Hub id or the folder of an image classifier"
    )
