"""`gmar_hf.explain` in float32 on every family of the zoo against the float64 oracle with explicit attention."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import gmar_hf
from gmar_hf.explanation import blocks
from tests.helpers import oracle, zoo
from tests.helpers.sampling import pick, sample, sample_product
from tests.helpers.zoo import relative_error

TOLERANCE = 1e-5
# Two float32 runs of the package on the same numbers: the order of sums differs with the batch, the threads and the
# release of transformers (2.4e-6 was seen), so the bound is no tighter than the oracle's.
SAME_RUN_TOLERANCE = TOLERANCE
TARGETS = [1, 3]

# A rule gets a reference, the residual weight and the start layer; not every rule knows all of them.
Rule = Callable[[oracle.Reference, float, int], np.ndarray]
METHODS: dict[str, tuple[dict[str, str], Rule]] = {
    "gmar-l1": (
        {"method": "gmar", "norm": "l1"},
        lambda reference, weight, start: oracle.gmar_map(reference, "l1", weight, start),
    ),
    "gmar-l2": (
        {"method": "gmar", "norm": "l2"},
        lambda reference, weight, start: oracle.gmar_map(reference, "l2", weight, start),
    ),
    "contribution": (
        {"method": "contribution"},
        lambda reference, weight, start: oracle.contribution_map(reference, start),
    ),
    "rollout": ({"method": "rollout"}, oracle.rollout_map),
    "gradient-rollout": (
        {"method": "gradient-rollout"},
        lambda reference, weight, start: oracle.gradient_rollout_map(reference, start),
    ),
    "attention": ({"method": "attention"}, lambda reference, weight, start: oracle.raw_attention_map(reference)),
}
FIELDS = (
    "attribution", "head_importance", "head_score", "head_contribution", "head_contribution_centred", "head_maps",
    "prefix_contribution",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One model of the zoo, its images, and what the oracle says about them."""

    name: str
    model: PreTrainedModel
    images: torch.Tensor
    references: list[oracle.Reference]


@functools.cache
def make_case(name: str) -> Case:
    """Build a case once per session: the oracle's run is the slow part."""
    model = zoo.MODELS[name]()
    images = zoo.pixel_values(model, batch=len(TARGETS))
    return Case(name, model, images, oracle.explicit_reference(model, images, TARGETS))


@pytest.fixture
def case(request) -> Case:
    return make_case(request.param)


def on_families(rows: list) -> pytest.MarkDecorator:
    """Run a test on the cases of some families, all of `zoo.MODELS` or a sample of them."""
    return pytest.mark.parametrize("case", rows, indirect=True)


def on_pairs(*more: str, rows: list) -> pytest.MarkDecorator:
    """Run a test on pairs of a family's case and a method, all of them or a sample."""
    return pytest.mark.parametrize(("case", "method", *more), rows, indirect=["case"])


FAMILIES = sorted(zoo.MODELS)
FEW_FAMILIES = pick(FAMILIES, 4)
# Every family and every method is in the default run of such a test, though not every pair.
SOME_PAIRS = sample_product(FAMILIES, sorted(METHODS), number=len(FAMILIES))
with_methods = pytest.mark.parametrize("method", sorted(METHODS))


def explain(case: Case, method: str, target=None, **kwargs) -> gmar_hf.Explanation:
    """Explain a case's images with a method of `METHODS`, by default for `TARGETS`."""
    target = torch.tensor(TARGETS) if target is None else target
    return gmar_hf.explain(case.model, case.images, target, **METHODS[method][0], **kwargs)


def over_batch(references: list[oracle.Reference], function: Callable[[oracle.Reference], np.ndarray]) -> np.ndarray:
    """Stack what the oracle says about every image, (B, ...)."""
    return np.stack([function(reference) for reference in references])


