"""Borrowed flags come back, whoever else holds them."""

from __future__ import annotations

import copy
import pickle
import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import gmar_hf
from gmar_hf.errors import ArgumentError
from gmar_hf.models.freezing import Borrowed, frozen, full_precision, gradients_on, weights_at_rest
from tests.helpers import zoo
from tests.helpers.threads import in_threads


class Lamp:
    """Something with one switch, which counts how often it is used."""

    def __init__(self, *, lit: bool = False, breaks: bool = False) -> None:
        self.lit = lit
        self.breaks = breaks
        self.num_changes = 0

    def light(self):
        if self.breaks:
            raise RuntimeError("broken lamp")
        was = self.lit
        self.lit = True
        self.num_changes += 1

        def undo():
            self.lit = was
            self.num_changes += 1

        return undo


@contextmanager
def crossed(first, second):
    """Two blocks of which the first ends before the second; the body runs between their ends."""
    first.__enter__()
    with second:
        first.__exit__(None, None, None)
        yield


@pytest.fixture
def lit() -> Borrowed:
    return Borrowed(Lamp.light)


class TestBorrowed:
    def test_changes_and_puts_back(self, lit):
        lamp = Lamp()
        with lit.hold([lamp]):
            assert lamp.lit
        assert not lamp.lit
        assert lamp.num_changes == 2
        assert not lit._held  # nothing is remembered

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_puts_back_after_an_exception(self, lit, error):
        lamp = Lamp()
        with pytest.raises(error), lit.hold([lamp]):
            raise error
        assert not lamp.lit

    def test_nested_holds_change_once(self, lit):
        lamp = Lamp()
        with lit.hold([lamp]):
            with lit.hold([lamp]):
                assert lamp.lit
            assert lamp.lit
        assert not lamp.lit
        assert lamp.num_changes == 2

    def test_the_last_to_leave_puts_back_in_any_order(self, lit):
        lamp = Lamp()
        with crossed(lit.hold([lamp]), lit.hold([lamp])):
            assert lamp.lit
        assert not lamp.lit

    def test_one_thing_twice_in_a_hold(self, lit):
        lamp = Lamp()
        with lit.hold([lamp, lamp]):
            assert lamp.lit
        assert not lamp.lit

    def test_overlapping_holds(self, lit):
        a, b, c = Lamp(), Lamp(), Lamp()
        with lit.hold([a, b]):
            with lit.hold([b, c]):
                assert [lamp.lit for lamp in (a, b, c)] == [True, True, True]
            assert [lamp.lit for lamp in (a, b, c)] == [True, True, False]
        assert [lamp.lit for lamp in (a, b, c)] == [False, False, False]

    def test_what_was_taken_before_a_failure_is_put_back(self, lit):
        lamps = [Lamp(), Lamp(), Lamp(breaks=True), Lamp()]
        with pytest.raises(RuntimeError, match="broken lamp"), lit.hold(lamps):
            raise AssertionError("not reached")
        assert not any(lamp.lit for lamp in lamps)
        assert not lit._held

    def test_threads(self, lit):
        lamp = Lamp()
        seen = []

        def work():
            for _ in range(200):
                with lit.hold([lamp]):
                    seen.append(lamp.lit)

        in_threads(*[work] * 4)
        assert len(seen) == 800
        assert all(seen)
        assert not lamp.lit


class TestFrozen:
    def flags(self, model: nn.Module) -> list[bool]:
        return [module.training for module in model.modules()] + [p.requires_grad for p in model.parameters()]

    def test_mixed_flags_come_back(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
        model[1].training = False
        model[0].bias.requires_grad_(False)
        before = self.flags(model)
        with frozen(model):
            assert not any(module.training for module in model.modules())
        assert self.flags(model) == before

    def test_parameters_are_constants_that_share_their_memory(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
        first = next(model.parameters())
        with frozen(model), frozen(model):
            assert isinstance(model[0].weight, nn.Parameter)
            assert not model[0].weight.requires_grad
            assert not model(torch.ones(1, 2)).requires_grad
            with torch.no_grad():
                first.fill_(3)
            assert (model[0].weight == 3).all()
            assert first.requires_grad
        assert model[0].weight is first
        assert model(torch.ones(1, 2)).requires_grad

    def test_a_forward_keeps_no_inputs_for_weights(self):
        model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]).eval()
        kept = []
        with frozen(model), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            model(torch.ones(5, 4, requires_grad=True))
        assert all(tensor.shape == (4, 4) for tensor in kept)

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_a_copy_made_inside_is_like_any_other(self, copied):
        model = nn.Linear(2, 2)
        with frozen(model):
            twin = copied(model)
        assert twin.weight.requires_grad
        assert twin(torch.ones(1, 2)).requires_grad

    def test_flags_set_inside(self):
        model = nn.Linear(2, 2).eval()
        with frozen(model):
            model.train()
            model.requires_grad_(False)
            model.requires_grad_(True)
        assert self.flags(model) == [False, True, True]

    def test_parameters_put_in_place_of_others_inside(self):
        # accelerate does so with offloaded weights, and copies the flag that it finds.
        model = nn.Linear(2, 2)
        model.bias.requires_grad_(False)
        with frozen(model):
            model.weight = nn.Parameter(torch.zeros(2, 2), requires_grad=model.weight.requires_grad)
            model.bias = nn.Parameter(torch.zeros(2), requires_grad=model.bias.requires_grad)
        assert self.flags(model) == [True, True, False]

    def test_a_parameter_of_two_modules(self):
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        second.weight = first.weight
        with crossed(frozen(nn.Sequential(first, second)), frozen(second)):
            pass
        assert self.flags(nn.Sequential(first, second)) == [True] * 6

    def test_two_models_that_share_a_module(self):
        shared = nn.Dropout()
        first, second = nn.Sequential(shared), nn.Sequential(shared)
        with crossed(frozen(first), frozen(second)):
            # The second is still at work: a dropout that wakes up under it would change its figures.
            assert not shared.training
            assert first.training
        assert shared.training
        assert second.training

    def test_gradients_are_left_alone(self):
        model = nn.Linear(2, 2)
        model.weight.grad = torch.ones(2, 2)
        gradient = model.weight.grad
        with frozen(model):
            model(torch.ones(1, 2, requires_grad=True)).sum().backward()
        assert model.weight.grad is gradient
        assert (gradient == 1).all()
        assert model.bias.grad is None


