"""Heads taken out, against zeros and means in the inputs of the output projections, one head at a time."""

import functools
import threading

import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, ArgumentTypeError, NonFiniteError, UnsupportedModelError
from gmar_hf.metrics import Curve, HeadAblation, ablation_curve, head_ablation, random_ablation_curve
from tests.helpers import zoo
from tests.helpers.sampling import sample_product
from tests.helpers.state import make_uneven, snapshot

# peft 0.21 still calls a method that transformers 5.20 renamed.
OLD_NAMES_IN_PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
FUNCTIONS = {"logit": lambda logits: logits, "sigmoid": torch.sigmoid, "softmax": lambda logits: logits.softmax(-1)}


def shape_of(model):
    """Return (layers, heads)."""
    config = zoo.vision_config(model)
    return config.num_hidden_layers, config.num_attention_heads


def logits(model, pixel_values, **kwargs):
    with torch.no_grad():
        return model(pixel_values=pixel_values, **kwargs).logits


def hooked(model, pixel_values, hooks):
    """Return the logits with a function on the input (batch, tokens, heads * head_dim) of each output projection."""
    projections = [
        module
        for path, module in model.named_modules()
        if path.endswith((".o_proj", ".out_proj", "attention.output.dense")) and ".head." not in path
    ]
    assert len(projections) == shape_of(model)[0]

    handles = [
        projection.register_forward_pre_hook(lambda module, inputs, change=change: (change(inputs[0].clone()),))
        for projection, change in zip(projections, hooks, strict=True)
    ]
    try:
        return logits(model, pixel_values)
    finally:
        for handle in handles:
            handle.remove()


def without(model, pixel_values, heads, ablation="zero"):
    """Return the logits (batch, classes) without these heads, by hooks: one forward, nothing batched or left out."""
    num_layers, num_heads = shape_of(model)
    means = [None] * num_layers  # (tokens, heads * head_dim) of the whole model

    def keep(layer, hidden):
        means[layer] = sum(hidden) / len(hidden)
        return hidden

    def silence(layer, hidden):
        width = hidden.shape[-1] // num_heads
        for head in [head for place, head in heads if place == layer]:
            part = slice(head * width, (head + 1) * width)
            hidden[..., part] = 0 if ablation == "zero" else means[layer][:, part]
        return hidden

    hooked(model, pixel_values, [functools.partial(keep, layer) for layer in range(num_layers)])
    return hooked(model, pixel_values, [functools.partial(silence, layer) for layer in range(num_layers)])