def expected_fields(
    references: list[oracle.Reference],
    method: str,
    residual_weight: float = 1.0,
    start_layer: int = 0,
    head_maps: bool = True,
) -> dict[str, np.ndarray | None]:
    """Return the oracle's value of every field of an explanation; None where the field is absent."""
    kwargs, rule = METHODS[method]
    num_layers, num_heads = references[0].attention.shape[:2]
    expected: dict[str, np.ndarray | None] = dict.fromkeys(FIELDS)
    expected["attribution"] = over_batch(references, lambda reference: rule(reference, residual_weight, start_layer))
    expected["readout"] = over_batch(references, lambda reference: reference.readout)
    expected["logits"] = over_batch(references, lambda reference: reference.logits)
    if head_maps:
        expected["head_maps"] = over_batch(references, oracle.head_maps)
        expected["prefix_contribution"] = over_batch(references, oracle.prefix_contributions)
    if method.startswith("gmar"):
        scores = [oracle.head_scores(reference.gradient, kwargs["norm"]) for reference in references]
        expected["head_score"] = np.stack(scores)
        expected["head_importance"] = np.stack([oracle.head_weights(score) for score in scores])
    elif method in ("rollout", "attention"):
        expected["head_importance"] = over_batch(references, lambda _: oracle.uniform_weights(num_layers, num_heads))
    # Rollout and raw attention need no backward; head maps do, and with them every method knows its contributions.
    if head_maps or method not in ("rollout", "attention"):
        expected["head_contribution"] = over_batch(references, oracle.head_contributions)
        expected["head_contribution_centred"] = over_batch(references, oracle.centred_head_contributions)
    return expected


def assert_matches(
    actual: gmar_hf.Explanation, expected: dict[str, np.ndarray | torch.Tensor | None], tolerance: float = TOLERANCE
) -> None:
    """Compare every field, and name all that differ in one message."""
    errors = {}
    for name, value in expected.items():
        field = getattr(actual, name)
        assert (field is None) == (value is None), f"{name} is {'None' if field is None else 'not None'}"
        if value is not None:
            errors[name] = relative_error(field, value)
    too_large = {name: error for name, error in errors.items() if not error <= tolerance}
    assert not too_large, f"max|a-b|/max|b| above {tolerance}: {too_large}"


def fields_of(explanation: gmar_hf.Explanation) -> dict[str, torch.Tensor | None]:
    """Return the tensors of an explanation by name."""
    return {name: getattr(explanation, name) for name in (*FIELDS, "readout", "logits")}


class TestOracle:
    """The yardstick itself."""

    @on_families(FAMILIES)
    def test_attention_is_a_softmax_and_contributions_have_two_forms(self, case):
        for reference in case.references:
            np.testing.assert_allclose(reference.attention.sum(axis=-1), 1, atol=1e-12)
            np.testing.assert_allclose(reference.readout.sum(), 1, atol=1e-12)
            per_head = np.sum(reference.output * reference.output_gradient, axis=(-1, -2))
            np.testing.assert_allclose(oracle.head_contributions(reference), per_head, rtol=1e-10, atol=1e-13)
            per_token = np.sum(reference.value * reference.value_gradient, axis=-1)
            np.testing.assert_allclose(oracle.token_contributions(reference), per_token, rtol=1e-10, atol=1e-13)
            outer = np.einsum("lhid,lhjd->lhij", reference.output_gradient, reference.value)
            np.testing.assert_allclose(reference.gradient, outer, rtol=1e-10, atol=1e-13)

    @on_families(FAMILIES)
    def test_attention_is_what_transformers_computes(self, case):
        with torch.no_grad():
            outputs = zoo.explicit(case.name)(pixel_values=case.images, output_attentions=True)
        attentions = torch.stack(outputs.attentions, dim=1)
        assert relative_error(attentions, over_batch(case.references, lambda reference: reference.attention)) < 1e-5
        assert relative_error(outputs.logits, over_batch(case.references, lambda reference: reference.logits)) < 1e-5

    def test_gradient_is_a_slope(self):
        # Central differences know nothing of autograd: nudge one entry of V in the last layer of a ViT, twice.
        case = make_case("vit")
        model = zoo.MODELS["vit"]()
        nudge = torch.zeros(1, 17, 24, dtype=torch.float64)
        model.vit.layers[-1].attention.v_proj.register_forward_hook(lambda module, args, output: output + nudge)
        step = 1e-4
        # Channel 9 is channel 1 of head 1, heads being 8 channels wide.
        for token, channel, head, head_channel in ((0, 0, 0, 0), (5, 9, 1, 1)):
            scalars = []
            for sign in (1, -1):
                nudge.zero_()
                nudge[0, token, channel] = sign * step
                (run,) = oracle.explicit_reference(model, case.images[:1], TARGETS[0])
                scalars.append(run.scalar)
            slope = (scalars[0] - scalars[1]) / (2 * step)
            np.testing.assert_allclose(
                slope, case.references[0].value_gradient[-1, head, token, head_channel], rtol=1e-5
            )


