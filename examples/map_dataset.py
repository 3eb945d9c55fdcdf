"""Explain a data set of `datasets`: `map` adds label, map and strongest head to every row, in batches.

    pip install ".[datasets]"             # in a clone of the repository
    python examples/map_dataset.py        # writes the folder explained/, which datasets.load_from_disk opens

For means over many images make a report in place of this: `gmar_hf.survey`, which goes on where it was stopped.
"""

import datasets
from transformers import pipeline

import gmar_hf  # noqa: F401  it makes the task known to transformers
from gmar_hf import demo

# Your data: datasets.load_dataset("imagefolder", data_dir="photos", split="train")
data = datasets.Dataset.from_dict(
    {"image": [scene["image"] for scene in demo.scenes(24)]}, features=datasets.Features({"image": datasets.Image()})
)

# Of the Hub: pipeline("gmar-explanation", model="google/vit-base-patch16-224")
model, image_processor = demo.load("vit")
explain = pipeline("gmar-explanation", model=model, image_processor=image_processor)


def explain_rows(rows):
    """The best label of each picture, its map and its strongest head, as columns."""
    results = [result for [result] in explain(rows["image"], batch_size=8, method="recommended", return_heatmap=False)]
    return {
        "label": [result["label"] for result in results],
        "score": [result["score"] for result in results],
        "map": [result["attribution"].tolist() for result in results],  # 8 x 8 patches, in logits
        "head": [[head["layer"], head["head"]] for result in results for head in result.top_heads(1)],  # from 0
    }


explained = data.map(explain_rows, batched=True, batch_size=8)
explained.save_to_disk("explained")
for row in explained.select(range(3)):
    strongest = max(map(max, row["map"]))
    print(f"{row['label']} {row['score']:.2f}: strongest head {row['head']}, strongest patch {strongest:.2f}")