class TestAblation:
    @pytest.mark.parametrize(("name", "ablation"), sample_product(sorted(zoo.MODELS), ["zero", "mean"]))
    def test_equals_a_loop_with_hooks(self, name, ablation):
        model = zoo.MODELS[name]().double()
        images = zoo.pixel_values(model, batch=3)
        target = torch.tensor([0, 4, 2])
        num_layers, num_heads = shape_of(model)
        found = head_ablation(model, images, target, ablation=ablation).change
        assert found.shape == (3, num_layers, num_heads)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        whole = logits(model, images)
        for layer in range(num_layers):
            for head in range(num_heads):
                change = whole - without(model, images, [(layer, head)], ablation)
                expected = change[torch.arange(3), target]
                assert expected.abs().max() > 1e-3
                torch.testing.assert_close(found[:, layer, head], expected.float(), rtol=1e-5, atol=1e-7)

    def test_masks_of_the_batch(self):
        model = zoo.vit()
        images = zoo.pixel_values(model, batch=2)
        mask = torch.ones(2, 17)
        mask[0, -3:] = 0
        batch = head_ablation(model, images, [1, 2], attention_mask=mask).change
        loop = [
            head_ablation(model, images[row : row + 1], [row + 1], attention_mask=mask[row : row + 1]).change
            for row in range(2)
        ]
        torch.testing.assert_close(batch, torch.cat(loop))

    def test_the_sign(self):
        """All that the classifier reads comes through the only head, so by hand: it spoke for class 1, against 0."""
        config = zoo.ViTConfig(
            hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, image_size=8, patch_size=8
        )
        model = zoo.ViTForImageClassification(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.zero_()
                if "layernorm" in name and name.endswith("weight"):
                    parameter.fill_(1)
            # The head's output is the same for every image: the bias of the values, which no bias of o_proj follows.
            layer = model.vit.layers[0].attention
            layer.v_proj.bias.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0]))
            layer.o_proj.weight.copy_(torch.eye(4))
            model.classifier.weight[1, 0] = 0.5
            model.classifier.weight[0, 0] = -2
        found = head_ablation(model, torch.zeros(1, 3, 8, 8), 1)
        assert found.change.item() == pytest.approx(0.5, abs=1e-5)  # the layer norm makes (1, -1, 1, -1) of it again
        assert head_ablation(model, torch.zeros(1, 3, 8, 8), 0).change.item() == pytest.approx(-2, abs=1e-5)

    @pytest.mark.parametrize("max_rows", [1, 3, 5, 6, 9, 10_000])
    def test_max_rows_bounds_what_the_model_sees(self, max_rows):
        model = zoo.vit()
        images = zoo.pixel_values(model, batch=3)
        expected = head_ablation(model, images, 1)
        rows = []
        hook = model.classifier.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
        found = head_ablation(model, images, 1, max_rows=max_rows)
        hook.remove()
        torch.testing.assert_close(found.change, expected.change, rtol=1e-4, atol=1e-6)
        assert max(rows) <= max(3, max_rows)
        assert sum(rows) == 3 * (1 + 3 * 3)

    def test_lower_layers_are_not_computed_again(self):
        model = zoo.vit_landscape()
        images = zoo.pixel_values(model, batch=2)
        rows = [[], [], []]
        for layer, sizes in zip(model.vit.layers, rows, strict=True):
            layer.mlp.register_forward_pre_hook(lambda module, inputs, sizes=sizes: sizes.append(len(inputs[0])))
        head_ablation(model, images, 1)
        # One batch of 2 with all heads; then for each layer 2 rows below it, and 2 for each of the 4 heads from it on.
        assert [sum(sizes) for sizes in rows] == [2 + 8 + 2 + 2, 2 + 8 + 8 + 2, 2 + 8 + 8 + 8]

    def test_batch_equals_loop(self):
        model = zoo.beit_relative()
        images = zoo.pixel_values(model, batch=3)
        together = head_ablation(model, images, [0, 1, 2]).change
        alone = [head_ablation(model, images[index : index + 1], [index]).change for index in range(3)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)

    def test_targets(self):
        model = zoo.vit()
        images = zoo.pixel_values(model, batch=3)
        predicted = logits(model, images).argmax(-1)
        expected = head_ablation(model, images, predicted).change
        assert torch.equal(head_ablation(model, images).change, expected)
        assert torch.equal(head_ablation(model, images, predicted.tolist()).change, expected)
        assert torch.equal(head_ablation(model, images, 2).change, head_ablation(model, images, [2, 2, 2]).change)

    def test_half_precision(self):
        model = zoo.vit().bfloat16()
        found = head_ablation(model, zoo.pixel_values(model), 1).change
        assert found.dtype == torch.float32
        expected = head_ablation(zoo.vit(), zoo.pixel_values(zoo.vit()), 1).change
        assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99

    def test_another_image_size(self):
        model = zoo.vit()
        images = zoo.pixel_values(model, size=(40, 24))
        found = head_ablation(model, images, 1, interpolate_pos_encoding=True).change
        whole = logits(model, images, interpolate_pos_encoding=True)
        with gmar_hf.silence_heads(model, [(1, 2)]):
            rest = logits(model, images, interpolate_pos_encoding=True)
        torch.testing.assert_close(found[:, 1, 2], (whole - rest)[:, 1], rtol=1e-4, atol=1e-6)

    def test_other_lists_of_modules(self):
        model = zoo.vit()
        images = zoo.pixel_values(model)
        expected = head_ablation(model, images, 1).change
        model.vit.embeddings.adapters = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
        model.adapters = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
        assert torch.equal(head_ablation(model, images, 1).change, expected)

    @OLD_NAMES_IN_PEFT
    def test_peft(self):
        from peft import LoraConfig, get_peft_model

        base = zoo.siglip()
        images = zoo.pixel_values(base)
        wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        zoo.perturb(wrapped, seed=5, std=0.1)
        before = snapshot(wrapped)
        found = head_ablation(wrapped, images, 1).change
        assert snapshot(wrapped) == before
        with gmar_hf.silence_heads(wrapped, [(2, 3)]):
            rest = logits(wrapped.eval(), images)
        torch.testing.assert_close(found[:, 2, 3], (logits(wrapped, images) - rest)[:, 1], rtol=1e-4, atol=1e-5)


