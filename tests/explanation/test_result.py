"""An explanation goes to a file and comes back as it was; any other file is refused in words."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gmar_hf
from gmar_hf import Explanation
from gmar_hf.errors import ArgumentError, ArgumentTypeError, ArtifactError
from gmar_hf.explanation.result import FORMAT
from tests.helpers import zoo

TENSORS = [field.name for field in dataclasses.fields(Explanation) if field.name != "settings"]


def assert_equal(actual: Explanation, expected: Explanation) -> None:
    for name in TENSORS:
        tensor, wanted = getattr(actual, name), getattr(expected, name)
        assert (tensor is None) == (wanted is None), name
        if wanted is not None:
            assert tensor.dtype == wanted.dtype, name
            assert torch.equal(tensor, wanted.cpu()), name
    assert actual.settings == expected.settings


class TestRoundTrip:
    @pytest.mark.parametrize(
        "method",
        ["gmar", "contribution", "removal", "path", "recommended", "rollout", "gradient-rollout", "attention"],
    )
    @pytest.mark.parametrize("name", ["vit", "siglip", "dinov2_registers"])
    def test_what_the_engine_makes(self, tmp_path, name, method):
        model = zoo.MODELS[name]()
        for number, kwargs in enumerate([{}, {"return_head_maps": True}, {"target": [[0, 1], [2, 3]]}]):
            explanation = gmar_hf.explain(model, zoo.pixel_values(model), method=method, **kwargs)
            path = tmp_path / f"{number}.safetensors"
            explanation.save(path)
            assert_equal(Explanation.load(path), explanation)
        # SigLIP has no prefix token: an empty tensor comes back as one.
        assert explanation.settings["method"] == method

    def test_one_storage_in_two_fields(self, tmp_path):
        # One layer of one head on one image: head maps and prefix tokens are two contiguous views of one storage.
        by_token = torch.arange(5.0).reshape(1, 1, 1, 5)
        views = {"head_maps": by_token[..., 1:].unflatten(-1, (2, 2)), "prefix_contribution": by_token[..., :1]}
        for explanation in (Explanation(by_token[0, 0], **views), Explanation(by_token[0, 0], readout=by_token[0, 0])):
            explanation.save(tmp_path / "one")
            assert_equal(Explanation.load(tmp_path / "one"), explanation)

    def test_none_and_settings(self, tmp_path):
        settings = {"method": "mine", "depth": [1, 2.5, None, True, {"ü": "é"}]}
        explanation = Explanation(torch.rand(2, 3), settings=settings)
        explanation.save(tmp_path / "few")
        loaded = Explanation.load(str(tmp_path / "few"))
        assert_equal(loaded, explanation)
        assert list(loaded.tensors()) == ["logits"]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_any_dtype_and_layout(self, tmp_path, dtype):
        wide = torch.rand(2, 4, 6).to(dtype)
        explanation = Explanation(
            logits=wide[:, 0],
            target=torch.tensor(3).expand(2),
            attribution=wide.transpose(1, 2),
            readout=wide.flatten(1).clone().requires_grad_(),
        )
        explanation.save(tmp_path / "wide")
        loaded = Explanation.load(tmp_path / "wide")
        assert_equal(loaded, dataclasses.replace(explanation, readout=explanation.readout.detach()))
        assert not loaded.readout.requires_grad

    def test_saving_leaves_the_tensors_alone(self, tmp_path):
        attribution = torch.rand(2, 4, 6).transpose(1, 2)
        explanation = Explanation(torch.zeros(2, 2), attribution=attribution)
        explanation.save(tmp_path / "it")
        assert explanation.attribution is attribution
        assert not attribution.is_contiguous()

    def test_versions_and_settings_stand_in_the_file(self, tmp_path):
        model = zoo.beit_relative()
        gmar_hf.explain(model, zoo.pixel_values(model), norm="l2").save(tmp_path / "it")
        with safe_open(tmp_path / "it", "pt") as file:
            header = json.loads(file.metadata()["gmar_hf"])
        settings = header["content"]
        assert (header["format"], header["format_version"]) == ("gmar_hf.explanation", 2)
        assert settings["norm"] == "l2"
        assert settings["model_class"] == "BeitForImageClassification"
        assert settings["model_dtype"] == "float32"
        assert settings["grid"] == {"prefix": 1, "rows": 3, "cols": 5}
        assert settings["patch_size"] == [8, 8]
        assert set(settings["versions"]) == {"gmar_hf", "torch", "transformers"}


class TestFrozen:
    def test_fields_cannot_be_set(self):
        explanation = Explanation(torch.zeros(1, 2))
        with pytest.raises(dataclasses.FrozenInstanceError):
            explanation.logits = torch.ones(1, 2)

    def test_comparison_is_by_identity(self):
        # Comparing tensors by == has no truth value.
        first, second = Explanation(torch.zeros(1, 2)), Explanation(torch.zeros(1, 2))
        assert first == first
        assert first != second
        assert len({first, second}) == 2


class TestFilesThatAreNone:
    @pytest.fixture
    def saved(self, tmp_path):
        path = tmp_path / "good.safetensors"
        Explanation(torch.zeros(1, 2), attribution=torch.zeros(1, 30, 30), settings={"a": 1}).save(path)
        return path

    def refused(self, path, words):
        with pytest.raises(ArtifactError, match=words):
            Explanation.load(path)

    def write(self, path, tensors, **header):
        """Write a file with a header of one's own."""
        header = {"format": "gmar_hf.explanation", "format_version": 2, "content": {}} | header
        save_file(tensors, path, metadata={"gmar_hf": json.dumps(header)})
        return path

    def test_missing(self, tmp_path):
        self.refused(tmp_path / "nowhere", r"`path` must be the file of an explanation; got '.*nowhere', which is no")
        self.refused(tmp_path, "which is no file")
        with pytest.raises(OSError, match="nowhere"):  # which an ArtifactError is
            Explanation.load(tmp_path / "nowhere")

    def test_truncated_and_noise(self, saved):
        content = saved.read_bytes()
        parts = [content[: int(len(content) * share)] for share in (0, 0.01, 0.1, 0.5, 0.99)]
        for broken in (*parts, os.urandom(500)):
            saved.write_bytes(broken)
            self.refused(saved, r"must be an explanation; it cannot be used .*Make it again")

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "gmar_hf.explanation"}])
    def test_foreign(self, saved, metadata):
        save_file({"logits": torch.zeros(1, 2)}, saved, metadata=metadata)
        self.refused(saved, r"must be an explanation; it is something else\. Make it again")

    def test_newer_version(self, saved):
        self.write(saved, {"logits": torch.zeros(1, 2)}, format_version=99)
        self.refused(saved, r"must have format version 2 to be read here; got 99\. Use the gmar_hf that wrote it")

    @pytest.mark.parametrize(
        "header", ["{", "{]", "[" * 100_000, json.dumps({"format": "gmar_hf.explanation", "format_version": 2})]
    )
    def test_headers_that_are_no_json_or_lack_settings(self, saved, header):
        save_file({"logits": torch.zeros(1, 2)}, saved, metadata={"gmar_hf": header})
        self.refused(saved, "cannot be used")

    def test_without_any_tensor_of_an_explanation(self, saved):
        self.refused(self.write(saved, {"shadow": torch.zeros(1, 2)}), "cannot be used")

    def test_tensors_it_does_not_know_are_left_out(self, saved):
        self.write(saved, {"logits": torch.zeros(1, 2), "shadow": torch.ones(1), "settings": torch.ones(1)})
        loaded = Explanation.load(saved)
        assert (list(loaded.tensors()), loaded.settings) == (["logits"], {})


