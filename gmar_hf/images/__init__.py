"""Pictures and masks, and where a patch lies on them."""

from gmar_hf.images.reading import image_suffixes, read_image

__all__ = ["image_suffixes", "read_image"]
