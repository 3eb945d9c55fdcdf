"""Classes told apart, and what randomised models show."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, ArgumentTypeError, UnsupportedModelError
from gmar_hf.metrics.sanity import class_sensitivity, randomization_check
from tests.helpers import zoo
from tests.helpers.state import make_uneven, snapshot

FAMILIES = ["vit", "deit_teacher", "beit_both_cls", "beit_relative", "dinov2_registers", "siglip", "clip", "ijepa"]
STAGES = ("head", "layer 2", "layer 1", "layer 0", "embeddings")
# peft 0.21 still calls a method that transformers 5.20 renamed.
OLD_NAMES_IN_PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class Watching:
    """An `explain_fn` whose maps are given, and which keeps the weights of every model it gets."""

    def __init__(self, maps=None):
        self.maps = maps
        self.models = []
        self.seen = []

    def __call__(self, model):
        self.models.append(model)
        self.seen.append(weights(model))
        return torch.arange(8.0).view(2, 2, 2) if self.maps is None else self.maps[len(self.seen) - 1]


class TestClassSensitivity:
    def test_by_hand(self):
        one = torch.tensor([[[1.0, 2.0, 3.0]], [[1.0, 0.0, 3.0]]])
        other = torch.tensor([[[0.0, 3.0, 3.0]], [[1.0, 0.0, 3.0]]])
        masks = torch.tensor([[[True, False, False]], [[True, True, False]]])
        found = class_sensitivity(one, other, masks)
        torch.testing.assert_close(found.correlation, torch.tensor([3 / 12**0.5, 1.0]))
        torch.testing.assert_close(found.energy_on_other, torch.tensor([1 / 6, 1 / 4]))
        assert class_sensitivity(one, other).energy_on_other is None

    def test_numpy(self):
        one, other = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
        expected = [np.corrcoef(*(part.flatten() for part in pair))[0, 1] for pair in zip(one, other, strict=True)]
        found = class_sensitivity(one, other).correlation
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_a_constant_map_has_no_correlation(self):
        maps = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
        other = maps.clone()
        other[1] = 0.1
        found = class_sensitivity(maps, other).correlation
        assert found[0] == 1
        assert found[1].isnan()

    def test_errors(self):
        maps = torch.ones(2, 3, 3)
        with pytest.raises(ArgumentError, match=r"`other_attribution` must be of the shape .* got \(2, 3, 4\)"):
            class_sensitivity(maps, torch.ones(2, 3, 4))
        with pytest.raises(ArgumentError, match="`other_attribution` must be finite"):
            class_sensitivity(maps, maps * torch.nan)
        with pytest.raises(ArgumentTypeError, match="`other_attribution` must be a tensor"):
            class_sensitivity(maps, None)
        with pytest.raises(ArgumentTypeError, match="`masks` must be a bool tensor"):
            class_sensitivity(maps, maps, maps)

    def test_contributions_tell_classes_apart_and_rollout_does_not(self, demo_batch):
        model, images, _, scenes = demo_batch("vit")
        targets = torch.tensor([scene["labels"] for scene in scenes])
        masks = torch.tensor(np.stack([scene["masks"][scene["labels"][1]] for scene in scenes]))
        found = {}
        for method in ("contribution", "rollout"):
            maps = gmar_hf.explain(model, images, targets, method).attribution
            found[method] = class_sensitivity(maps[:, 0], maps[:, 1], masks)
        assert found["contribution"].correlation.mean() < 0
        assert found["rollout"].correlation.min() > 0.99
        assert found["contribution"].energy_on_other.mean() < found["rollout"].energy_on_other.mean()


class TestStages:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_every_stage_changes_its_weights_and_no_other(self, name):
        model = zoo.MODELS[name]()
        watch = Watching()
        check = randomization_check(model, watch, num_draws=1, seed=3)
        assert check.stages == STAGES
        assert check.correlation.shape == check.spread.shape == (5, 2)
        assert check.spread.isnan().all()
        changed = []
        for before, after in pairwise(watch.seen):
            changed.append({key for key in before if not torch.equal(before[key], after[key])})
        # All weights of the zoo carry noise, so each differs from what a new model has; each changes once.
        assert sorted(key for keys in changed for key in keys) == sorted(model.state_dict())
        assert {"classifier.weight", "classifier.bias"} <= changed[0] or "cls_classifier.weight" in changed[0]
        for number in range(3):
            assert changed[1 + number]
            assert all(f".{2 - number}." in key for key in changed[1 + number])
            assert not any(f"layers.{number}." in key or f"layer.{number}." in key for key in changed[0] | changed[4])
        assert all("embeddings" in key or "shared_position" in key or "pre_lay" in key for key in changed[4])

    @pytest.mark.parametrize("name", FAMILIES)
    def test_the_model_is_not_touched(self, name):
        model = zoo.MODELS[name]()
        make_uneven(model)
        pixels = zoo.pixel_values(model)
        before = snapshot(model)  # the random state too
        seen = []

        def explain(copied):
            seen.append(copied)
            return gmar_hf.explain(copied, pixels, [1, 3], "contribution").attribution

        randomization_check(model, explain, num_draws=1)
        assert snapshot(model) == before
        assert {copied.config._attn_implementation for copied in seen} == {model.config._attn_implementation}
        own = {parameter.data_ptr() for parameter in model.parameters()}
        assert all(parameter.data_ptr() not in own for copied in seen for parameter in copied.parameters())

    def test_also_not_after_an_exception(self):
        model = zoo.vit()
        before = snapshot(model)
        calls = []

        def explain(copied):
            calls.append(copied)
            if len(calls) == 3:
                raise ZeroDivisionError
            return torch.ones(1, 2, 2)

        with pytest.raises(ZeroDivisionError):
            randomization_check(model, explain)
        assert snapshot(model) == before

    @pytest.mark.parametrize("name", FAMILIES)
    def test_new_weights_are_spread_as_a_new_models_and_are_not_its_own(self, name):
        """Also with the seed from which the model was made: what it began with does not come back."""
        model = zoo.MODELS[name]()
        watch = Watching()
        randomization_check(model, watch, num_draws=1, seed=3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            begun = type(model)(model.config)
        trained = {key for key, parameter in begun.named_parameters() if parameter.requires_grad}
        num_compared = 0
        for key, value in begun.state_dict().items():
            ours, theirs = (each.double().flatten() for each in (watch.seen[-1][key], value))
            if key not in trained or theirs.min() == theirs.max():  # always so: zeros, ones, counted places
                assert torch.equal(ours, theirs), key
            elif len(ours) >= 400:  # five standard errors of a mean, of a spread and of a correlation
                margin = 5 / len(ours) ** 0.5
                assert (ours.mean() - theirs.mean()).abs() < 2 * margin * theirs.std(), key
                assert (ours.std() / theirs.std() - 1).abs() < margin, key
                assert abs(np.corrcoef(ours, theirs)[0, 1]) < margin, key
                num_compared += 1
        assert num_compared >= 6

    def test_a_model_trained_from_the_seed_does_not_get_its_first_weights_back(self, demo_batch):
        """The bundled models were trained from `torch.manual_seed(0)`: that seed gives weights of cosine 0.8."""
        model = demo_batch("vit")[0]
        trained = model.classifier.weight.flatten()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            begun = type(model)(model.config).classifier.weight.flatten()
        assert torch.cosine_similarity(trained, begun, dim=0) > 0.7
        watch = Watching()
        randomization_check(model, watch, num_draws=2, seed=0)
        heads = [seen["classifier.weight"].flatten() for seen in watch.seen[1::8]]
        assert len(heads) == 2
        for head in heads:
            assert torch.cosine_similarity(trained, head, dim=0).abs() < 0.2  # 768 numbers: 5 standard errors
        assert not torch.equal(heads[0], heads[1])

    def test_a_class_that_seeds_itself(self):
        class Seeding(zoo.ViTForImageClassification):
            def __init__(self, config):
                torch.manual_seed(0)
                super().__init__(config)

        with torch.random.fork_rng(devices=[]):
            model = Seeding(zoo.vit().config)
        watch = Watching()
        randomization_check(model, watch, num_draws=1)
        before, after = (watch.seen[place]["vit.layers.0.mlp.fc1.weight"].flatten() for place in (0, -1))
        assert torch.cosine_similarity(before, after, dim=0).abs() < 0.2

    def test_every_draw_begins_with_the_trained_model(self):
        model = zoo.vit()
        watch = Watching()
        randomization_check(model, watch, num_draws=2)
        trained, first, second = watch.seen[0], watch.seen[1], watch.seen[6]
        assert len(watch.seen) == 11
        for key, weight in trained.items():  # the head's stage: all else is as it was
            is_head = not key.startswith(("vit.layers", "vit.embeddings"))
            assert torch.equal(first[key], weight) is not is_head, key
            assert torch.equal(second[key], weight) is not is_head, key
        assert not torch.equal(first["classifier.weight"], second["classifier.weight"])

    def test_seeds(self):
        ends = []
        for seed in (0, 0, 1):
            watch = Watching()
            randomization_check(zoo.vit(), watch, num_draws=1, seed=seed)
            ends.append(watch.seen[-1]["classifier.weight"])
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])

    def test_half_precision_stays(self):
        watch = Watching()
        randomization_check(zoo.vit().bfloat16(), watch)
        assert {tensor.dtype for tensor in watch.seen[-1].values()} == {torch.bfloat16}

    def test_a_loaded_model(self, tmp_path):
        """Transformers marks what it has loaded as initialised, and then leaves it alone."""
        zoo.vit().save_pretrained(tmp_path)
        model = gmar_hf.GMARViTForImageClassification.from_pretrained(tmp_path)
        watch = Watching()
        randomization_check(model, watch)
        assert type(watch.models[0]) is gmar_hf.GMARViTForImageClassification
        assert not any(torch.equal(watch.seen[0][key], watch.seen[-1][key]) for key in watch.seen[0])

    def test_more_layers_than_ten(self):
        config = zoo.ViTConfig(**{**zoo.NARROW, "num_hidden_layers": 12}, **zoo.SQUARE, num_labels=2)
        watch = Watching()
        check = randomization_check(zoo.build(zoo.ViTForImageClassification, config), watch)
        assert check.stages == ("head", *(f"layer {number}" for number in reversed(range(12))), "embeddings")
        trained, changed = watch.seen[0], watch.seen[11]  # by the head and the layers 11 to 2
        for number, stays in ((1, True), (10, False)):
            name = f"vit.layers.{number}.layernorm_before.weight"
            assert torch.equal(changed[name], trained[name]) is stays

    @OLD_NAMES_IN_PEFT
    def test_peft(self):
        from peft import LoraConfig, get_peft_model

        wrapped = get_peft_model(zoo.vit(), LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"]))
        zoo.perturb(wrapped, seed=5, std=0.1)
        before = snapshot(wrapped)
        merged = weights(copy.deepcopy(wrapped).merge_and_unload())
        watch = Watching()
        assert randomization_check(wrapped, watch).stages == STAGES
        assert snapshot(wrapped) == before
        assert watch.seen[0].keys() == merged.keys()
        assert all(torch.equal(watch.seen[0][key], merged[key]) for key in merged)
        assert not any(torch.equal(watch.seen[-1][key], merged[key]) for key in merged)


class TestCorrelation:
    def test_by_hand(self):
        first = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [1.0, 1.0]]])
        maps = [
            first,
            first.exp(),  # ranks are what counts
            -first,
            # Ranks 1 2 3 4 against 2 1 4 3: 0.6. Ranks 1.5 1.5 3.5 3.5 against 1 2 3 4: 4 / sqrt(4 * 5).
            torch.tensor([[[2.0, 1.0], [4.0, 3.0]], [[0.0, 1.0], [2.0, 3.0]]]),
            torch.tensor([[[0.1, 0.1], [0.1, 0.1]], [[1.0, 1.0], [0.0, 0.0]]]),
            first,
        ]
        found = randomization_check(zoo.vit(), Watching(maps), num_draws=1).correlation
        assert found.dtype == torch.float32
        nan = torch.nan
        expected = torch.tensor([[1, 1], [-1, -1], [0.6, 4 / 20**0.5], [nan, -1], [1, 1]])
        torch.testing.assert_close(found, expected, equal_nan=True)

    def test_mean_and_spread_of_draws_by_hand(self):
        first = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        # In the first draw every stage's map is as it was, in the second its opposite, in the third the ranks are
        # 2 1 4 3, 0.6: the mean is 0.2, and the spread sqrt((0.8^2 + 1.2^2 + 0.4^2) / 2).
        other = torch.tensor([[[2.0, 1.0], [4.0, 3.0]]])
        check = randomization_check(
            zoo.vit(), Watching([first, *[first] * 5, *[-first] * 5, *[other] * 5]), num_draws=3
        )
        torch.testing.assert_close(check.correlation, torch.full((5, 1), 0.2))
        torch.testing.assert_close(check.spread, torch.full((5, 1), 1.12**0.5))

    def test_ties_against_a_slow_count(self):
        """Ranks counted pair by pair, and NumPy's correlation of them."""
        maps = list(torch.randint(0, 9, (6, 3, 4, 5), generator=torch.Generator().manual_seed(0)).float())
        found = randomization_check(zoo.vit(), Watching(maps), num_draws=1).correlation
        for stage, changed in zip(found, maps[1:], strict=True):
            for image in range(3):
                ranks = []
                for one in (maps[0][image].flatten().numpy(), changed[image].flatten().numpy()):
                    ranks.append([(one < value).sum() + ((one == value).sum() + 1) / 2 for value in one])
                assert stage[image].item() == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6)

    def test_contributions_of_the_demo_model_forget(self, demo_batch):
        model, images, target, _ = demo_batch("vit")
        check = randomization_check(
            model, lambda copied: gmar_hf.explain(copied, images, target, "contribution").attribution, num_draws=2
        )
        assert (check.correlation.mean(dim=1) < 0.5).all()  # the head alone makes a difference
        assert check.correlation[-1].mean().abs() < 0.3
        # A map that never looks at the model keeps all.
        fixed = randomization_check(model, lambda copied: images.mean(1)[:, ::8, ::8], num_draws=2)
        assert (fixed.correlation == 1).all()
        assert (fixed.spread == 0).all()


