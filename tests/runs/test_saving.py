"""What is done before an error leaves is saved, whoever raised it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

import gmar_hf
from gmar_hf import demo
from gmar_hf.errors import ArgumentError
from gmar_hf.surveys.survey_checkpoint import Part
from gmar_hf.surveys.survey_run import SurveyRun

NUM_IMAGES = 8


class Items(Dataset):
    """Noise; an error in the place of item 5, once it is asked for by the survey itself."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == 5 and self.error is not None:
            raise self.error
        return {"pixel_values": torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(index))}


@pytest.fixture(scope="module")
def vit():
    return demo.load("vit")[0]


def run(vit, data, folder):
    return gmar_hf.survey(vit, data, batch_size=2, save_every=20, output_dir=folder)


def done_in(folder) -> set[int]:
    (file,) = (folder / "checkpoints").iterdir()
    return Part.load(file).done


def test_an_item_that_raises(vit, tmp_path):
    error = ValueError("mine")
    with pytest.raises(ArgumentError, match=r"item 5 of 8 of the Items raised ValueError \(mine\)") as caught:
        run(vit, Items(error), tmp_path / "out")
    assert caught.value.__cause__ is error
    assert done_in(tmp_path / "out") == {0, 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("mine")])
def test_other_errors_while_a_batch_is_read(vit, tmp_path, monkeypatch, error):
    data = Items(None)
    open_folder = SurveyRun.open_folder

    def break_data(self, output):
        data.error = error  # from here on: nobody has looked at its items in vain
        return open_folder(self, output)

    monkeypatch.setattr(SurveyRun, "open_folder", break_data)
    with pytest.raises(type(error)):
        run(vit, data, tmp_path / "out")
    assert done_in(tmp_path / "out") == {0, 1}
    monkeypatch.undo()
    data.error = None
    assert run(vit, data, tmp_path / "out").num_images == NUM_IMAGES


@pytest.mark.parametrize(("error", "done"), [(RuntimeError("mine"), {0, 1}), (KeyboardInterrupt(), None)])
def test_errors_while_a_batch_is_worked_on(vit, tmp_path, error, done):
    """Ctrl-C at any moment may leave half of a batch in memory, which is then not written."""
    num_forwards = 0

    def count(module, args):
        nonlocal num_forwards
        num_forwards += 1
        if num_forwards == 3:
            raise error

    handle = vit.register_forward_pre_hook(count)
    with pytest.raises(type(error)):
        run(vit, Items(None), tmp_path / "out")
    handle.remove()
    assert (done_in(tmp_path / "out") if done else None) == done
    assert (tmp_path / "out").exists() == (done is not None)


def test_nothing_is_left_of_a_survey_that_has_done_nothing(vit, tmp_path):
    data = Items(ValueError("mine"))
    with pytest.raises(ArgumentError, match="item 5 of 8 of the Items"):
        gmar_hf.survey(vit, data, batch_size=6, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_error_of_saving_does_not_hide_the_first(vit, tmp_path, monkeypatch):
    def fail(self):
        raise ArgumentError("disk full")

    monkeypatch.setattr(SurveyRun, "save", fail)
    with pytest.raises(ArgumentError, match="item 5 of 8") as caught:
        run(vit, Items(ValueError("mine")), tmp_path / "out")
    assert "What was done before could not be saved: disk full" in caught.value.__notes__
