"""Explain a number: a regression head in place of labels.

    python examples/regression.py         # writes regression.png

A map of a regression is in the unit of its output: here in percent of the picture. Red patches raise the number, blue
ones lower it; they do not say where the model looks.
"""

import torch
from transformers import AutoModelForImageClassification

import gmar_hf
from gmar_hf import demo

bundled, image_processor = demo.load("vit")
checkpoint = bundled.name_or_path  # for the Hub this line changes, and the processor: "google/vit-base-patch16-224"
torch.manual_seed(0)
settings = dict(dtype=torch.float32, problem_type="regression", ignore_mismatched_sizes=True)
model = AutoModelForImageClassification.from_pretrained(checkpoint, id2label={0: "percent covered"}, **settings)

# Your data: images, and a number each. Here the percentage of the picture that its one or two garments cover.
scenes = [scene for number in (1, 2) for scene in demo.scenes(80, seed=5, num_garments=number)]
pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
percent = torch.tensor([[100.0 * sum(mask.mean() for mask in scene["masks"].values())] for scene in scenes]).float()
learned, unseen = torch.randperm(160).split(128)
model.classifier.bias.data.fill_(percent[learned].mean().item())  # the model begins with the mean, learns the rest
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for batch in learned.repeat(4).split(16):
    optimizer.zero_grad()
    model(pixel_values=pixel_values[batch], labels=percent[batch]).loss.backward()
    optimizer.step()

explanation = gmar_hf.explain(model.eval(), pixel_values[unseen], target=0, method="recommended")  # the only output
error = (explanation.logits - percent[unseen]).abs().mean().item()
print(f"predicted {explanation.logits[0, 0]:.1f} %, true {percent[unseen[0], 0]:.1f} %")
print(f"mean error of {len(unseen)} scenes {error:.1f}")
patches = explanation.attribution[0]
print(f"patches that raise it: {patches.clamp(min=0).sum():+.1f}; that lower it: {patches.clamp(max=0).sum():+.1f}")
picture = scenes[unseen[0]]["image"]
gmar_hf.plotting.overlay(picture, patches, style="signed", least_side=448).save("regression.png")