class TestParity:
    @on_pairs(rows=SOME_PAIRS)
    def test_every_field(self, case, method):
        actual = explain(case, method, return_head_maps=True)
        assert_matches(actual, expected_fields(case.references, method))

    @on_pairs(rows=SOME_PAIRS)
    def test_results_are_detached_float32(self, case, method):
        actual = explain(case, method, return_head_maps=True)
        for name, field in fields_of(actual).items():
            if field is not None:
                assert field.dtype == torch.float32, name
                assert not field.requires_grad, name
                assert field.device == case.images.device, name
        assert actual.target.dtype == torch.long
        assert actual.target.tolist() == TARGETS

    @on_pairs(rows=SOME_PAIRS)
    def test_head_maps_come_when_asked_for(self, case, method):
        assert_matches(explain(case, method), expected_fields(case.references, method, head_maps=False))

    @on_pairs(rows=SOME_PAIRS)
    def test_maps_are_left_out_when_not_wanted(self, case, method):
        expected = expected_fields(case.references, method, head_maps=False)
        expected["attribution"] = None
        assert_matches(explain(case, method, return_maps=False), expected)

    @on_families(FEW_FAMILIES)
    def test_predicted_class_and_one_class_for_all(self, case):
        predicted = [int(np.argmax(reference.logits)) for reference in case.references]
        actual = gmar_hf.explain(case.model, case.images)
        assert actual.target.tolist() == predicted
        references = oracle.explicit_reference(case.model, case.images)
        assert_matches(
            gmar_hf.explain(case.model, case.images, return_head_maps=True), expected_fields(references, "gmar-l1")
        )
        references = oracle.explicit_reference(case.model, case.images, 2)
        actual = gmar_hf.explain(case.model, case.images, 2, return_head_maps=True)
        assert actual.target.tolist() == [2, 2]
        assert_matches(actual, expected_fields(references, "gmar-l1"))

    @on_pairs(
        "residual_weight",
        "start_layer",
        rows=sample(
            (*pair, *walk)
            for pair in product(FAMILIES, sorted(METHODS))
            for walk in [(0.0, 0), (0.25, 1), (3.0, 2), (1.0, 2)]
        ),
    )
    def test_residual_weight_and_start_layer(self, case, method, residual_weight, start_layer):
        actual = explain(case, method, residual_weight=residual_weight, start_layer=start_layer, return_head_maps=True)
        assert_matches(actual, expected_fields(case.references, method, residual_weight, start_layer))

    @on_pairs(rows=SOME_PAIRS)
    def test_scalars_of_a_callable(self, case, method):
        def nonlinear_difference(logits: torch.Tensor) -> torch.Tensor:
            """Its slope depends on the image: a scalar that is summed too early would show."""
            return logits.log_softmax(dim=-1)[:, 2] - logits[:, 0] / 2

        actual = explain(case, method, nonlinear_difference, return_head_maps=True)
        assert actual.target is None
        references = oracle.explicit_reference(case.model, case.images, nonlinear_difference)
        assert_matches(actual, expected_fields(references, method))


