"""Attention off transformers' interface: heard while a model is recorded, and the module's own before and after."""

import copy
import itertools
import threading
import warnings

import pytest
import torch

import gmar_hf
from gmar_hf.models.attention import recording
from gmar_hf.models.off_interface import has_reader
from gmar_hf.models.recorders import AttentionCall, Recorder
from tests.helpers import state, zoo

NAMES = ["data2vec_vision", "data2vec_vision_both_cls"]


class Notebook(Recorder):
    """Writes down every call."""

    def __init__(self) -> None:
        self.calls: list[AttentionCall] = []

    def prepare(self, call: AttentionCall) -> None:
        self.calls.append(call)


def logits(model, size=None, **kwargs) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values=zoo.pixel_values(model, size=size), **kwargs).logits


def attention_modules(model) -> list[torch.nn.Module]:
    return [module for module in model.modules() if has_reader(module)]


@pytest.mark.parametrize("name", NAMES)
def test_the_model_computes_the_same_whichever_implementation_it_was_born_with(name):
    model = zoo.MODELS[name]()
    eager = zoo.in_eager(model)
    assert type(attention_modules(model)[0]) is not type(attention_modules(eager)[0])
    for each in (model, eager):
        plain, book = logits(each), Notebook()
        with recording(each, book):
            torch.testing.assert_close(logits(each), plain)
        assert [call.module for call in book.calls] == attention_modules(each)
    ours, theirs = (gmar_hf.explain(each, zoo.pixel_values(each), 1) for each in (model, eager))
    assert torch.equal(ours.attribution, theirs.attribution)


def test_hiera_computes_the_same_while_it_is_recorded():
    """Tokens of all windows stand in an order of their own, queries are merged, and the module projects its output."""
    model, book = zoo.hiera(), Notebook()
    modules = [module for module in model.modules() if type(module).__name__ == "HieraMaskUnitAttention"]
    with torch.no_grad():
        own = model(pixel_values=zoo.pixel_values(model), output_attentions=True)
    with recording(model, book), torch.no_grad():
        torch.testing.assert_close(model(pixel_values=zoo.pixel_values(model)).logits, own.logits)
    assert [call.module for call in book.calls] == attention_modules(model) == modules
    # Two images of 8 x 12 patches in six windows, merged by the first layers of the second and the third stage.
    shapes = [(call.query.shape[:3], call.key.shape[2]) for call in book.calls]
    assert shapes == [((12, 1, 16), 16), ((12, 2, 4), 16), ((12, 2, 4), 4), ((12, 4, 1), 4)]
    with gmar_hf.retain_attention(model) as attentions, torch.no_grad():
        again = model(pixel_values=zoo.pixel_values(model), output_attentions=True)
    assert [each.shape[-2:] for each in attentions] == [(16, 16), (4, 16), (4, 4), (1, 4)]
    for ours, theirs in zip(again.attentions, own.attentions, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["pvt", "pvt_v2"])
def test_pvt_computes_the_same_while_it_is_recorded(name):
    model, book = zoo.STAGED[name](), Notebook()
    with torch.no_grad():
        own = model(pixel_values=zoo.pixel_values(model), output_attentions=True)
    with recording(model, book), torch.no_grad():
        again = model(pixel_values=zoo.pixel_values(model), output_attentions=True)
    torch.testing.assert_close(again.logits, own.logits)
    assert [call.module for call in book.calls] == attention_modules(model)
    with gmar_hf.retain_attention(model) as attentions, torch.no_grad():
        again = model(pixel_values=zoo.pixel_values(model), output_attentions=True)
    torch.testing.assert_close(again.attentions, own.attentions)
    returned = itertools.chain(*own.attentions) if name == "pvt_v2" else own.attentions  # v2 returns a tuple a stage
    torch.testing.assert_close(list(attentions), list(returned))


