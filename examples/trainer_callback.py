"""Watch, epoch by epoch, what a model in training looks at: a callback of transformers' Trainer.

    python examples/trainer_callback.py   # writes epoch-1.png to epoch-3.png

Explanations leave the model as it is: its mode, its gradients and the random numbers of the training.
"""

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import gmar_hf
from gmar_hf import demo


class ExplainEachEpoch(TrainerCallback):
    def __init__(self, image, image_processor, target):
        self.image, self.target = image, target
        self.pixel_values = image_processor(image, return_tensors="pt")["pixel_values"]

    def on_epoch_end(self, args, state, control, model, **kwargs):
        explanation = gmar_hf.explain(model, self.pixel_values.to(model.device), self.target, method="recommended")
        picture = gmar_hf.plotting.overlay(self.image, explanation.attribution[0], style="signed", least_side=448)
        picture.save(f"epoch-{round(state.epoch)}.png")
        print(f"epoch {round(state.epoch)}: logit {explanation.logits[0, self.target].item():+.2f}")


# A trained encoder with a new classifier, and data with a label each. Yours stand here in their place.
model, image_processor = demo.load("vit")
torch.manual_seed(0)
model.classifier.reset_parameters()
scenes = demo.scenes(96, seed=5, num_garments=1)
pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
labels = torch.eye(6)[[scene["labels"][0] for scene in scenes]]
data = [{"pixel_values": pixels, "labels": row} for pixels, row in zip(pixel_values, labels, strict=True)]

settings = TrainingArguments("trained", num_train_epochs=3, learning_rate=5e-4, use_cpu=True, report_to="none")
callback = ExplainEachEpoch(scenes[0]["image"], image_processor, target=scenes[0]["labels"][0])
Trainer(model, settings, train_dataset=data, callbacks=[callback]).train()
