"""Fine-tune a classifier on labels of your own, and explain what it says.

    python examples/finetuned.py          # writes finetuned.png

Look whether the red part lies on the bag. Where it lies on the background, the model has learned something else than
you meant, however good its accuracy is.
"""

import torch
from transformers import AutoModelForImageClassification, pipeline

import gmar_hf  # makes the task known to transformers
from gmar_hf import demo

bundled, image_processor = demo.load("vit")
checkpoint = bundled.name_or_path  # for the Hub this line changes, and the processor: "google/vit-base-patch16-224"

# The trained encoder gets a new classifier. Explanations show the names of its outputs.
torch.manual_seed(0)
settings = dict(dtype=torch.float32, problem_type="single_label_classification", ignore_mismatched_sizes=True)
model = AutoModelForImageClassification.from_pretrained(checkpoint, id2label={0: "no bag", 1: "bag"}, **settings)

# Your data: images, and a label each. Garment 4 of the demo's scenes is a bag.
scenes = demo.scenes(128, seed=5)
pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
labels = torch.tensor([int(4 in scene["labels"]) for scene in scenes])
optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-4)
for batch in torch.arange(128).repeat(3).split(8):
    optimizer.zero_grad()
    model(pixel_values=pixel_values[batch], labels=labels[batch]).loss.backward()
    optimizer.step()

# A picture that it has not seen.
explain = pipeline("gmar-explanation", model=model.eval(), image_processor=image_processor)
scene = next(scene for scene in demo.scenes(32, seed=7) if 4 in scene["labels"])
results = explain(scene["image"], target=["bag", "no bag"], method="recommended")
print(f"bag: {results[0]['score']:.2f}; heads that add most logits: {results[0].top_heads(3)}")
gmar_hf.plotting.plot_explanation(scene["image"], results).savefig("finetuned.png")