class TestTheModel:
    @pytest.mark.parametrize("name", sorted(zoo.MODELS))
    def test_is_as_it_was(self, name):
        model = zoo.MODELS[name]()
        make_uneven(model)
        images = zoo.pixel_values(model)
        before, pixels = snapshot(model), images.clone()
        head_ablation(model, images, 1, ablation="mean")
        ablation_curve(model, images, 1, torch.rand(2, *shape_of(model), generator=torch.Generator()), num_steps=2)
        random_ablation_curve(model, images, 1, num_orders=2, num_steps=2)
        assert snapshot(model) == before
        assert torch.equal(images, pixels)

    def test_is_as_it_was_after_an_exception(self):
        model = zoo.vit()
        make_uneven(model)
        images = zoo.pixel_values(model)
        calls = []

        def fail(module, inputs):
            calls.append(module)
            if len(calls) == 3:
                raise ZeroDivisionError

        hook = model.classifier.register_forward_pre_hook(fail)
        before = snapshot(model)
        with pytest.raises(ZeroDivisionError):
            head_ablation(model, images, 1)
        assert snapshot(model) == before
        hook.remove()

    def test_answers_other_threads_with_every_head(self, vit):
        model, images = vit
        expected = logits(model, images)
        seen = []

        def ask(module, inputs):
            if threading.current_thread() is threading.main_thread():
                thread = threading.Thread(target=lambda: seen.append(logits(model, images)))
                thread.start()
                thread.join()

        hook = model.vit.layernorm.register_forward_pre_hook(ask)
        head_ablation(model, images, 1)
        hook.remove()
        assert len(seen) == 4
        for one in seen:
            torch.testing.assert_close(one, expected)


class TestCorrelation:
    # Two layers of three heads.
    CHANGE = torch.tensor([[[3.0, 1.0, 2.0], [-5.0, -1.0, 0.0]]])

    def test_by_hand(self):
        scores = torch.tensor([[[30.0, 10.0, 20.0], [-1.0, -2.0, -3.0]]])
        # Ranks of the change 6 4 5 1 2 3, of the scores 6 4 5 3 2 1: 1 - 6 * 8 / (6 * 35).
        found = HeadAblation(self.CHANGE).correlation(scores)
        assert found.overall.item() == pytest.approx(1 - 48 / 210)
        assert found.within_layers.item() == pytest.approx((1 + -1) / 2)
        assert found.overall.dtype == torch.float32

    def test_magnitude_by_hand(self):
        # Magnitudes 3 1 2 | 5 1 0, ranks 5 2.5 4 | 6 2.5 1; of the scores 4 3 2 | 9 5 0, ranks 4 3 2 | 6 5 1.
        scores = torch.tensor([[[-4.0, 3.0, 2.0], [9.0, -5.0, 0.0]]])
        found = HeadAblation(self.CHANGE).correlation(scores, magnitude=True)
        # Centred 1.5 -1 .5 2.5 -1 -2.5 and .5 -.5 -1.5 2.5 1.5 -2.5: products 11.5; squares 17 and 17.5.
        assert found.overall.item() == pytest.approx(11.5 / (17 * 17.5) ** 0.5)
        assert found.within_layers.item() == pytest.approx((0.5 + 1) / 2)

    def test_images_stay_apart(self):
        generator = torch.Generator().manual_seed(0)
        change, scores = torch.randn(2, 4, 3, 5, generator=generator)
        together = HeadAblation(change).correlation(scores)
        for index in range(4):
            alone = HeadAblation(change[index : index + 1]).correlation(scores[index : index + 1])
            torch.testing.assert_close(together.overall[index : index + 1], alone.overall)
            torch.testing.assert_close(together.within_layers[index : index + 1], alone.within_layers)

    def test_layers_without_an_order_are_left_out(self):
        scores = torch.tensor([[[3.0, 1.0, 2.0], [0.1, 0.1, 0.1]]])
        assert HeadAblation(self.CHANGE).correlation(scores).within_layers.item() == pytest.approx(1)
        found = HeadAblation(self.CHANGE).correlation(torch.ones(1, 2, 3))
        assert found.overall.isnan().item()
        assert found.within_layers.isnan().item()

    def test_errors(self):
        ablation = HeadAblation(self.CHANGE)
        with pytest.raises(ArgumentError, match=r"`head_scores` must be of shape \(1, 2, 3\) .* got \(1, 3, 2\)"):
            ablation.correlation(torch.ones(1, 3, 2))
        with pytest.raises(ArgumentError, match="`head_scores` must be finite"):
            ablation.correlation(torch.full((1, 2, 3), torch.nan))
        with pytest.raises(ArgumentTypeError, match=r"`head_scores` must be a tensor .* got NoneType"):
            ablation.correlation(None)