class TestIdentities:
    @on_families(FAMILIES)
    def test_maps_and_prefix_add_up_to_the_head(self, case):
        actual = explain(case, "contribution", return_head_maps=True)
        total = actual.head_maps.sum(dim=(-1, -2)) + actual.prefix_contribution.sum(dim=-1)
        assert relative_error(total, actual.head_contribution) <= TOLERANCE
        assert relative_error(actual.head_maps.sum(dim=(1, 2)), actual.attribution) <= TOLERANCE

    @on_pairs(rows=SOME_PAIRS)
    def test_weights_and_readout_sum_to_one(self, case, method):
        actual = explain(case, method)
        torch.testing.assert_close(actual.readout.sum(dim=-1), torch.ones(len(TARGETS)))
        assert (actual.readout >= 0).all()
        if actual.head_importance is not None:
            sums = actual.head_importance.sum(dim=-1)
            torch.testing.assert_close(sums, torch.ones_like(sums))

    @on_pairs(rows=SOME_PAIRS)
    def test_batch_equals_loop(self, case, method):
        batch = explain(case, method, return_head_maps=True)
        for image, target in enumerate(TARGETS):
            single = gmar_hf.explain(
                case.model, case.images[image : image + 1], target, **METHODS[method][0], return_head_maps=True
            )
            expected = {
                name: None if field is None else field[image : image + 1] for name, field in fields_of(batch).items()
            }
            assert_matches(single, expected, SAME_RUN_TOLERANCE)

    @on_pairs(rows=SOME_PAIRS)
    def test_several_targets_equal_separate_calls(self, case, method):
        targets = torch.tensor([[1, 4, 0], [3, 3, 2]])
        together = explain(case, method, targets, return_head_maps=True)
        assert together.target.tolist() == targets.tolist()
        separate = [fields_of(explain(case, method, column, return_head_maps=True)) for column in targets.T]
        expected = {
            name: None if field is None else torch.stack([fields[name] for fields in separate], dim=1)
            for name, field in separate[0].items()
        }
        # One forward serves all targets, so the logits have no target axis.
        expected["logits"] = separate[0]["logits"]
        assert_matches(together, expected, SAME_RUN_TOLERANCE)

    @on_families(FEW_FAMILIES)
    def test_one_column_of_targets_keeps_its_axis(self, case):
        actual = explain(case, "gmar-l1", torch.tensor(TARGETS)[:, None])
        assert actual.attribution.shape[:2] == (len(TARGETS), 1)
        assert relative_error(actual.attribution[:, 0], explain(case, "gmar-l1").attribution) <= SAME_RUN_TOLERANCE

    @on_pairs(rows=SOME_PAIRS)
    def test_repeated_calls_are_equal(self, case, method):
        first, second = (fields_of(explain(case, method, return_head_maps=True)) for _ in range(2))
        for name, field in first.items():
            assert field is None or torch.equal(field, second[name]), name


class TestDouble:
    @on_pairs(rows=SOME_PAIRS)
    def test_double_model_is_right_to_the_last_float32_digit(self, case, method):
        model = zoo.MODELS[case.name]().double()
        actual = gmar_hf.explain(
            model, case.images.double(), torch.tensor(TARGETS), **METHODS[method][0], return_head_maps=True
        )
        assert actual.attribution.dtype == torch.float32
        expected = expected_fields(case.references, method)
        # The results are float32. Rounding the oracle the same way leaves one unit in the last place where a value
        # lies on a rounding boundary, hence 2^-23 and not the 1e-10 of the arithmetic itself.
        rounded = {name: None if value is None else value.astype(np.float32) for name, value in expected.items()}
        assert_matches(actual, rounded, tolerance=2.0**-23)


