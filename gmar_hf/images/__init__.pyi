from .flat_patches import images_from_patches
from .reading import image_suffixes, read_image

__all__ = ["image_suffixes", "images_from_patches", "read_image"]
