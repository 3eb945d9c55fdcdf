"""What is said of a model that computes otherwise than its weights alone tell, and that equal words compute alike."""

import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError
from gmar_hf.metrics import randomization_check
from gmar_hf.models.model_state import describe_state
from tests.helpers import zoo

# peft 0.21 still calls a method that transformers 5.20 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def adapted():
    """A ViT with two adapters, "default" (alpha / r is 4) and "other" (2), on queries and on queries and values."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(zoo.vit(), LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"]))
    wrapped.add_adapter("other", LoraConfig(r=1, lora_alpha=2, target_modules=["q_proj", "v_proj"]))
    zoo.perturb(wrapped, seed=5, std=0.1)
    return wrapped.eval()


@torch.no_grad()
def logits(model):
    return model(pixel_values=zoo.pixel_values(zoo.vit())).logits


def test_of_a_plain_model():
    assert describe_state(zoo.vit()) is None


def test_silenced_heads_are_named_once_and_in_order():
    model, stranger = zoo.vit(), zoo.vit()
    with gmar_hf.silence_heads(model, [(2, 1), (0, 2)]), gmar_hf.silence_heads(model.vit, [(1, 0), (2, 1)]):
        assert describe_state(model) == "silenced heads 0.2 1.0 2.1 (layer.head)"
        assert describe_state(stranger) is None
    with gmar_hf.silence_heads(model, []):
        assert describe_state(model) is None
    with gmar_hf.retain_attention(model):
        assert describe_state(model) is None
    assert describe_state(model) is None


def test_every_state_of_adapters_has_words_of_its_own(adapted):
    told = {}

    def note(name):
        told[name] = (describe_state(adapted), logits(adapted))

    note("default")
    adapted.base_model.set_adapter(["default", "other"])
    note("both")
    adapted.set_adapter("other")
    note("other")
    with adapted.disable_adapter():
        note("off")
    adapted.base_model.model.vit.layers[1].attention.q_proj.scale_layer(0.5)
    note("one scaled")
    adapted.base_model.model.vit.layers[1].attention.q_proj.unscale_layer()
    adapted.base_model.model.vit.layers[2].attention.q_proj.scale_layer(0.5)
    note("another scaled")
    adapted.base_model.model.vit.layers[2].attention.q_proj.unscale_layer()
    for module in adapted.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(0.5)
    note("all scaled")
    # Whatever computes otherwise is said otherwise.
    names = list(told)
    for place, one in enumerate(names):
        for other in names[:place]:
            assert not torch.allclose(told[one][1], told[other][1], atol=1e-5)
            assert told[one][0] != told[other][0]
    assert told["default"][0].startswith("adapters default (scaling 4.0) in 3 modules, arranged as ")
    assert told["other"][0] == "adapters other (scaling 2.0) in 6 modules"
    assert told["off"][0] == "all adapters off"
    assert "default (scaling 4.0) + other (scaling 2.0) in 3 modules" in told["both"][0]
    assert told["all scaled"][0] == "adapters other (scaling 1.0) in 6 modules"


def test_a_merged_adapter_and_silenced_heads(adapted):
    adapted.set_adapter("other")
    adapted.merge_adapter(["other"])
    with gmar_hf.silence_heads(adapted, [(1, 1)]):
        assert describe_state(adapted) == ("silenced heads 1.1 (layer.head); adapters other (merged) in 6 modules")


def test_modules_that_are_saved_whole():
    """A classifier of the adapter's own takes part while all active adapters have one."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(
        zoo.vit(), LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], modules_to_save=["classifier"])
    )
    assert describe_state(wrapped).startswith("adapters default in 1 module, default (scaling 1.0) in 3 modules, arr")
    with wrapped.disable_adapter():
        assert describe_state(wrapped) == "all adapters off"


def test_adapters_without_a_wrapper():
    """As transformers' own `add_adapter` puts them into a model."""
    from peft import LoraConfig, inject_adapter_in_model

    model = inject_adapter_in_model(LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"]), zoo.vit())
    assert describe_state(model) == "adapters default (scaling 1.0) in 3 modules"
    for layer in model.vit.layers:
        layer.attention.q_proj.enable_adapters(False)
    assert describe_state(model) == "all adapters off"


def test_explanations_tell_it(adapted):
    images = zoo.pixel_values(zoo.vit())
    adapted.set_adapter("other")
    assert gmar_hf.explain(adapted, images, 1).settings["model_state"] == "adapters other (scaling 2.0) in 6 modules"
    assert "model_state" not in gmar_hf.explain(zoo.vit(), images, 1).settings


def test_a_copy_in_another_state_is_no_randomization_check(adapted):
    """The copy would have the silenced heads again, and the adapters that are disabled."""
    model = zoo.vit()
    with gmar_hf.silence_heads(model, [(1, 0)]), pytest.raises(ArgumentError, match="`model` must have all its heads"):
        randomization_check(model, lambda model: pytest.fail("explained"))
    with adapted.disable_adapter(), pytest.raises(ArgumentError, match="`model` must have its adapters enabled"):
        randomization_check(adapted, lambda model: pytest.fail("explained"))
