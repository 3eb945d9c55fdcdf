"""Documents whose code runs as it stands, on stand-ins for what would come from the Hub."""

import re

import typer
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from gmar_hf import demo
from gmar_hf.cli import app
from tests.helpers.dual_encoders import clip, tokenizer

MODEL = "google/vit-base-patch16-224"
CLIP = "openai/clip-vit-base-patch32"


def code_blocks(document, language):
    """The fenced blocks of a language in a Markdown file, in order; those in lists lose their indent."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]


def check_command(words):
    """Refuses options that a command of `gmar-hf` does not have, and values that it does not take; runs nothing."""
    command = typer.main.get_command(app).commands[words[0]]
    with command.make_context(words[0], words[1:]):
        pass


def make_stand_ins(folder):
    """Puts the images that documents name into a folder, a tiny ViT with ImageNet's number of labels, and a CLIP."""
    labels = {index: f"class {index}" for index in range(1000)}
    labels.update({281: "tabby, tabby cat", 282: "tiger cat", 287: "lynx, catamount"})
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
    )
    ViTForImageClassification(config).save_pretrained(folder / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    for part in (clip(), tokenizer(), ViTImageProcessorPil(size={"height": 32, "width": 32})):
        part.save_pretrained(folder / "clip")
    for name, scene in zip(("cat.jpg", "a.jpg", "b.jpg"), demo.scenes(3), strict=True):
        scene["image"].save(folder / name)
