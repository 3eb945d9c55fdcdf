"""A report's numbers as a table of pandas."""

from typing import Any

import torch

from gmar_hf.errors import GMARError
from gmar_hf.report.statistics import CENTRED, KEYS, HeadStatistics


def to_pandas(overall: HeadStatistics, traits: HeadStatistics | None) -> Any:
    """Return a table with one row a head; see [`HeadImportanceReport.to_pandas`].

    Args:
        overall ([`HeadStatistics`]): Of all explanations.
        traits ([`HeadStatistics`], *optional*): Of what the heads are like.

    Raises:
        GMARError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise GMARError("`to_pandas` must have pandas, which is not installed. Run `pip install pandas`.") from error
    layers, heads = overall.mean["l1"].shape
    columns = {"layer": torch.arange(layers).repeat_interleave(heads), "head": torch.arange(heads).repeat(layers)}
    for key in KEYS:
        columns |= {key: overall.mean[key].flatten(), f"{key}_std": overall.std[key].flatten()}
        columns[f"{key}_standard_error"] = overall.standard_error[key].flatten()
    if CENTRED in overall.mean:
        columns[CENTRED] = overall.mean[CENTRED].flatten()
    if traits is not None:
        columns |= {key: mean.flatten() for key, mean in traits.mean.items()}
    there = ~overall.mean["l1"].flatten().isnan()  # some layers may lack heads
    return pandas.DataFrame({name: column[there].numpy() for name, column in columns.items()})
