"""A run of a model that somebody changes between two batches ends in words, and keeps what it had before."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.utils.data import Dataset

import gmar_hf
from gmar_hf import demo
from gmar_hf.errors import ArgumentError
from gmar_hf.runs.unchanged_model import UnchangedModel


class Meddling(Dataset):
    """Noise; when item 4 is asked for by the run itself, something happens to the model."""

    def __init__(self, meddle):
        self.meddle, self.num_read = meddle, 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.num_read += 1
        if index == 4 and self.num_read > 2 * len(self):  # data are known by two readings of their items
            self.meddle()
        return {"pixel_values": torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(index))}


def train(model):
    with torch.no_grad():
        model.classifier.weight.add_(0.01)


def overwrite(model):
    model.classifier.weight.data = model.classifier.weight.data * 2


def replace(model):
    model.classifier.weight = torch.nn.Parameter(model.classifier.weight.detach() * 2)


def survey(model, data, folder):
    return gmar_hf.survey(model, data, batch_size=2, output_dir=folder)


def evaluate(model, data, folder):
    kwargs = {"methods": ["contribution"], "metrics": ["sparseness"], "batch_size": 2}
    return gmar_hf.evaluate(model, data, output_dir=folder, **kwargs)


@pytest.mark.parametrize("change", [train, overwrite, replace])
def test_weights(tmp_path, change):
    model, _ = demo.load("vit")
    with pytest.raises(ArgumentError, match="`model` must stay the same during a whole survey; its weights "):
        survey(model, Meddling(lambda: change(model)), tmp_path)
    assert not (tmp_path / "checkpoints").exists()  # nothing is written by which a model could be mistaken


@pytest.mark.parametrize("ask", [survey, pytest.param(evaluate, marks=pytest.mark.slow)])
def test_silenced_heads(tmp_path, ask):
    model, _ = demo.load("vit")
    with contextlib.ExitStack() as stack:
        data = Meddling(lambda: stack.enter_context(gmar_hf.silence_heads(model, [(1, 2)])))
        with pytest.raises(ArgumentError) as caught:
            ask(model, data, tmp_path)
    noun = "survey" if ask is survey else "evaluation"
    assert str(caught.value) == (
        f"`model` must stay the same during a whole {noun}; it had no silenced heads and no adapters, and has "
        "silenced heads 1.2 (layer.head) now. Let no data set, callback or thread change it, or hand over a copy "
        "(`copy.deepcopy`)."
    )


# peft 0.21 still calls a method that transformers 5.20 renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(demo.load("vit")[0], peft.LoraConfig(target_modules=["q_proj"], r=2))
    model.add_adapter("other", peft.LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(ArgumentError, match=r"it had adapters default .*, and has adapters other"):
        survey(model, Meddling(lambda: model.set_adapter("other")), tmp_path)


def test_what_a_forward_does_is_no_change():
    model, _ = demo.load("vit")
    unchanged = UnchangedModel(model, "survey")
    for _ in range(2):
        unchanged.check()
        gmar_hf.explain(model, torch.randn(1, 3, 64, 64))
    model.train()  # a survey takes models in eval mode meanwhile, whatever they are in
    unchanged.check()
