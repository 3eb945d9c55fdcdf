"""How many random cases a test takes: a few, always the same, or many new ones in a campaign."""

from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "database": None, "print_blob": True, "suppress_health_check": list(HealthCheck)}

FEW = settings(max_examples=20, derandomize=True, **_COMMON)


def many(number: int) -> settings:
    """New cases at every run; a failure prints what repeats it."""
    return settings(max_examples=number, **_COMMON)
