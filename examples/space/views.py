"""What a user sees of a look, as HTML in which all text is escaped: maps on their picture, heads as a matrix."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from explaining import MAPS, WITH_HEADS, Look
from PIL import Image
from refusals import Refusal

from gmar_hf import plotting
from gmar_hf.plotting.result_words import ROUGH, account_of, has_amounts, sides_of
from gmar_hf.plotting.values import full_colour, has_sign

SIDE = 480  # pixels of the longer side of what is shown
_FEW = 100  # pixels up to which a picture is shown with its pixels
_NUM_STRONGEST = 5
_ALMOST_ALL = 0.985  # of a picture: what whole patches leave over at an edge is not worth a word
MINUS = "\N{MINUS SIGN}"


def maps_view(look: Look) -> str:
    """Return the maps of the chosen label, side by side."""
    figures = [
        _figure(look, result, MAPS[method].title, MAPS[method].about, method)
        for method, result in look.results.items()
    ]
    share = next(iter(look.results.values())).seen_share
    cropped = f"The model saw only the middle {share:.0%} of the picture; the rest, which is grey, was cropped."
    note = f'<p class="gmar legend">{cropped}</p>' if share < _ALMOST_ALL else ""
    return f'<h3 class="gmar">{_asked(look)}</h3>{note}<div class="gmar maps">{"".join(figures)}</div>'


def heads_view(look: Look) -> str:
    """Return the matrix of heads, layers downwards: a button a head, and the strongest in words."""
    result = look.results[WITH_HEADS]
    contributions = result["head_contribution"]
    num_heads = contributions.shape[1]
    largest = contributions.abs().max().item() or 1.0
    chosen = strongest_head(look)
    cells = ["<span>layer</span>", *(f"<span>{head}</span>" for head in range(num_heads))]
    for layer, row in enumerate(contributions.tolist()):
        cells.append(f"<span>{layer}</span>")
        cells += [_cell((layer, head), value, largest, (layer, head) == chosen) for head, value in enumerate(row)]
    listed = [
        f'<button type="button" data-layer="{head["layer"]}" data-head="{head["head"]}">layer {head["layer"]}, '
        f"head {head['head']} <b>{_signed(head['head_contribution'])}</b></button>"
        for head in result.top_heads(_NUM_STRONGEST)
    ]
    return (
        f'<div class="gmar heads" role="group" aria-label="Heads, a row a layer" style="--heads: {num_heads}">'
        f'{"".join(cells)}</div><p class="gmar legend">{_mark("for")} adds to the label '
        f"{_mark('against')} takes from it <span>full colour: ±{largest:.2g} logits</span></p>"
        f'<div class="gmar strongest"><span>The strongest:</span> {"".join(listed)}</div>'
    )


def head_view(look: Look, layer: int, head: int) -> str:
    """Return the map of one head, and what it adds in words.

    Raises:
        Refusal: If there is no such head.
    """
    result = look.results[WITH_HEADS]
    layers, heads = result["head_contribution"].shape
    if layer not in range(layers) or head not in range(heads):
        raise Refusal("There is no such head. Click on a square of the matrix.")
    value = result["head_contribution"][layer, head].item()
    map_of_head = {**result, "unit": "logits", "attribution": result["head_maps"][layer, head]}
    does = "adds" if value >= 0 else "takes"
    about = f"{does} {abs(value):.2g} logits."
    return f'<div class="gmar maps">{_figure(look, map_of_head, f"Layer {layer}, head {head}", about, "head")}</div>'


def strongest_head(look: Look) -> tuple[int, int]:
    """Return layer and head of the largest contribution, for or against."""
    (strongest,) = look.results[WITH_HEADS].top_heads(1)
    return strongest["layer"], strongest["head"]


def strip_view(pictures: Sequence[tuple[str, Image.Image]]) -> str:
    """Return pictures to choose from, as buttons."""
    buttons = [
        f'<button type="button" data-number="{number}" title="{_text(name)}"><img alt="{_text(name)}" '
        f'src="{_uri(_enlarged(picture, (picture.width * 96 // picture.height, 96)), "JPEG")}"></button>'
        for number, (name, picture) in enumerate(pictures)
    ]
    return f'<p class="gmar legend">Or take one of these:</p><div class="gmar strip">{"".join(buttons)}</div>'


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Return the width and height in which a picture and its maps are drawn."""
    factor = SIDE / max(picture.size)
    return max(1, round(picture.width * factor)), max(1, round(picture.height * factor))