class TestReadout:
    """What the classifier reads, as the method's description lists it."""

    def readout(self, name: str) -> torch.Tensor:
        return explain(make_case(name), "rollout").readout

    @pytest.mark.parametrize("name", ["vit", "vit_landscape", "vit_msn", "deit", "beit_relative_cls", "beit_both_cls"])
    def test_class_token_alone(self, name):
        readout = self.readout(name)
        expected = torch.zeros_like(readout)
        expected[:, 0] = 1
        assert torch.equal(readout, expected)

    def test_two_tokens_of_the_distilled_deit(self):
        readout = self.readout("deit_teacher")
        assert (readout[:, 2:] == 0).all()
        assert ((readout[:, :2] > 0.2) & (readout[:, :2] < 0.8)).all()
        assert not torch.allclose(readout[:, 0], readout[:, 1], rtol=1e-3)

    @pytest.mark.parametrize(
        ("name", "num_prefix_tokens"),
        [("beit_absolute", 1), ("beit_relative", 1), ("beit_shared", 1), ("clip", 1), ("siglip", 0), ("ijepa", 0)],
    )
    def test_patches_alike(self, name, num_prefix_tokens):
        readout = self.readout(name)
        num_patches = readout.shape[-1] - num_prefix_tokens
        assert (readout[:, :num_prefix_tokens] == 0).all()
        uniform = torch.full((len(TARGETS), num_patches), 1 / num_patches)
        torch.testing.assert_close(readout[:, num_prefix_tokens:], uniform)

    @pytest.mark.parametrize("name", ["dinov2", "dinov2_registers"])
    def test_class_token_and_patches_of_dinov2(self, name):
        readout = self.readout(name)
        patch = readout[:, -1:]
        num_patches = readout.shape[-1] - (1 + zoo.NUM_REGISTERS if name == "dinov2_registers" else 1)
        torch.testing.assert_close(readout[:, -num_patches:], patch.expand(-1, num_patches))
        assert (readout[:, :1] > 2 * patch).all()
        # Releases of transformers differ on whether the mean over patches includes the registers: all or none.
        registers = readout[:, 1:-num_patches]
        assert (registers == 0).all() or torch.allclose(registers, patch)

    def test_a_readout_depends_on_the_target(self):
        case = make_case("deit_teacher")
        readout = explain(case, "rollout", torch.tensor([[0, 1], [0, 1]])).readout
        assert not torch.allclose(readout[:, 0], readout[:, 1], rtol=1e-3)


class TestOtherSizes:
    """Images of another size than the configuration names, wide ones: 3 x 5 patches of a 4 x 4 model."""

    @pytest.mark.parametrize(
        ("name", "model_kwargs"),
        [
            ("vit", {"interpolate_pos_encoding": True}),
            ("siglip", {"interpolate_pos_encoding": True}),
            ("clip", {"interpolate_pos_encoding": True}),
            ("dinov2_registers", {}),
            ("beit_shared", {}),
            ("beit_relative_cls", {}),
        ],
    )
    @pytest.mark.parametrize("method", ["gmar-l1", "contribution", "gradient-rollout"])
    def test_interpolated_positions(self, name, model_kwargs, method):
        model = zoo.MODELS[name]()
        images = zoo.pixel_values(model, batch=len(TARGETS), size=(24, 40))
        references = oracle.explicit_reference(model, images, TARGETS, **model_kwargs)
        case = Case(name, model, images, references)
        actual = explain(case, method, return_head_maps=True, **model_kwargs)
        assert actual.attribution.shape == (2, 3, 5)
        assert_matches(actual, expected_fields(references, method))


