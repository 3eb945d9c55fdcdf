"""One page for a set of explained images, which can be sent: maps of all labels, methods and heads, to click on."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from typing import Any, Protocol

from gmar_hf._version import __version__
from gmar_hf.errors import ArgumentError
from gmar_hf.images.reading import ImageSource, read_image
from gmar_hf.images.same_image import check_same_image
from gmar_hf.images.sight import seen_share, sight_note
from gmar_hf.pages.dress import data_uri, environment, render_page
from gmar_hf.pages.small_data import MOST_BYTES, check_result, packed_heads, packed_map, photo_bytes, shares_of
from gmar_hf.plotting.result_words import account_of, answer_of, has_amounts, sides_of
from gmar_hf.plotting.saturation import SATURATED
from gmar_hf.plotting.values import has_sign
from gmar_hf.utils.files import replacing
from gmar_hf.utils.own_files import page_images
from gmar_hf.utils.text import printable

PAGE_NOUN = "explanations"
_PACKAGE = "gmar_hf.pages"
_HERE = "<!-- images -->"  # where images come; no value can hold it, since values are escaped
_TINY = 160  # pixels: smaller pictures are enlarged as they are


class AddImage(Protocol):
    """Adds an image to a page: its name, the image, what the pipeline returned for it, and its digest, if any."""

    def __call__(
        self, name: str, image: ImageSource, results: Sequence[Mapping[str, Any]], digest: str | None = None
    ) -> None: ...


def write_page(
    explained: Iterable[tuple[str, ImageSource, Sequence[Mapping[str, Any]]]],
    path: str | os.PathLike[str],
    *,
    title: str = "Explanations",
    methods: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a page that shows the explanations of a set of images, and needs nothing but itself.

    It can be searched by label, methods and labels can be switched, and with `return_head_maps=True` of the pipeline
    each head of the matrix shows what it adds for and against the label, on the scale of the strongest. An image
    takes at most 300 kB: photographs come as JPEGs of at most 640 pixels, head maps become coarser where there are
    many. (Hundreds of labels of one image take more, by their own maps.) Images are taken one at a time, so that a
    generator needs the memory of one.

    Args:
        explained (`Iterable` of tuples): Of each image the name to show, the image (PIL, path or URL) and what
            the pipeline returned for it.
        path (`str` or `os.PathLike`): The HTML file; an old one is replaced at once when the new one is complete.
        title (`str`, defaults to "Explanations"): What stands over the page.
        methods (`Mapping[str, str]`, *optional*): What is said of each method below the images.
        notes (`Sequence[str]`, defaults to ()): Sentences that follow there.

    Raises:
        ArgumentError: If the file cannot be written, an image has no results or another size than theirs, or a map is
            not finite.
        ImageError: If an image cannot be read.

    Example:
        >>> import tempfile, gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> explain = gmar_hf.GMARExplainer(model=model, image_processor=image_processor, device="cpu")
        >>> images = [scene["image"] for scene in gmar_hf.demo.scenes(2)]
        >>> results = (explain(image, method=["recommended", "gmar"], return_head_maps=True) for image in images)
        >>> gmar_hf.pages.write_page(zip("ab", images, results), tempfile.mkdtemp() + "/page.html")
    """
    with open_page(path, title=title, methods=methods, notes=notes) as add_image:
        for name, image, results in explained:
            add_image(name, image, results)