def layer_of(picture: Image.Image, result: Mapping[str, Any]) -> Image.Image:
    """Draw a result's map alone, of the size in which the picture is shown: the page sets its opacity."""
    size = shown_size(picture)
    box = tuple(edge * size[place % 2] / picture.size[place % 2] for place, edge in enumerate(result["box"]))
    is_signed = has_sign(result["attribution"], result["unit"])
    return plotting.map_layer(result["attribution"], size, box=box, style="signed", has_sign=is_signed, alpha=1.0)


def _figure(look: Look, result: Mapping[str, Any], title: str, about: str, kind: str) -> str:
    is_signed = has_sign(result["attribution"], result["unit"])
    width, height = look.picture.size
    left, top, right, bottom = result["box"]
    # What the model does not see is greyed: a frame around what it sees.
    seen = (
        f"left:{100 * left / width:.2f}%;top:{100 * top / height:.2f}%;"
        f"width:{100 * (right - left) / width:.2f}%;height:{100 * (bottom - top) / height:.2f}%"
    )
    photo = _uri(_enlarged(look.picture, shown_size(look.picture)), "JPEG")
    layer = _uri(layer_of(look.picture, result), "PNG")
    limit = full_colour(result["attribution"].numpy())
    sides = [_text(side) for side in sides_of(result)]
    marks = f"{_mark('for')} {sides[0]} {_mark('against')} {sides[1]}" if is_signed else f"{_mark('plain')} looks here"
    amount = f"full colour from {'±' if is_signed else ''}{limit:.2g} {result['unit']} a patch"
    scale = f"<span>{amount if has_amounts(result) else ROUGH}</span>"
    told = [account_of(result).capitalize(), result.get("note")] if kind in MAPS else []
    note = "".join(f"<p>{_text(line)}</p>" for line in told if line)
    name = f" <code>{kind}</code>" if kind in MAPS else ""
    return (
        f'<figure data-kind="{kind}"><div class="photo"><img class="picture" alt="" src="{photo}">'
        f'<img class="layer" alt="{_text(title)}: the map" src="{layer}"><i style="{seen}"></i></div>'
        f'<figcaption><b>{_text(title)}</b>{name}: {about}<p class="legend">{marks} {scale}</p>{note}</figcaption>'
        "</figure>"
    )


def _asked(look: Look) -> str:
    """Say what is explained."""
    result = look.results[WITH_HEADS]
    versus = f", and not <bdi>{_text(result['versus'])}</bdi>" if "versus" in result else ""
    return f"Why <bdi>{_text(result['label'])}</bdi>{versus}?"


def _cell(place: tuple[int, int], value: float, largest: float, is_chosen: bool) -> str:
    layer, head = place
    share = round(100 * abs(value) / largest)
    name = f"layer {layer}, head {head}: {_signed(value)}"
    kind = "for" if value >= 0 else "against"
    shown = _signed(value).lstrip("+") if share >= 10 else ""
    return (
        f'<button type="button" class="{kind}" style="--share: {share}%" data-layer="{layer}" data-head="{head}" '
        f'title="{name}" aria-label="{name}" aria-pressed="{str(is_chosen).lower()}" '
        f'tabindex="{0 if is_chosen else -1}"><span>{shown}</span></button>'
    )


def _mark(kind: str) -> str:
    return f'<i class="{kind}"></i>'


def _signed(value: float) -> str:
    return f"{MINUS if value < 0 else '+'}{abs(value):.2f}"


def _enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    is_small = max(picture.size) <= _FEW
    return picture.resize(size, Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS)


def _uri(picture: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _text(text: object) -> str:
    return html.escape("".join(letter if letter.isprintable() else "�" for letter in str(text)))
