"""How much of a map has the full colour; help texts, which load no NumPy, tell it too."""

SATURATED = 0.05
"""Share of a map's patches, the strongest, that have the full colour: one patch does not leave all others pale."""
