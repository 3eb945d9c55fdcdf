from .opening import open_data
from .sample import MapData, Sample, StreamData

__all__ = ["MapData", "Sample", "StreamData", "open_data"]
