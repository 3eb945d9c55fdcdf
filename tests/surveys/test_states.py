"""What was found with silenced heads, or in a state of the adapters, is never taken for what the whole model does."""

import copy
from functools import partial

import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, HeadImportanceReport
from gmar_hf.report.statistics import KEYS
from tests.helpers import zoo
from tests.helpers.commands import run
from tests.helpers.explainers import image_processor, name_classes, photo
from tests.surveys.test_surveying import Counting, Failure, fail, survey

SILENT = [(1, 0), (1, 2)]
TOLD = "silenced heads 1.0 1.2 (layer.head)"
PLAIN = "no silenced heads and no adapters"


@pytest.fixture(scope="module")
def model():
    return name_classes(zoo.vit())


@pytest.fixture(scope="module")
def items():
    return [{"image": photo(seed), "label": seed % 5} for seed in range(10)]


@pytest.fixture(scope="module")
def silenced_report(model, items):
    with gmar_hf.silence_heads(model, SILENT):
        return survey(model, items)


@pytest.fixture(scope="module")
def report(model, items):
    return survey(model, items)


def adapted():
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(name_classes(zoo.vit()), LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"]))
    wrapped.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"]))
    zoo.perturb(wrapped, seed=5, std=0.1)
    return wrapped.eval()


def evaluate(model, data, **kwargs):
    return gmar_hf.evaluate(
        model, data, image_processor(), methods=["contribution"], metrics=["insertion"], batch_size=4, num_steps=2,
        **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize(
    "measure",
    [partial(survey, save_every=1), pytest.param(evaluate, marks=pytest.mark.slow)],
    ids=["survey", "evaluate"],
)
def test_work_on_the_whole_model_is_not_gone_on_with_without_heads(model, items, tmp_path, measure):
    with pytest.raises(Failure):
        measure(model, Counting(items, 9, fail), output_dir=tmp_path)
    with gmar_hf.silence_heads(model, SILENT), pytest.raises(ArgumentError) as caught:
        measure(model, Counting(items), output_dir=tmp_path)
    assert f"the model had {PLAIN}, and has now {TOLD}. Go on with" in str(caught.value)


def test_a_survey_without_heads_is_gone_on_with_in_the_same_state_only(model, items, tmp_path):
    with gmar_hf.silence_heads(model, SILENT), pytest.raises(Failure):
        survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
    with pytest.raises(ArgumentError) as caught:
        survey(model, Counting(items), output_dir=tmp_path)
    assert f"the model had {TOLD}, and has now {PLAIN}." in str(caught.value)
    with gmar_hf.silence_heads(model, [(1, 0)]), pytest.raises(ArgumentError, match=r"has now silenced heads 1\.0 "):
        survey(model, Counting(items), output_dir=tmp_path)
    with gmar_hf.silence_heads(model, SILENT):
        report = survey(model, rest := Counting(items), output_dir=tmp_path)
    assert set(rest.read) == {8, 9}
    # The truth: a copy in which nothing of the silent heads passes the output projection.
    copied = copy.deepcopy(model)
    size = model.config.hidden_size // model.config.num_attention_heads
    for layer, head in SILENT:
        copied.vit.layers[layer].attention.o_proj.weight.data[:, head * size : (head + 1) * size] = 0
    expected = survey(copied, items)
    for key in ("contribution", "contribution_abs"):
        torch.testing.assert_close(report.mean[key], expected.mean[key], rtol=1e-4, atol=1e-6)


def test_reports_say_it(report, silenced_report, tmp_path, monkeypatch, capsys):
    assert silenced_report.settings["model"]["state"] == TOLD
    assert "state" not in report.settings["model"]
    assert TOLD in repr(silenced_report)
    silenced_report.save_pretrained(tmp_path / "silenced")
    report.save_pretrained(tmp_path / "whole")
    assert "with silenced heads 1.0 1.2 (layer.head)" in (tmp_path / "silenced" / "README.md").read_text().replace(
        "\\", ""
    )
    silenced_report.write_page(tmp_path / "page.html")
    assert TOLD in (tmp_path / "page.html").read_text()
    assert HeadImportanceReport.from_pretrained(tmp_path / "silenced").settings["model"]["state"] == TOLD
    code, out, _ = run(monkeypatch, capsys, "compare", tmp_path / "whole", tmp_path / "silenced")
    assert code == 0
    assert f" with {TOLD} over 10 images" in " ".join(out.split())
    assert "Both are of one model, in two states." in out


def test_reports_of_two_states_are_not_merged(model, items, report):
    with gmar_hf.silence_heads(model, SILENT):
        other = survey(model, [{"image": photo(30)}])
    with pytest.raises(ArgumentError) as caught:
        report.merge(other)
    assert str(caught.value) == (
        f"`other` must be of the model in the same state, with {PLAIN}; got one of {TOLD}. Survey its images again."
    )


def test_a_report_weighs_the_heads_of_the_model_in_its_own_state(model, report, silenced_report):
    images = zoo.pixel_values(model, batch=2)
    gmar_hf.explain(model, images, 1, head_weights=report)
    with pytest.raises(ArgumentError) as caught:
        gmar_hf.explain(model, images, 1, head_weights=silenced_report)
    assert f"`head_weights` must be of the model as it is now, with {PLAIN}; got those of" in str(caught.value)
    assert str(caught.value).endswith(
        f"with {TOLD}. Survey the model in this state with `gmar_hf.survey`, or leave `head_weights` out."
    )
    with gmar_hf.silence_heads(model, SILENT):
        gmar_hf.explain(model, images, 1, head_weights=silenced_report)
        with pytest.raises(ArgumentError, match=f"as it is now, with {TOLD[:23]}"):
            gmar_hf.explain(model, images, 1, head_weights=report)
        with pytest.raises(ArgumentError, match="`reference` must be of the model as it is now"):
            gmar_hf.centred_head_contribution(model, images, 1, reference=report)


@pytest.mark.slow
def test_evaluations_say_it_and_are_not_joined(model, items, tmp_path):
    whole = evaluate(model, items, target="label")
    with gmar_hf.silence_heads(model, SILENT):
        part = evaluate(model, items, target="label", output_dir=tmp_path)
    assert part.settings["model"]["state"] == TOLD
    assert f"with {TOLD}" in (tmp_path / "index.html").read_text()
    with pytest.raises(ArgumentError, match=r"same settings \(model\)"):
        gmar_hf.evaluation.Evaluation.join([whole, part])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("change", ["switched", "off", "scaled"])
def test_adapters(items, tmp_path, change):
    model = adapted()
    with pytest.raises(Failure):
        survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
    report = survey(model, items)
    assert report.settings["model"]["state"] == "adapters default (scaling 2.0) in 3 modules"
    if change == "switched":
        model.set_adapter("other")
        now = "adapters other (scaling 1.0) in 3 modules"
    elif change == "off":
        model.base_model.disable_adapter_layers()
        now = "all adapters off"
    else:
        for layer in model.base_model.model.vit.layers:
            layer.attention.q_proj.scale_layer(2)
        now = "adapters default (scaling 4.0) in 3 modules"
    with pytest.raises(ArgumentError) as caught:
        survey(model, Counting(items), output_dir=tmp_path)
    assert f"the model had adapters default (scaling 2.0) in 3 modules, and has now {now}." in str(caught.value)
    with pytest.raises(ArgumentError, match=r"`head_weights` must be of the model as it is now, with (all )?adapters"):
        gmar_hf.explain(model, zoo.pixel_values(zoo.vit()), 1, head_weights=report)
    changed = survey(model, items)
    assert changed.settings["model"]["state"] == now
    assert not torch.allclose(changed.mean[KEYS[0]], report.mean[KEYS[0]])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_merged_adapter(items, tmp_path):
    model = adapted()
    with pytest.raises(Failure):
        survey(model, Counting(items, 9, fail), output_dir=tmp_path, save_every=1)
    model.merge_adapter()
    with pytest.raises(
        ArgumentError, match=r"and has now adapters default \(merged\) in 3 modules; the model's weigh"
    ):
        survey(model, Counting(items), output_dir=tmp_path)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # which PEFT asks for
def test_lora_of_parameters_which_are_put_in_place_for_each_forward():
    """PEFT takes the weight away and puts it back in every forward: nobody has changed it."""
    peft = pytest.importorskip("peft")
    try:
        config = peft.LoraConfig(
            r=2, target_parameters=["vit.layers.1.attention.v_proj.weight"], target_modules=["q_proj"]
        )
    except TypeError:
        pytest.skip("this release of PEFT has no `target_parameters`")
    adapted = peft.get_peft_model(name_classes(zoo.vit()), config).eval()
    pixels = zoo.pixel_values(zoo.vit(), batch=4)
    expected = adapted(pixel_values=pixels).logits
    found = gmar_hf.explain(adapted, pixels, method="contribution")
    torch.testing.assert_close(found.logits, expected.detach())
    report = gmar_hf.survey(adapted, [{"pixel_values": image} for image in pixels], batch_size=2)
    assert report.num_images == 4