@contextmanager
def open_page(
    path: str | os.PathLike[str],
    *,
    title: str = "Explanations",
    methods: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Iterator[AddImage]:
    """Give what adds an image to a page; the page is at `path` when the block has succeeded. See [`write_page`].

    An image of which a part cannot be written is not on it at all. Where `gmar-hf explain` passes an image's digest
    too, the page tells it, and is known again by it.
    """
    frame = render_page(
        _PACKAGE,
        "explanations.html.jinja",
        noun=PAGE_NOUN,
        style="explanations.css",
        script="explanations.js",
        title=printable(title),
        methods={printable(name): printable(about) for name, about in (methods or {}).items()},
        notes=[printable(note) for note in notes],
        saturated=SATURATED,
        version=__version__,
        here=_marker(),
    )
    before, after = frame.split(_HERE)
    template = environment(_PACKAGE).get_template("explained_image.html.jinja")
    with replacing(path) as temporary, open(temporary, "wb", buffering=0) as file:
        _write_whole(file, before)
        digests: list[str] = []

        def add(
            name: str, image: ImageSource, results: Sequence[Mapping[str, Any]], digest: str | None = None
        ) -> None:
            _write_whole(file, _part_of(template, name, image, results))
            digests.extend([] if digest is None else [digest])

        yield add
        _write_whole(file, after + page_images(digests))


def _write_whole(file: FileIO, text: str) -> None:
    """Write a text to a file, or nothing of it, whatever stops it: a full disk or Ctrl-C."""
    start, rest = file.tell(), memoryview(text.encode())
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:
        file.truncate(start)
        file.seek(start)
        raise


def _part_of(template: Any, name: str, image: ImageSource, results: Sequence[Mapping[str, Any]]) -> str:
    """Return one image's part of the page."""
    if not results:
        raise ArgumentError(f"`explained` must have results for each image; got none for {printable(name)!r:.80}.")
    for result in results:
        check_result(result)
    picture = read_image(image)  # upright, as the pipeline sees it
    check_same_image("explained", picture, results)
    content, (width, height) = photo_bytes(picture)
    labels = list(dict.fromkeys(_label(result) for result in results))
    scores = {_label(result): _scores(result) for result in results}
    shown = {
        "name": printable(name),
        "seen": sight_note(seen_share(results[0]["box"], picture.size)),
        "methods": list(dict.fromkeys(printable(result["method"]) for result in results)),
        "photo": {
            "source": data_uri(content, "image/jpeg"),
            "width": width,
            "height": height,
            "is_tiny": max(width, height) < _TINY,
        },
        "labels": [{"text": label, "score": scores[label]} for label in labels],
        "answer": _answer(results[0]),
    }
    maps = [_result(result, labels.index(_label(result))) for result in results]
    sides = {_label(result): [printable(side) for side in sides_of(result)] for result in results}
    data = {
        "box": shares_of(results[0]["box"], picture.size),
        "labels": labels,
        "sides": [sides[label] for label in labels],
        "maps": maps,
        "heads": [],
    }
    # Head maps get what is left, each label's the same: methods that share their pass share head maps too.
    spent = len(template.render(**shown, data=data).encode())
    distinct, places = _distinct_heads(results)
    for result, place in zip(maps, places, strict=True):
        result["heads"] = place
    each = (MOST_BYTES - spent - 100 - 20 * len(maps)) // max(len(distinct), 1)
    data["heads"] = [packed_heads(result["head_maps"], result["head_contribution"], each) for result in distinct]
    part: str = template.render(**shown, data=data)
    return part


def _result(result: Mapping[str, Any], label: int) -> dict[str, Any]:
    told = {key: printable(result[key]) for key in ("unit", "note") if key in result}
    if account := account_of(result):
        told["account"] = f"{account.capitalize()}."
    packed = packed_map(result["attribution"])
    is_signed = has_sign(result["attribution"], result.get("unit", ""))
    about = {
        "label": label,
        "method": printable(result["method"]),
        "signed": is_signed,
        "amounts": has_amounts(result),
    }
    return {**about, "on_path": "completeness_gap" in result, **packed, **told}


def _distinct_heads(
    results: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[int | None]]:
    """Return the results whose head maps differ from those before them, and for each result the place of its own."""
    distinct: list[Mapping[str, Any]] = []
    places: list[int | None] = []
    for result in results:
        if result.get("head_maps") is None or result.get("head_contribution") is None:
            places.append(None)
            continue
        same = [place for place, known in enumerate(distinct) if _have_same_heads(known, result)]
        if not same:
            distinct.append(result)
        places.append(same[0] if same else len(distinct) - 1)
    return distinct, places


def _have_same_heads(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    pairs = [(first[name], second[name]) for name in ("head_maps", "head_contribution")]
    # Heads that a layer lacks are NaN, and NaN is not itself.
    return all(
        one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
        for one, other in pairs
    )


def _label(result: Mapping[str, Any]) -> str:
    """Say what was explained: two labels where the result tells them apart."""
    names = [printable(result[key]) for key in ("label", "versus") if key in result]
    return ", not ".join(names)


def _answer(first: Mapping[str, Any]) -> dict[str, str] | None:
    """Say what the model answers, where that is neither label of the first result."""
    answer = answer_of(first)
    return {"text": printable(answer), "score": _number(first["predicted_score"])} if answer else None


def _scores(result: Mapping[str, Any]) -> str:
    """Say what the model gives to the label, or to each of two."""
    return " against ".join(_number(result[key]) for key in ("score", "versus_score") if key in result)


def _number(score: float) -> str:
    return f"{float(score):z.3f}" if math.isfinite(score) else "?"


def _marker() -> Any:
    from markupsafe import Markup

    return Markup(_HERE)
