from .reading import image_suffixes, read_image

__all__ = ["image_suffixes", "read_image"]