GOOD = {
    "logits": torch.zeros(2, 5),
    "target": torch.tensor([[0, 4, 1], [2, 3, 0]]),
    "attribution": torch.zeros(2, 3, 4, 6),
    "head_importance": torch.zeros(2, 3, 7, 8),
    "head_score": torch.zeros(2, 3, 7, 8),
    "head_contribution": torch.zeros(2, 3, 7, 8),
    "head_contribution_centred": torch.zeros(2, 3, 7, 8),
    "head_maps": torch.zeros(2, 3, 7, 8, 4, 6),
    "prefix_contribution": torch.zeros(2, 3, 7, 8, 1),
    "readout": torch.zeros(2, 3, 25),
    "completeness_gap": torch.zeros(2, 3),
}


class TestFieldsThatAreOfNoExplanation:
    def refusal(self, tmp_path, tensors, settings):
        """What `load` says of a file with these, and `save` of an explanation, if it is asked to write such a file."""
        FORMAT.write(tmp_path / "it", settings, tensors)
        with pytest.raises(ArtifactError, match="must be an explanation; it cannot be used") as refused:
            Explanation.load(tmp_path / "it")
        if isinstance(settings, dict):
            with pytest.raises(ArgumentError) as unsaved:
                Explanation(**tensors, settings=settings).save(tmp_path / "unsaved")
            assert str(unsaved.value) in str(refused.value)
        assert not (tmp_path / "unsaved").exists()
        return str(refused.value)

    def test_all_of_them_together_are_taken(self, tmp_path):
        explanation = Explanation(**GOOD, settings={"grid": {"prefix": 1, "rows": 4, "cols": 6}})
        explanation.save(tmp_path / "it")
        assert_equal(Explanation.load(tmp_path / "it"), explanation)
        without_targets = {name: tensor if name == "logits" else tensor[:, 0].clone() for name, tensor in GOOD.items()}
        Explanation(**without_targets).save(tmp_path / "it")
        assert_equal(Explanation.load(tmp_path / "it"), Explanation(**without_targets))

    @pytest.mark.parametrize("name", TENSORS)
    def test_other_axes_and_sizes(self, tmp_path, name):
        tensor = GOOD[name]
        # Fewer images, an axis too many, one too few, no images; and another size of each further axis.
        others = [tensor[:1], tensor[..., None], tensor[0], tensor[:0]]
        for axis in range(1, tensor.ndim):
            if (name, axis) not in (("logits", 1), ("target", 1)):  # by which the others are known
                others += [torch.cat([tensor, tensor], dim=axis), tensor.narrow(axis, 0, 0)]
        for other in others:
            self.refusal(tmp_path, {**GOOD, name: other.contiguous()}, {})

    @pytest.mark.parametrize("name", TENSORS)
    def test_other_types_and_numbers(self, tmp_path, name):
        tensor = GOOD[name]
        others = [tensor.int(), tensor.bool()]
        others += (
            [tensor - 1, tensor + 1, tensor.double()] if name == "target" else [tensor.long(), tensor * torch.nan]
        )
        if name not in ("logits", "target"):
            others += [tensor - torch.inf]
        for other in others:
            assert f"`{name}` must hold" in self.refusal(tmp_path, {**GOOD, name: other}, {})

    @pytest.mark.parametrize(
        "settings",
        [
            None, [1], "text", 5,
            {"grid": [1, 2]}, {"grid": {"prefix": 1, "rows": 4}}, {"grid": {"prefix": 1, "rows": 6, "cols": 4}},
        ],
    )  # fmt: skip
    def test_settings_of_another_type_or_grid(self, tmp_path, settings):
        refusal = self.refusal(tmp_path, GOOD, settings)
        assert "`settings`" in refusal or "`attribution` must be of shape (batch 2, targets 3, rows 6, c" in refusal

    def test_settings_that_are_deep_or_not_finite(self, tmp_path):
        for settings in ('{"a":' * 100_000 + "1" + "}" * 100_000, '{"a": NaN}', '{"a": 1e999}'):
            header = f'{{"format": "gmar_hf.explanation", "format_version": 2, "content": {settings}}}'
            save_file({"logits": torch.zeros(1, 2)}, tmp_path / "it", metadata={"gmar_hf": header})
            with pytest.raises(ArtifactError, match="cannot be used"):
                Explanation.load(tmp_path / "it")

    @pytest.mark.parametrize("path", [5, None, b"it"])
    def test_a_path_that_is_none(self, path):
        with pytest.raises(ArgumentTypeError, match="`path` must be the file of an explanation; got "):
            Explanation.load(path)
        with pytest.raises(ArgumentTypeError, match=r"`path` must be a path, as a string or a `pathlib.Path`; got "):
            Explanation(torch.zeros(1, 2)).save(path)

    @pytest.mark.parametrize(
        ("explanation", "words"),
        [
            (Explanation(), "An explanation must hold some tensor; got none"),
            (Explanation(settings={"method": "gmar"}), "An explanation must hold some tensor; got none"),
            (Explanation(torch.zeros(1, 2), settings={"a": float("nan")}), "`settings` must hold plain .*JSON compl"),
            (Explanation(torch.zeros(1, 2), settings={"a": [object()]}), "`settings` must hold plain .*not JSON seri"),
            (Explanation(torch.zeros(1, 2), settings={"labels": {0: "cat"}}), "the key 0 is no string"),
            (Explanation(torch.zeros(1, 2), settings=None), "`settings` must be an object; got None"),
            (Explanation(torch.zeros(1, 2).numpy()), "`logits` must be a tensor; got ndarray"),
            (Explanation(torch.zeros(1, 2).to_sparse()), "`logits` must be a dense tensor"),
        ],
    )  # fmt: skip
    def test_what_load_would_refuse_or_change_is_not_saved(self, tmp_path, explanation, words):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=words):
            explanation.save(tmp_path / "it")
        assert os.listdir(tmp_path) == []


