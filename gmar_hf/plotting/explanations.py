"""One figure of an image and its explanations."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.images.reading import ImageSource, read_image
from gmar_hf.images.same_image import check_same_image
from gmar_hf.plotting.heads import HEAD_TITLES, plot_head_importance
from gmar_hf.plotting.painting import OVERLAY_STYLES, colour_words
from gmar_hf.plotting.result_overlay import overlay_of
from gmar_hf.plotting.result_words import ROUGH, account_of, has_amounts, marks_of, sides_of, title_of
from gmar_hf.plotting.saturation import SATURATED
from gmar_hf.plotting.values import finite_array, full_colour, has_sign, plain, scale_of
from gmar_hf.utils.checks import check_choice, check_share

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_WIDTH = 2.6  # inches of a picture, unless it would be very high or low
_LINE, _LINE_HEIGHT = 40, 0.15  # letters of a line below a picture, and inches that it takes
_SMOOTH = 640  # pixels of a picture's longer side, so that its lines are smooth where it is printed
_LEGEND = "below each map its colours and its scale, by patch; in red and blue ones lines surround what is strong"


def plot_explanation(
    image: ImageSource,
    results: Sequence[Mapping[str, Any]] | Mapping[str, Any],
    *,
    style: str = "signed",
    grid: bool = False,
    saturated: float = SATURATED,
    title: str = "",
    figure: "Figure | SubFigure | None" = None,
) -> "Figure | SubFigure":
    """Draw an image, its maps, and its heads' scores: a row a label, a column a method, and the heads at the end.

    Args:
        image (PIL image, path or URL): The image that was explained.
        results (`Sequence[Mapping[str, Any]]`, or one of them): What the pipeline gave for it, of any labels and
            methods.
        style (`str`, defaults to "signed"): "signed", or "positive", which leaves out what speaks against a label.
        grid (`bool`, defaults to `False`): Draw maps patch by patch; see [`overlay`].
        saturated (`float`, defaults to 0.05): Share of a map's patches, the strongest, that all have the full colour,
            so that a few of them do not leave all others pale; 0 gives it to the strongest alone. The scale below
            each map tells.
        title (`str`, defaults to ""): Over the figure.
        figure (`matplotlib.figure.Figure` or `SubFigure`, *optional*): Where to draw; by default a new one, which
            shows itself in Jupyter.

    Returns:
        The figure; `savefig("figure.pdf")` writes it for a paper.

    Raises:
        ArgumentError: If there is nothing to draw, no such style or share, a map that is not finite, or an image of
            another size than the results'.
        ArgumentTypeError: If the results are something else, such as a map alone.
    """
    from gmar_hf.plotting.shown_figure import new_figure

    results = _checked_results(results)
    check_choice("style", style, OVERLAY_STYLES)
    check_share("saturated", saturated)
    picture = read_image(image)
    check_same_image("image", picture, results)
    # Rows and columns, in the order in which labels and methods come.
    rows: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for result in results:
        rows.setdefault((result["label"], result.get("versus")), {})[result["method"]] = result
    methods = list(dict.fromkeys(result["method"] for result in results))
    scores = [_head_scores(of_methods.values()) for of_methods in rows.values()]
    # Inches that the image and the square cells of the heads need, side by side.
    height = min(max(_WIDTH * picture.height / picture.width, 2.0), 4.5)
    widths = [min(height * picture.width / picture.height, 3.5)] * (1 + len(methods))
    shapes = [np.shape(values) for *_, values in scores if values is not None]
    widths += [height * max(heads / layers for layers, heads in shapes) + 1] if shapes else []
    said = [
        {method: _said_below(result, style, saturated) for method, result in of_methods.items()}
        for of_methods in rows.values()
    ]
    room = 0.4 + _LINE_HEIGHT * max(len(lines) for of_methods in said for lines in of_methods.values())
    figure = figure or new_figure(sum(widths) + 1, (height + room) * len(rows) + 0.5)

    # The image stands once, at the left of all rows.
    places = figure.add_gridspec(len(rows), len(widths), width_ratios=widths)
    ax = figure.add_subplot(places[:, 0])
    ax.set_title("image", fontsize="medium")
    _show(ax, picture)
    for number, (of_methods, (of_method, of_scores, unit_of_heads, values)) in enumerate(
        zip(rows.values(), scores, strict=True)
    ):
        for column, method in enumerate(methods, start=1):
            ax = figure.add_subplot(places[number, column])
            ax.set_title(plain(method) if number == 0 else "", fontsize="medium")
            if method not in of_methods:
                ax.set_axis_off()
                continue
            result = of_methods[method]
            how: dict[str, Any] = {"style": style, "grid": grid, "saturated": saturated}
            _show(ax, overlay_of(picture, result, **how, least_side=_SMOOTH))
            ax.set_xlabel("\n".join(plain(line) for line in said[number][method]), fontsize="small")
            if column == 1 or methods[column - 2] not in of_methods:
                name = wrap(title_of(result), _LINE)
                ax.set_ylabel("\n".join(plain(line) for line in name), fontsize="medium")
        if values is not None:
            ax = figure.add_subplot(places[number, -1])
            label = unit_of_heads if has_amounts(of_methods[of_method]) else f"{unit_of_heads}: {ROUGH}"
            plot_head_importance(values, label=label, ax=ax)
            if number == 0:
                ax.set_title(f"{plain(of_scores)}\n({plain(of_method)})", fontsize="medium")
    figure.supxlabel(_LEGEND, fontsize="small")
    if title:
        figure.suptitle(plain(title), fontsize="medium")
    return figure


def _said_below(result: Mapping[str, Any], style: str, saturated: float) -> list[str]:
    """Return the lines below a map: its colours, its scale, how the logit comes about, and what to beware of."""
    attribution = finite_array(result["attribution"], "attribution", "rows", "cols")
    unit = result.get("unit", "")
    scale = scale_of(attribution, style, unit, full_colour(attribution, style, saturated))
    told = [
        *colour_words(style, has_sign(attribution, unit), sides_of(result)),
        *([scale] if has_amounts(result) else []),
        account_of(result),
        *marks_of(result),
    ]
    return [line for part in told for line in wrap(part, _LINE)]


def _checked_results(results: Any) -> Sequence[Mapping[str, Any]]:
    """Return the pipeline's results for one image; refuse all else before it is asked whether it is empty."""
    if isinstance(results, Mapping) and "attribution" in results:
        return [results]
    is_list = isinstance(results, Sequence) and not isinstance(results, str)
    if is_list and not results:
        raise ArgumentError("`results` must hold at least one explained target; got none.")
    if is_list and all(isinstance(result, Mapping) and "attribution" in result for result in results):
        return cast(Sequence[Mapping[str, Any]], results)
    is_batch = is_list and all(isinstance(result, list) for result in results)
    raise ArgumentTypeError(
        "`results` must be the list of dicts that the pipeline gives for one image; got "
        f"{'those of several images' if is_batch else type(results).__name__}. "
        f"{'Draw one after the other.' if is_batch else 'Draw a map with `gmar_hf.plotting.overlay`.'}"
    )


def _head_scores(results: Any) -> tuple[str, str, str, Any]:
    """Return a method, and name, unit and values of its heads' scores: contributions, where there are none weights."""
    for key, (name, unit) in HEAD_TITLES.items():
        for result in results:
            if result.get(key) is not None:
                return result["method"], name, unit, result[key]
    return "", "", "", None


def _show(ax: Any, picture: Image.Image) -> None:
    ax.imshow(picture)
    ax.set(xticks=[], yticks=[])
