"""What a survey reads: folders, the Hub, `datasets` and torch, all as samples of an image and the model's indices."""

from gmar_hf.data.opening import open_data
from gmar_hf.data.sample import MapData, Sample, StreamData

__all__ = ["MapData", "Sample", "StreamData", "open_data"]
