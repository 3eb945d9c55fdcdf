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
model = AutoModelForImageClassification.from_pretrained(
    checkpoint,
    dtype=torch.float32,
    id2label={0: "percent covered"},
    problem_type="regression",
    ignore_mismatched_sizes=True,
)


def make_data(num_scenes, seed):
    """Scenes of one or two garments, and the percentage of the picture that these cover."""
    scenes = demo.scenes(num_scenes // 2, seed=seed) + demo.scenes(num_scenes // 2, seed=seed, num_garments=1)
    percent = [100 * sum(mask.mean() for mask in scene["masks"].values()) for scene in scenes]
    pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
    return scenes, pixel_values, torch.tensor(percent, dtype=torch.float32)[:, None]


_, pixel_values, percent = make_data(128, seed=5)
model.classifier.bias.data.fill_(percent.mean().item())  # the model begins with the mean, and learns the rest
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for batch in torch.randperm(128).repeat(4).split(16):
    model(pixel_values=pixel_values[batch], labels=percent[batch]).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.eval()

scenes, pixel_values, percent = make_data(32, seed=6)
explanation = gmar_hf.explain(model, pixel_values, target=0, method="recommended")  # output 0, the only one
error = (explanation.logits - percent).abs().mean().item()
print(f"predicted {explanation.logits[0, 0]:.1f} %, true {percent[0, 0]:.1f} %; mean error of 32 scenes {error:.1f}")
patches = explanation.attribution[0].flatten()
print(f"patches that raise it: {patches.clamp(min=0).sum():+.1f}; that lower it: {patches.clamp(max=0).sum():+.1f}")
picture = gmar_hf.plotting.overlay(scenes[0]["image"], explanation.attribution[0], style="signed")
picture.resize((448, 448)).save("regression.png")