class Pause:
    """A score that waits in the midst of an explanation until somebody has done something."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        self.begun.set()
        assert self.over.wait(timeout=60)
        return logits[:, 0]

    @contextmanager
    def inside(self):
        """A block that begins when somebody waits, who goes on after it."""
        try:
            assert self.begun.wait(timeout=60)
            yield
        finally:
            self.over.set()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("explain", [gmar_hf.explain, gmar_hf.describe_heads])
def test_another_thread_loses_no_gradient(explain, training):
    model = zoo.vit().train(training)  # without dropout
    pixels, pause = zoo.pixel_values(model), Pause()

    def backward() -> None:
        model(pixel_values=pixels).logits.square().sum().backward()

    def gradients() -> list[torch.Tensor]:
        found = [parameter.grad for parameter in model.parameters()]
        model.zero_grad()
        return found

    backward()
    expected = gradients()
    of_earlier_graph, of_new_graph = [], []

    def learn() -> None:
        loss = model(pixel_values=pixels).logits.square().sum()
        with pause.inside():
            loss.backward()
            of_earlier_graph.extend(gradients())
            backward()
            of_new_graph.extend(gradients())

    in_threads(learn, lambda: explain(model, pixels, target=pause))
    torch.testing.assert_close(of_earlier_graph, expected)
    torch.testing.assert_close(of_new_graph, expected)


def test_what_is_explained_beside_another_thread_is_the_same():
    model = zoo.vit().train()
    pixels, pause = zoo.pixel_values(model), Pause()
    alone = gmar_hf.describe_heads(model, pixels, target=lambda logits: logits[:, 0])
    beside = []

    def forward() -> None:
        with pause.inside():
            model(pixel_values=pixels)

    in_threads(forward, lambda: beside.append(gmar_hf.describe_heads(model, pixels, target=pause)))
    torch.testing.assert_close(beside[0].direct_effect, alone.direct_effect)


class TestWeightsAtRest:
    def test_changes_are_refused(self):
        model = nn.Linear(2, 2)
        with weights_at_rest(model):
            model(torch.ones(2))
        words = "`model` must keep its weights while it is explained"
        with pytest.raises(ArgumentError, match=words), weights_at_rest(model), torch.no_grad():
            model.weight.mul_(2)

    def test_they_explain_an_error_that_follows_from_them_and_no_other(self):
        model = nn.Linear(2, 2)

        def step():
            output = (model(torch.ones(2, requires_grad=True)) ** 2).sum()
            torch.optim.SGD(model.parameters(), lr=1.0).step()  # without gradients: nothing is changed yet
            with torch.no_grad():
                model.weight.add_(1)
            output.backward()

        with pytest.raises(ArgumentError, match="they were changed meanwhile") as refused, weights_at_rest(model):
            step()
        assert "modified by an inplace operation" in str(refused.value.__cause__)
        with pytest.raises(RuntimeError, match="of another kind"), weights_at_rest(model):
            raise RuntimeError("of another kind")


def test_training_in_another_thread_goes_on_while_explaining_says_what_is_wrong():
    model = zoo.vit().train()
    pixels = zoo.pixel_values(model)
    losses, refusals = [], []
    is_over, has_begun = threading.Event(), threading.Event()

    def train():
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        try:
            while not is_over.is_set():
                optimizer.zero_grad()
                loss = model(pixel_values=pixels, labels=torch.zeros(len(pixels), dtype=torch.long)).loss
                loss.backward()
                assert all(parameter.grad is not None for parameter in model.classifier.parameters())
                optimizer.step()
                losses.append(loss.item())
                has_begun.set()
        finally:
            has_begun.set()

    def explain():
        has_begun.wait()
        try:
            for _ in range(200):
                before = len(losses)
                try:
                    gmar_hf.explain(model, pixels, method="contribution")
                except ArgumentError as error:
                    refusals.append(str(error))
                if len(losses) > before + 1 and refusals:
                    return
        finally:
            is_over.set()

    in_threads(train, explain)
    assert len(losses) > 1
    assert refusals
    assert all("Explain between two steps" in refusal for refusal in refusals)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


class TestModes:
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_gradients_on(self, mode):
        with mode():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            with gradients_on():
                square = torch.ones(1, requires_grad=True) ** 2
                square.backward()
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before

    def test_full_precision(self):
        matrix = torch.rand(4, 4)
        with torch.autocast("cpu", torch.bfloat16):
            with full_precision(matrix.device):
                assert (matrix @ matrix).dtype == torch.float32
            assert (matrix @ matrix).dtype == torch.bfloat16