class TestCurve:
    @pytest.mark.parametrize(
        ("first", "ablation", "function"), sample_product([True, False], ["zero", "mean"], sorted(FUNCTIONS))
    )
    def test_equals_a_loop_with_hooks(self, first, ablation, function):
        model = zoo.vit_landscape().double()
        images = zoo.pixel_values(model, batch=2)
        scores = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
        options = dict(most_important_first=first, function=function, ablation=ablation, max_rows=5)
        curve = ablation_curve(model, images, [1, 3], scores, **options)
        assert isinstance(curve, Curve)
        assert curve.scores.dtype == torch.float32
        torch.testing.assert_close(curve.shares, torch.arange(13) / 12)
        for image, target in enumerate([1, 3]):
            order = sorted(range(12), key=lambda head: scores[image].flatten()[head].item(), reverse=first)
            for count in range(13):
                heads = [divmod(head, 4) for head in order[:count]]
                # Both images lose these heads, which is nothing to the other: means are of the whole model.
                expected = FUNCTIONS[function](without(model, images, heads, ablation))[image, target]
                assert curve.scores[image, count].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)

    @pytest.mark.parametrize(("num_steps", "counts"), [(1, [0, 9]), (2, [0, 4, 9]), (4, [0, 2, 4, 7, 9])])
    def test_steps(self, vit, num_steps, counts):
        model, images = vit
        scores = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
        every = ablation_curve(model, images, 1, scores)
        some = ablation_curve(model, images, 1, scores, num_steps=num_steps)
        torch.testing.assert_close(some.shares, torch.tensor(counts) / 9)
        torch.testing.assert_close(some.scores, every.scores[:, counts], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(every.scores[:, 0], logits(model, images)[:, 1])

    def test_equal_scores_go_layer_by_layer(self, vit):
        model, images = vit
        falling = -torch.arange(9.0).view(1, 3, 3).expand(2, 3, 3)
        for first in (True, False):
            equal = ablation_curve(model, images, 1, torch.ones(2, 3, 3), most_important_first=first)
            torch.testing.assert_close(equal.scores, ablation_curve(model, images, 1, falling).scores)

    @pytest.mark.slow
    def test_contributions_order_the_demo_models_heads(self, demo_batch):
        model, images, target, _ = demo_batch("vit")
        scores = gmar_hf.explain(model, images, target, return_maps=False).head_contribution
        options = dict(num_steps=8, function="sigmoid")
        falling = ablation_curve(model, images, target, scores, **options).auc
        rising = ablation_curve(model, images, target, scores, most_important_first=False, **options).auc
        by_chance = random_ablation_curve(model, images, target, num_orders=2, **options).auc
        assert falling.mean() < by_chance.mean() < rising.mean()


class TestRandomCurve:
    def test_is_the_mean_over_orders(self, vit):
        model, images = vit
        found = random_ablation_curve(model, images, 1, num_orders=3, seed=7, num_steps=3)
        generator = torch.Generator().manual_seed(7)
        curves = [
            ablation_curve(model, images, 1, torch.rand(2, 3, 3, generator=generator), num_steps=3) for _ in range(3)
        ]
        torch.testing.assert_close(found.scores, torch.stack([curve.scores for curve in curves]).mean(0))
        torch.testing.assert_close(found.shares, curves[0].shares)

    def test_seeds(self, vit):
        model, images = vit
        torch.manual_seed(5)
        one, same, other = (random_ablation_curve(model, images, seed=seed).scores for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        ends = [0, -1]  # nothing and everything is taken out in any order
        torch.testing.assert_close(one[:, ends], other[:, ends], rtol=1e-4, atol=1e-5)


class TestErrors:
    @pytest.mark.parametrize("call", [head_ablation, random_ablation_curve])
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(ablation="median"), '`ablation` must be one of "zero", "mean"; got \'median\''),
            (dict(max_rows=0), "`max_rows` must be a whole number of 1 or more; got 0"),
            (dict(target=5), r"`target` must be in \[0, 4\]"),
            (dict(target=[[0, 1], [1, 2]]), r"`target` must have one class an image, shape \(2,\); got \(2, 2\)"),
            (dict(target=lambda logits: logits[:, 0]), r"`target` must be a class, .* got a callable"),
            (dict(ablate="mean"), "`ablate` must be an argument that ViTForImageClassification knows"),
            (dict(pixel_values=torch.zeros(1, 3, 32, 32), ablation="mean"), 'must not be "mean" for a batch of one'),
            (dict(pixel_values=torch.zeros(3, 32, 32)), "`pixel_values` must be floating point"),
            (dict(model=None), "`model` must be an image classifier"),
        ],
    )
    def test_arguments(self, call, arguments, message, vit):
        kind = ArgumentTypeError if "must be a class" in message or "`model`" in message else ArgumentError
        with pytest.raises(kind, match=message):
            call(**{**dict(zip(("model", "pixel_values"), vit, strict=True)), **arguments})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(head_scores=torch.ones(2, 9)), r"`head_scores` must be of shape \(2, 3, 3\) .* got \(2, 9\)"),
            (dict(function="log"), '`function` must be one of "softmax", "sigmoid", "logit"; got \'log\''),
            (dict(num_steps=0), "`num_steps` must be a whole number of 1 or more; got 0"),
        ],
    )
    def test_curves(self, arguments, message, vit):
        with pytest.raises(ArgumentError, match=message):
            ablation_curve(*vit, 1, **{"head_scores": torch.ones(2, 3, 3), **arguments})

    def test_orders_are_counted(self, vit):
        with pytest.raises(ArgumentError, match="`num_orders` must be a whole number of 1 or more; got 0"):
            random_ablation_curve(*vit, 1, num_orders=0)

    @pytest.mark.parametrize("name", sorted({**zoo.REFUSED, **zoo.STAGED}))
    def test_models_that_cannot_be_silenced(self, name):
        model = {**zoo.REFUSED, **zoo.STAGED}[name]()
        before = snapshot(model)
        with pytest.raises(UnsupportedModelError, match=f"{type(model).__name__} cannot be explained: "):
            head_ablation(model, torch.zeros(2, 3, *zoo.image_size(model)), 1)
        assert snapshot(model) == before

    def test_a_model_that_sees_each_image_twice(self):
        class TwoViews(zoo.ViTForImageClassification):
            def forward(self, pixel_values, **kwargs):
                out = super().forward(torch.cat([pixel_values, pixel_values.flip(-1)]), **kwargs)
                out.logits = out.logits.unflatten(0, (2, -1)).mean(0)
                return out

        model = TwoViews(zoo.vit().config).eval()
        with pytest.raises(UnsupportedModelError, match="TwoViews cannot be explained: its attention is not over one"):
            head_ablation(model, zoo.pixel_values(model), 1)

    def test_not_finite(self):
        model = zoo.vit()
        with pytest.raises(NonFiniteError, match="The logits must be finite"):
            head_ablation(model, zoo.pixel_values(model) * torch.nan, 1)


@pytest.mark.parametrize(("name", "least"), [("vit", 0.9), ("deit", 0.9), ("beit", 0.85)])
@pytest.mark.slow
def test_contributions_foretell_ablation(name, least, demo_batch):
    """On 200 scenes the means are 0.96, 0.97 and 0.95; those of GMAR's weights, by magnitude, at most 0.42."""
    model, images, target, _ = demo_batch(name)
    out = gmar_hf.explain(model, images, target, return_maps=False)
    ablation = head_ablation(model, images, target)
    contribution = ablation.correlation(out.head_contribution)
    assert contribution.overall.mean() > least
    assert contribution.within_layers.mean() > least - 0.02
    weight = ablation.correlation(out.head_importance, magnitude=True)
    assert weight.overall.mean() < 0.6
