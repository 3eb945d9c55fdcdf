"""A report goes to a folder and comes back bit by bit; what is anything else is refused in a sentence."""

import hashlib
import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from gmar_hf.errors import ArgumentError, ArgumentTypeError, ArtifactError
from gmar_hf.report import report_files
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.utils import files
from tests.helpers.reports import assert_same, make_report
from tests.helpers.sampling import sample_product
from tests.report.test_settings import FULL

FIGURES = ["contribution.png", "contribution_abs.png", "l1_weight.png"]
FILES = sorted(["README.md", "config.json", "report.safetensors", *FIGURES])


def load(folder):
    return HeadImportanceReport.from_pretrained(folder)


def stored(folder):
    """The tensors in memory of their own, so that the file can be written over."""
    return load_tensors((folder / "report.safetensors").read_bytes())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report's folder, not to be changed."""
    folder = tmp_path_factory.mktemp("reports") / "written"
    make_report(**FULL).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A report's folder, to be spoilt."""
    return shutil.copytree(written, tmp_path / "folder")


class TestRoundTrip:
    @pytest.mark.parametrize(
        "kwargs", [{}, {"num_classes": 1, "layers": 1, "heads": 1, "num_explanations": 1}, {"num_classes": 50}]
    )
    def test_bit_by_bit(self, tmp_path, kwargs):
        report = make_report(**kwargs)
        assert report.save_pretrained(str(tmp_path / "deep" / "new")) is None
        assert sorted(os.listdir(tmp_path / "deep" / "new")) == FILES
        loaded = load(str(tmp_path / "deep" / "new"))
        assert_same(loaded, report)
        assert isinstance(loaded, HeadImportanceReport)
        loaded.save_pretrained(tmp_path / "again")
        report.save_pretrained(tmp_path / "again")
        assert contents(tmp_path / "again") == contents(tmp_path / "deep" / "new")

    def test_only_groups_with_members_are_stored(self, written):
        report, tensors = load(written), stored(written)
        assert tensors["groups"].tolist() == report.moments.count.nonzero().flatten().tolist()
        assert len(tensors["groups"]) < report.moments.num_groups
        assert tensors["mean"].shape == (len(tensors["groups"]), 6, 3, 4)

    def test_config_says_what_belongs_to_it(self, written):
        config = json.loads((written / "config.json").read_text(encoding="ascii"))
        digest = hashlib.sha256((written / "report.safetensors").read_bytes()).hexdigest()
        assert config == {**load(written).settings, "schema_version": 1, "tensors_sha256": digest}

    def test_text_of_any_kind(self, tmp_path):
        labels = ["日本", "\udcff\x00\n", "", "<b>", "a" * 10_000]
        report = make_report(model={"labels": labels}, license="other")
        report.save_pretrained(tmp_path)
        assert load(tmp_path).labels == labels

    def test_views_and_gradients(self, tmp_path, written):
        report = load(written)
        weights = torch.randn(10, requires_grad=True).detach()[::2]
        HeadImportanceReport(report.moments, weights, report.settings).save_pretrained(tmp_path)
        assert torch.equal(load(tmp_path).weight_sample, weights)

    def test_a_folder_wins_over_a_name_on_the_hub(self, written, tmp_path, monkeypatch):
        shutil.copytree(written, tmp_path / "me" / "report")
        monkeypatch.chdir(tmp_path)
        assert_same(load("me/report"), load(written))

    def test_neither_the_mixin_nor_the_order_of_settings_changes_what_is_written(self, written, tmp_path):
        report = load(written)
        assert str(report.generate_model_card()).startswith("---\n")
        assert report.generate_model_card().data.library_name == "gmar_hf"
        settings = dict(reversed(report.settings.items()))
        HeadImportanceReport(report.moments, report.weight_sample, settings)._save_pretrained(tmp_path / "again")
        assert contents(tmp_path / "again") == contents(written)


