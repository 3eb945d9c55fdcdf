"""The errors users meet. Each is also the built-in error that fits, so plain `except ValueError` works."""


class GMARError(Exception):
    """Base of every error that gmar_hf raises on purpose.

    Attributes:
        is_echo (`bool`): Whether another process of the same survey raises it too, and is the one to tell of it.
    """

    is_echo = False

    def __str__(self) -> str:
        """Return the sentence alone, out of the traceback that torch puts around it in a loader's worker."""
        text = super().__str__()
        if not text.startswith("Caught ") or "\nOriginal Traceback " not in text:
            return text
        return text.rpartition(f"\n{type(self).__module__}.{type(self).__qualname__}: ")[2].strip()


class ArgumentError(GMARError, ValueError):
    """An argument has a value that cannot be used."""


class ImageArgumentError(ArgumentError):
    """An image, or its pixel values, cannot be used; others of its batch can be."""


class ArgumentTypeError(GMARError, TypeError):
    """An argument is of a kind that cannot be used."""


class UnsupportedModelError(GMARError, ValueError):
    """The model's attention, tokens or outputs are of a kind that cannot be explained."""


class NonFiniteError(GMARError, ArithmeticError):
    """Logits or gradients contain NaN or infinity."""


class ImageError(GMARError, OSError):
    """An image cannot be read."""


class ArtifactError(GMARError, OSError):
    """A saved file is missing, corrupt or of another version."""


class HubError(GMARError, OSError):
    """The Hub cannot be reached, or refuses what was asked of it."""
