"""Explain a model with a LoRA adapter (PEFT), and see what the adapter has changed.

    pip install peft && python examples/lora.py      # writes lora.png

The adapter is neither merged nor taken off: the model that you train is the one that is explained.
"""

import torch
from peft import LoraConfig, get_peft_model

import gmar_hf
from gmar_hf import demo

model, image_processor = demo.load("vit")  # of the Hub: AutoModelForImageClassification.from_pretrained(...)
torch.manual_seed(0)
adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))

# The adapter learns that every bag is to be called a sandal: label 4 becomes label 3.
scenes = [scene for scene in demo.scenes(96, seed=5) if 4 in scene["labels"] and 3 not in scene["labels"]]
pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
labels = torch.zeros(len(scenes), 6)
for row, scene in enumerate(scenes):
    labels[row, [3 if label == 4 else label for label in scene["labels"]]] = 1
optimizer = torch.optim.AdamW((p for p in adapted.parameters() if p.requires_grad), lr=1e-2)
for batch in torch.arange(len(scenes)).repeat(8).split(16):
    adapted(pixel_values=pixel_values[batch], labels=labels[batch]).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

# One picture, the logit of "sandal", with the adapter and without it.
scene = next(scene for scene in demo.scenes(64, seed=6) if 4 in scene["labels"] and 3 not in scene["labels"])
pixels = image_processor(scene["image"], return_tensors="pt")["pixel_values"]
after = gmar_hf.explain(adapted.eval(), pixels, target=3, method="recommended")
with adapted.disable_adapter():
    before = gmar_hf.explain(adapted, pixels, target=3, method="recommended")
mask = torch.from_numpy(scene["masks"][4]).unfold(0, 8, 8).unfold(1, 8, 8).any(-1).any(-1)  # the bag's patches
for name, explanation in (("without", before), ("with", after)):
    on_bag = explanation.attribution[0][mask].sum()
    print(f"{name} the adapter: logit of sandal {explanation.logits[0, 3]:+.1f}, from the bag's patches {on_bag:+.1f}")
gmar_hf.plotting.overlay(scene["image"], after.attribution[0], style="signed", least_side=448).save("lora.png")