def write_config(folder, change):
    """Change config.json by a function of its content."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(change(config) or config))


def write_tensors(folder, content):
    """Replace report.safetensors by other bytes, and say so in config.json."""
    (folder / "report.safetensors").write_bytes(content)
    write_config(folder, lambda config: config.update(tensors_sha256=hashlib.sha256(content).hexdigest()))


def refused(folder, name=None):
    with pytest.raises(ArtifactError) as caught:
        load(folder)
    text = str(caught.value)
    assert repr(str(name or folder)) in text
    assert text.isprintable()
    assert len(text) < 600
    return text


class TestFilesThatAreNoReport:
    def test_missing(self, folder, tmp_path):
        (folder / "report.safetensors").unlink()
        assert "got one without report.safetensors, which is no report or half of one. Save it again." in refused(
            folder
        )
        (folder / "config.json").unlink()
        assert "got one without config.json, which is no report or half of one" in refused(folder)
        assert "got one without config.json" in refused(str(folder))
        for nothing in (None, 5, ["a"]):
            with pytest.raises(ArgumentTypeError, match=r"must be a folder or a repo id; got (NoneType|int|list)"):
                HeadImportanceReport.from_pretrained(nothing)
        for nowhere in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere", "~/nowhere"):
            assert "which is no folder" in refused(nowhere)
        assert "which is a file" in refused(folder / "README.md")
        for file in ("config.json", "report.safetensors"):
            (folder / file).mkdir()
            assert "config.json is corrupt" in refused(folder)

    def test_no_json_and_json_of_something_else(self, folder):
        for content in (b"", b"{", b"\xff\xfe", b'{"a": ' + b"1" * 5000 + b"}", b"[" * 100_000, b'{"a": 1,}'):
            (folder / "config.json").write_bytes(content)
            assert "config.json is corrupt (" in refused(folder)
        for content in ("null", "[]", "3", '"a"', "{}", '{"model_type": "vit"}', '{"schema_version": 1}'):
            (folder / "config.json").write_text(content)
            assert "must be a head-importance report; its config.json is of something else." in refused(folder)

    def test_another_version(self, folder):
        for version in (2, 0, "1", 1.0, True, None, [1]):
            write_config(folder, lambda config, version=version: config.update(schema_version=version))
            assert f"must have schema version 1; got {version!r}. Install the gmar_hf that wrote" in refused(folder)

    @pytest.mark.parametrize(
        ("section", "entry", "wrong", "file", "reason"),
        [
            ("model", "labels", ["a", 3], "config.json", "`settings` must have a string as 'model.labels[1]'; got 3."),
            ("model", "labels", [], "report.safetensors", "'groups' must be ascending numbers in [0, -1]"),
            ("model", "num_layers", 10**30, "config.json", "a whole number of 0 or more as 'model.num_layers'"),
            ("model", "num_layers", 4, "report.safetensors", "`moments` must have 15 groups"),
            ("counts", "num_images", 3, "report.safetensors", "must count each explained image once"),
            ("survey", "batch_size", float("nan"), "config.json", "`settings` must hold plain JSON values"),
            ("survey", "batch_size", float("inf"), "config.json", "`settings` must hold plain JSON values"),
        ],
    )
    def test_entries_that_cannot_be(self, folder, section, entry, wrong, file, reason):
        write_config(folder, lambda config: config[section].update({entry: wrong}))
        text = refused(folder)
        assert f"{file} is corrupt (" in text
        assert reason in text

    def test_config_does_not_name_arguments(self, folder):
        # huggingface_hub's own mixin would hand these to the constructor.
        write_config(folder, lambda config: config.update(moments=1, weight_sample=2, settings={}, config={}))
        assert load(folder).settings["moments"] == 1


class TestNumbersThatAreNone:
    def test_another_file(self, folder):
        content = bytearray((folder / "report.safetensors").read_bytes())
        for place in (0, 9, len(content) // 2, len(content) - 1):
            changed = bytearray(content)
            changed[place] ^= 1
            (folder / "report.safetensors").write_bytes(changed)
            assert "is corrupt (its sha256 is not the one in config.json)" in refused(folder)
        for digest in ("", "0" * 64, 3, None):
            write_config(folder, lambda config, digest=digest: config.update(tensors_sha256=digest))
            assert "is corrupt (" in refused(folder)

    def test_no_safetensors(self, folder):
        class Harm:
            def __reduce__(self):
                return os.mkdir, (str(folder / "harm"),)

        whole = (folder / "report.safetensors").read_bytes()
        for content in (b"", b"\0" * 8, b"\xff" * 100, whole[:100], whole + b"\0", pickle.dumps(Harm())):
            write_tensors(folder, content)
            assert "report.safetensors is corrupt (" in refused(folder)
        assert not (folder / "harm").exists()

    @pytest.mark.parametrize("name", ["groups", "count", "mean", "squares", "weight_sample"])
    def test_missing_and_of_another_dtype_or_shape(self, folder, name):
        tensors = stored(folder)
        right = tensors[name]
        refusals = [right.to(dtype) for dtype in (torch.int32, torch.float16, torch.bool)]
        refusals += [right[None], right[..., None], right.flatten()[0]]
        if name != "weight_sample":  # of which any number is right
            refusals += [right[:-1], right[:0], torch.cat([right] * 2)]
        if right.ndim == 4:
            refusals += [right[:, :5], right[:, :, :2], right[..., :3], right.flatten()]
        for wrong in refusals:
            write_tensors(folder, save({**tensors, name: wrong.contiguous()}))
            assert "report.safetensors is corrupt (" in refused(folder)
        del tensors[name]
        write_tensors(folder, save(tensors))
        assert f"is corrupt (it must have '{name}' as " in refused(folder)

    @pytest.mark.parametrize(
        ("name", "place", "value", "reason"),
        [
            ("groups", -1, 15, r"'groups' must be ascending numbers in [0, 14]"),
            ("groups", 0, -1, "'groups' must be ascending"),
            ("groups", 1, 0, "'groups' must be ascending"),  # twice the same
            ("groups", 0, 9, "'groups' must be ascending"),
            ("count", 0, 0, "'count' must be positive"),
            ("count", 0, -4, "'count' must be positive"),
            ("count", 0, 10**6, "must be of the 60 explanations"),
            ("mean", (0, 0, 0, 0), torch.nan, "must be finite"),
            ("mean", (0, 1, 2, 3), -torch.inf, "must be finite"),
            ("squares", (0, 1, 2, 3), torch.inf, "must be finite"),
            ("squares", (0, 1, 2, 3), torch.nan, "must not be negative or NaN"),
            ("squares", (0, 1, 2, 3), -1e-9, "must not be negative or NaN"),
            ("weight_sample", 0, torch.nan, "'weight_sample' must be finite"),
        ],
    )
    def test_values(self, folder, name, place, value, reason):
        tensors = stored(folder)
        tensors[name][place] = value
        write_tensors(folder, save(tensors))
        text = refused(folder)
        assert "report.safetensors is corrupt (" in text
        assert reason in text

    def test_more_heads_than_any_machine_holds(self, folder):
        # A small file that would unfold into exabytes.
        tensors = stored(folder)
        wide = torch.zeros(0, 6, 10**6, 10**6, dtype=torch.float64)
        empty = torch.zeros(0, dtype=torch.int64)
        write_tensors(folder, save({**tensors, "groups": empty, "count": empty, "mean": wide, "squares": wide}))
        write_config(folder, lambda config: config["model"].update(num_layers=10**6, num_heads=10**6))
        assert "report.safetensors is corrupt (" in refused(folder)


class TestCards:
    def test_own_cards_are_brought_up_to_date(self, folder):
        before = (folder / "README.md").read_text()
        make_report(seed=1).save_pretrained(folder)
        after = (folder / "README.md").read_text()
        assert after != before
        (folder / "README.md").write_bytes(before.replace("\n", "\r\n").encode() + b"\r\n")  # as editors save it
        make_report(seed=1).save_pretrained(folder)
        assert (folder / "README.md").read_text() == after

    def test_cards_of_others_and_edited_ones_are_kept(self, folder):
        report, ours = make_report(seed=1), (folder / "README.md").read_bytes()
        for card in (b"# My own words\n", b"", b"\xff\xfe", b"<!-- Written by gmar_hf. -->\n", ours + b"More.\n"):
            (folder / "README.md").write_bytes(card)
            report.save_pretrained(folder)
            assert (folder / "README.md").read_bytes() == card
        assert_same(load(folder), report)
        report.save_pretrained(folder, overwrite_card=True)
        assert (folder / "README.md").read_text().startswith("---\n")


class TestSavesThatFail:
    def test_a_models_folder_is_left_as_it_is(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "vit"}')
        with pytest.raises(ArgumentError, match=r"holds config.json, which this version of gmar_hf has not written"):
            make_report().save_pretrained(tmp_path)
        assert contents(tmp_path) == {"config.json": b'{"model_type": "vit"}'}

    @pytest.mark.parametrize(
        ("step", "error", "over_an_older_one"),
        sample_product(range(6), [OSError("no"), KeyboardInterrupt()], [False, True]),
    )
    def test_config_is_not_there_without_the_rest(self, tmp_path, monkeypatch, step, error, over_an_older_one):
        folder, report = tmp_path / "report", make_report(seed=1)
        if over_an_older_one:
            make_report().save_pretrained(folder)
        replace, calls = os.replace, []

        def fail(*names):
            calls.append(names)
            if len(calls) > step:
                raise error
            replace(*names)

        monkeypatch.setattr(files.os, "replace", fail)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ArgumentError):
            report.save_pretrained(folder)
        monkeypatch.undo()
        assert not (folder / "config.json").exists()
        assert "got one without config.json" in refused(folder)
        assert not [path for path in folder.iterdir() if path.is_dir()]
        report.save_pretrained(folder)
        assert_same(load(folder), report)

    def test_a_full_disk_leaves_the_old_one(self, folder, monkeypatch):
        before = contents(folder)

        def fail(*args):
            raise OSError(28, "No space left on device")

        for name in ("png", "write_card", "_tensors_file"):
            monkeypatch.setattr(report_files, name, fail)
            with pytest.raises((ArgumentError, OSError)):
                make_report(seed=1).save_pretrained(folder)
            assert contents(folder) == before

    def test_places_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        for path, reason in ((tmp_path / "file", "a file"), (tmp_path / "file" / "in", "Not a directory")):
            with pytest.raises(ArgumentError) as caught:
                make_report().save_pretrained(path)
            assert str(caught.value) == (
                f"`save_directory` must be a folder that can be written; got {str(path)!r} ({reason}). Choose another."
            )