class TestPlacesThatCannotBeWritten:
    @pytest.mark.parametrize("place", ["missing/it.safetensors", "file/it.safetensors", "folder"])
    def test_words(self, tmp_path, place):
        (tmp_path / "file").write_text("text")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "inside").write_text("text")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ArgumentError, match="`path` must be a file that can be written; got "):
            Explanation(torch.zeros(1, 2)).save(tmp_path / place)
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_failure_leaves_the_old_file_and_no_half_one(self, tmp_path, monkeypatch):
        path = tmp_path / "it"
        old = Explanation(torch.zeros(1, 2))
        old.save(path)
        with pytest.raises(ArgumentError):
            Explanation(torch.ones(1, 2), settings={"model": object()}).save(path)
        with pytest.raises(ArgumentTypeError):
            Explanation(torch.ones(1, 2, device="meta")).save(path)
        assert_equal(Explanation.load(path), old)
        assert os.listdir(tmp_path) == ["it"]

        # A write that is interrupted, and then one that succeeds.
        def interrupted(file, content):
            with file.open("wb") as half:
                half.write(content[:10])
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(pathlib.Path, "write_bytes", interrupted)
            with pytest.raises(KeyboardInterrupt):
                Explanation(torch.ones(1, 2)).save(path)
        assert_equal(Explanation.load(path), old)
        Explanation(torch.ones(1, 2)).save(path)
        assert Explanation.load(path).logits.tolist() == [[1, 1]]
        assert os.listdir(tmp_path) == ["it"]
