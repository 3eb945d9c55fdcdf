"""Data sets as samples: an image, the model's indices of its classes, and where its objects are.

The way of one image from [`open_data`] to a [`Sample`]:

1. `opening` finds out what the user has named or passed, and chooses one of the four readers below.
2. `datasets_library` loads what the library `datasets` reads: from the Hub, a saved folder or Parquet files.
3. A reader tells once what the data are (`identity`, with a fingerprint) and then gives sample after sample:
   `folder` reads folders of images; `tables` data sets and streams of `datasets`, whose `columns` it finds first;
   `items` lists and data sets of torch, of which `item_fingerprint` tells one from another.
4. For each sample the reader asks `gmar_hf.images` for the picture, `label_reader` for the model's indices, and
   `masks` for where the objects are. A picture that cannot be read becomes a sample with an `error`.

`sample` says what all readers are ([`MapData`], [`StreamData`]) and what they give.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