class TestSurroundings:
    """Circumstances that must not change a figure."""

    @on_families(FEW_FAMILIES)
    def test_frozen_model(self, case):
        model = zoo.MODELS[case.name]().requires_grad_(False)
        frozen = Case(case.name, model, case.images, case.references)
        assert_matches(explain(frozen, "gmar-l1", return_head_maps=True), expected_fields(case.references, "gmar-l1"))
        assert not any(parameter.requires_grad for parameter in model.parameters())

    @with_methods
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_outer_gradient_mode(self, method, mode):
        # Everything is made inside, as under a user's decorator: inference tensors cannot be saved for a backward.
        case = make_case("beit_relative")
        with mode():
            inside = Case(case.name, case.model, case.images.clone(), case.references)
            actual = explain(inside, method, torch.tensor(TARGETS), return_head_maps=True)
        assert_matches(actual, expected_fields(case.references, method))

    @with_methods
    def test_eager_model(self, method):
        case = make_case("beit_relative")
        model = zoo.MODELS[case.name]()
        model.set_attn_implementation("eager")
        eager = Case(case.name, model, case.images, case.references)
        assert_matches(explain(eager, method, return_head_maps=True), expected_fields(case.references, method))
        assert model.config._attn_implementation == "eager"

    @with_methods
    @pytest.mark.parametrize("name", ["vit", "deit_teacher", "beit_relative", "clip"])
    def test_small_row_blocks(self, monkeypatch, name, method):
        case = make_case(name)
        monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 100)
        actual = explain(case, method, return_head_maps=True)
        assert_matches(actual, expected_fields(case.references, method))

    @with_methods
    def test_padding_mask(self, method):
        case = make_case("vit")
        mask = torch.ones(len(TARGETS), 17)
        mask[0, -3:] = 0
        references = oracle.explicit_reference(case.model, case.images, TARGETS, attention_mask=mask)
        assert (references[0].attention[..., -3:] == 0).all()
        actual = explain(case, method, return_head_maps=True, attention_mask=mask)
        assert_matches(actual, expected_fields(references, method))

    @with_methods
    @pytest.mark.parametrize("kind", ["boolean", "infinite", "lowest", "low"])
    def test_padding_that_attends_to_nothing(self, method, kind):
        """Or to all alike, where its rows hold one number only, whose softmax is uniform."""
        case = make_case("vit")
        takes_part = torch.ones(len(TARGETS), 1, 17, 17, dtype=torch.bool)
        takes_part[0, :, :, -3:] = takes_part[0, :, -3:] = False
        lowest = torch.finfo(torch.float32).min
        # In float32 scores are lost beside -1e9 too, in the oracle's float64 they are not.
        alike = torch.zeros(takes_part.shape).masked_fill(~takes_part, lowest)
        nothing = torch.zeros(takes_part.shape).masked_fill(~takes_part, -torch.inf)
        seen = alike if kind.startswith("low") else nothing
        references = oracle.explicit_reference(case.model, case.images, TARGETS, attention_mask=seen)
        sums = references[0].attention[:, :, -3:].sum(-1)
        np.testing.assert_allclose(sums, 1 if kind.startswith("low") else 0, atol=1e-12)
        masks = {"boolean": takes_part, "infinite": nothing, "lowest": alike, "low": alike.clamp_min(-1e9)}
        actual = explain(case, method, return_head_maps=True, attention_mask=masks[kind])
        assert_matches(actual, expected_fields(references, method))

    @with_methods
    def test_an_image_that_is_wholly_padding(self, method):
        """The model's own attention lets zeros come of such an image's rows, and so must ours."""
        case = make_case("vit")
        mask = torch.ones(len(TARGETS), 17)
        mask[0] = 0
        with torch.no_grad():
            plain = case.model(pixel_values=case.images, attention_mask=mask).logits
        additive = torch.zeros(len(TARGETS), 1, 17, 17)
        additive[0] = -torch.inf
        references = oracle.explicit_reference(case.model, case.images, TARGETS, attention_mask=additive)
        actual = explain(case, method, attention_mask=mask, return_head_maps=True)
        torch.testing.assert_close(actual.logits, plain)
        if method not in ("gmar-l1", "gmar-l2"):  # whose weights are shares of nothing there
            assert_matches(actual, expected_fields(references, method))

    @on_families(FEW_FAMILIES)
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
    def test_half_precision(self, case, dtype, tolerance):
        # The readings of a rounded model: far from float32's, near enough to tell a missing scale or an underflow.
        model = zoo.MODELS[case.name]().to(dtype)
        half = Case(case.name, model, case.images.to(dtype), case.references)
        actual = explain(half, "gmar-l1", return_head_maps=True)
        assert_matches(actual, expected_fields(case.references, "gmar-l1"), tolerance)

    def test_tiny_gradients_in_float16(self):
        # 1e-8 is below float16's smallest number: without a scaled backward everything but logits would be zero.
        case = make_case("vit")
        half = Case(case.name, zoo.MODELS[case.name]().half(), case.images.half(), case.references)
        plain = explain(half, "contribution", lambda logits: logits[:, 1].float())
        tiny = explain(half, "contribution", lambda logits: logits[:, 1].float() * 1e-8)
        assert relative_error(tiny.attribution * 1e8, plain.attribution) < 0.05


class TestRefusal:
    @pytest.mark.parametrize("name", sorted(zoo.REFUSED))
    @pytest.mark.parametrize("method", ["gmar-l1", "contribution", "rollout", "gradient-rollout", "attention"])
    def test_other_architectures_are_refused(self, name, method):
        model = zoo.REFUSED[name]()
        with pytest.raises((ValueError, TypeError), match=type(model).__name__):
            gmar_hf.explain(model, zoo.pixel_values(model), 0, **METHODS[method][0])
        # A refusal leaves the model usable.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert model(pixel_values=zoo.pixel_values(model)).logits.shape == (2, zoo.NUM_LABELS)