class TestErrors:
    ONE = torch.ones(1, 2, 2)

    @pytest.mark.parametrize(
        ("explain", "error", "message"),
        [
            (ONE, ArgumentTypeError, "`explain_fn` must be a function from a model to maps; got Tensor"),
            (Watching([ONE, ONE[:, :1]]), ArgumentError, r"`explain_fn` must give maps of one shape; got \(1, 1, 2\)"),
            (
                lambda m: gmar_hf.explain(m, zoo.pixel_values(m)),
                ArgumentTypeError,
                r"must be a tensor .* got Explanation",
            ),
            (Watching([ONE * torch.nan]), ArgumentError, "`explain_fn` must be finite"),
        ],
    )
    def test_what_explains(self, explain, error, message):
        with pytest.raises(error, match=message):
            randomization_check(zoo.vit(), explain)

    def test_what_is_explained(self):
        with pytest.raises(ArgumentTypeError, match="`model` must be a transformers model"):
            randomization_check(torch.nn.Linear(2, 2), Watching())
        with pytest.raises(ArgumentTypeError, match="`model` must be a module that is called with `pixel_values`"):
            randomization_check(torch.nn.Sequential(zoo.vit()), Watching())
        with pytest.raises(
            UnsupportedModelError, match=r"ResNetForImageClassification cannot be explained: .* layers"
        ):
            randomization_check(zoo.resnet(), Watching())
        with pytest.raises(ArgumentError, match="`seed` must be a whole number"):
            randomization_check(zoo.vit(), Watching([]), seed="a")
        with pytest.raises(ArgumentError, match="`num_draws` must be a whole number of 1 or more; got 0"):
            randomization_check(zoo.vit(), Watching([]), num_draws=0)

    def test_a_class_that_needs_more_than_its_config(self):
        class Demanding(zoo.ViTForImageClassification):
            def __init__(self, config, *, colour):
                super().__init__(config)

        model = Demanding(zoo.vit().config, colour="red")
        with pytest.raises(
            UnsupportedModelError, match=r"Demanding cannot be given new weights: .* TypeError.*colour"
        ):
            randomization_check(model, Watching())

    def test_weights_that_the_config_does_not_tell_of(self):
        model = zoo.vit()
        model.classifier = torch.nn.Linear(24, 7)
        with pytest.raises(UnsupportedModelError, match=r"but `classifier\.weight` came out otherwise"):
            randomization_check(model, Watching())

    def test_weights_elsewhere(self):
        model = zoo.vit()
        model.vit.layernorm.to("meta")
        with pytest.raises(ArgumentError, match="`model` must have its weights; got some on the meta device"):
            randomization_check(model, Watching())