def test_hieras_encoder_alone():
    """It is given tokens, and nobody knows of what images."""
    model = zoo.hiera()
    tokens = torch.randn(2, 8 * 12, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.hiera.encoder(tokens).last_hidden_state
        with gmar_hf.silence_heads(model, [(0, 0)]):
            silenced = model.hiera.encoder(tokens).last_hidden_state
        with gmar_hf.silence_heads(model, []):
            torch.testing.assert_close(model.hiera.encoder(tokens).last_hidden_state, plain)
    assert (silenced - plain).abs().max() > 1e-3


def test_other_sizes():
    model, book = zoo.data2vec_vision(), Notebook()
    plain = logits(model, (48, 48))
    with recording(model, book):
        torch.testing.assert_close(logits(model, (48, 48)), plain)
    assert book.calls[0].query.shape[2] == 1 + 6 * 6
    assert gmar_hf.explain(model, zoo.pixel_values(model, size=(48, 48))).attribution.shape == (2, 6, 6)


def test_dropout_is_that_of_the_module():
    config = zoo.Data2VecVisionConfig(**zoo.NARROW, **zoo.SQUARE, attention_probs_dropout_prob=0.25)
    model = zoo.build(zoo.Data2VecVisionForImageClassification, config)
    for mode, dropout in ((model.train, 0.25), (model.eval, 0.0)):
        mode()
        with recording(model, book := Notebook()):
            logits(model)
        assert {call.dropout for call in book.calls} == {dropout}


class TestTheModuleIsAsItWas:
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_after_an_exception(self, error):
        model = zoo.data2vec_vision()
        before = state.snapshot(model)
        with pytest.raises(error), recording(model, Notebook()):
            raise error
        assert state.snapshot(model) == before

    def test_while_another_block_goes_on(self):
        model, books = zoo.data2vec_vision(), [Notebook(), Notebook()]
        before = state.snapshot(model)
        first, second = recording(model, books[0]), recording(model, books[1])
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)  # blocks may end in any order
        logits(model)
        second.__exit__(None, None, None)
        assert ([len(book.calls) for book in books], state.snapshot(model)) == ([0, 3], before)

    def test_in_another_thread(self):
        model, book, others = zoo.data2vec_vision(), Notebook(), []
        plain = logits(model)
        with recording(model, book):
            thread = threading.Thread(target=lambda: others.append(logits(model)))
            thread.start()
            thread.join()
        assert book.calls == []
        assert torch.equal(others[0], plain)

    def test_in_a_copy_that_was_made_inside(self):
        model, book = zoo.data2vec_vision(), Notebook()
        plain = logits(model)
        with recording(model, book):
            twin = copy.deepcopy(model)
            assert torch.equal(logits(twin), plain)
        assert book.calls == []
        with torch.no_grad():
            model.classifier.weight.mul_(2)
            attention_modules(model)[0].value.weight.zero_()
        assert torch.equal(logits(twin), plain)
        with recording(twin, book):
            logits(twin)
        assert [call.module for call in book.calls] == attention_modules(twin)


def test_a_forward_of_somebody_else_is_not_replaced():
    model = zoo.data2vec_vision()
    module = attention_modules(model)[1]
    own = module.forward
    module.forward = lambda *args, **kwargs: (2 * own(*args, **kwargs)[0], None)
    with pytest.raises(gmar_hf.UnsupportedModelError, match="2 of the 3 layers in its config go through"):
        gmar_hf.explain(model, zoo.pixel_values(model))

    class Quiet(type(module)):
        """A subclass may attend otherwise."""

    del module.forward
    module.__class__ = Quiet
    assert not has_reader(module)
    with pytest.raises(gmar_hf.UnsupportedModelError, match="2 of the 3 layers in its config go through"):
        gmar_hf.explain(model, zoo.pixel_values(model))


def test_inside_the_hooks_of_accelerate():
    from accelerate import cpu_offload

    model = zoo.data2vec_vision()
    pixels = zoo.pixel_values(model)
    expected = gmar_hf.explain(model, pixels, 1, method="recommended")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cpu_offload(model, execution_device=torch.device("cpu"))
        forwards = [vars(module).get("_old_forward") for module in model.modules()]
        found = gmar_hf.explain(model, pixels, 1, method="recommended")
    assert torch.equal(found.attribution, expected.attribution)
    assert [vars(module).get("_old_forward") for module in model.modules()] == forwards
