"""Explain images that are not square, whole: no crop, no squeezing.

    python examples/non_square.py         # writes non_square.png

Models that can interpolate their position embeddings (ViT, DeiT, DINOv2 and others) take any size that is a multiple
of their patches. Far from the size of their training they get worse: look at the score before you believe the map.
"""

from PIL import Image
from transformers import pipeline

import gmar_hf
from gmar_hf import demo

# Of the Hub: AutoModelForImageClassification.from_pretrained(...), AutoImageProcessor.from_pretrained(...)
model, image_processor = demo.load("vit")

# A wide picture, 128 x 64 pixels: two scenes beside each other. Open one of yours in its place.
image = Image.new("RGB", (128, 64))
for place, scene in enumerate(demo.scenes(2, seed=9, num_garments=1)):
    image.paste(scene["image"], (64 * place, 0))
    print("in the picture:", model.config.id2label[scene["labels"][0]])

# The processor keeps the picture's shape: 64 x 128 pixels are 8 x 16 patches of 8 pixels.
image_processor.size = {"height": 64, "width": 128}
explain = pipeline("gmar-explanation", model=model, image_processor=image_processor)
results = explain(image, top_k=2, method="recommended", interpolate_pos_encoding=True)
for result in results:
    rows, cols = result["attribution"].shape
    print(f"{result['label']}: {result['score']:.2f}, a map of {rows} x {cols} patches on {result['box']}")
gmar_hf.plotting.plot_explanation(image, results).savefig("non_square.png")
