"""What an overlay shows: the worked cases are uniform images under maps of a few patches."""

import math

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.images.placement import heatmap, placed_map
from gmar_hf.plotting import map_layer, overlay, side_by_side
from tests.helpers.explainers import photo

# From 1 to -1 and back: on 80 x 8 pixels, patches of 8 x 8.
RAMP = np.array([[1, 0.4, 0.1, 0, 0, 0, -0.1, -0.4, -1, 0]])
SIZE = (80, 8)


def uniform(grey, size=SIZE):
    return Image.new("RGB", size, (grey,) * 3)


def pixels(image):
    return np.asarray(image).astype(int)


def by_patch(array):
    """The pixels of each patch of the ramp that no line runs through: (10, 24, channels)."""
    return np.stack([array[1:-1, 8 * place + 2 : 8 * place + 6].reshape(24, -1) for place in range(10)])


def in_grey(array):
    return array @ np.array([0.299, 0.587, 0.114])


def test_overlay_of_no_heat_is_the_muted_image():
    image = photo()
    laid = overlay(image, Image.new("L", image.size))
    assert (laid.mode, laid.size) == ("RGB", image.size)
    grey = pixels(image.convert("L").convert("RGB"))
    np.testing.assert_allclose(pixels(laid), 0.8 * grey + 0.2 * pixels(image), atol=1)
    for style in ("positive", "signed"):
        np.testing.assert_array_equal(pixels(overlay(image, np.zeros((2, 3)), style=style)), pixels(laid))


@pytest.mark.parametrize("style", ["positive", "signed"])
def test_opacity_is_proportional_to_the_size_of_a_value_and_to_nothing_else(style):
    for scale in (1, 1e-6, 1e6):
        layer = map_layer(RAMP * scale, SIZE, style=style, alpha=0.8, grid=True)
        assert (layer.mode, layer.size) == ("RGBA", SIZE)
        opacity = np.median(by_patch(pixels(layer)), axis=1)[:, 3]
        shown = np.abs(RAMP[0]) if style == "signed" else RAMP[0].clip(0)
        np.testing.assert_allclose(opacity, 0.8 * 255 * shown, atol=1.5)


@pytest.mark.parametrize("style", ["positive", "signed"])
def test_white_stays_white_where_the_map_is_zero(style):
    patches = by_patch(pixels(overlay(uniform(255), RAMP, style=style, grid=True)))
    assert (patches[[3, 4, 5, 9]] == 255).all()
    assert (patches[6:9] == 255).all() == (style == "positive")
    # Weak values tint white; they do not darken it: the least of a tenth keeps nine tenths of the light.
    assert in_grey(patches[[2, 6]]).min() > 0.9 * 255


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_for_is_red_and_against_is_blue_on_any_image(grey):
    patches = by_patch(pixels(overlay(uniform(grey), RAMP, style="signed", grid=True))).mean(axis=1)
    red_over_blue = patches[:, 0] - patches[:, 2]
    assert (red_over_blue[:3] > 10).all()
    assert (red_over_blue[6:9] < -5).all()
    assert (np.diff(red_over_blue[:4]) < 0).all()
    assert (np.diff(red_over_blue[6:9]) < 0).all()


# Machado, Oliveira and Fernandes 2009, severity 1, in linear light.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_colour_blind_tell_for_from_against(blindness):
    patches = np.median(by_patch(pixels(overlay(uniform(255), RAMP, style="signed", grid=True))), axis=1) / 255
    seen = ((patches**2.2) @ np.array(BLINDNESS[blindness]).T).clip(0, 1) ** (1 / 2.2)
    for place in (0, 1):  # against their mirror images
        assert np.abs(seen[place] - seen[8 - place]).max() > 0.2


@pytest.mark.parametrize("grey", [0, 255])
def test_in_grey_only_what_speaks_against_is_striped(grey):
    size, values = (240, 80), np.array([[1.0, 0, -1.0]])
    light = in_grey(pixels(overlay(uniform(grey, size), values, style="signed", grid=True)))
    inner = light[10:-10].reshape(60, 3, 80)[:, :, 10:-10]
    assert inner.std(axis=(0, 2)).round(6).tolist()[:2] == [0, 0]
    assert inner[:, 2].std() > 20
    assert abs(inner[:, 0].mean() - inner[:, 1].mean()) > 40


@pytest.mark.parametrize("grey", [0, 100, 128, 255])
def test_in_grey_lines_surround_what_is_at_least_half_as_strong(grey):
    image, values = uniform(grey, (160, 40)), np.array([[0, 1.0, 0, 0.55, 0, 0.45, 0, -1.0]])
    light = in_grey(pixels(overlay(image, values, style="signed", grid=True)))[20]
    # A patch is 20 pixels wide: its edge, and the pixel before it.
    steps = np.array([np.abs(np.diff(light[20 * place - 3 : 20 * place + 3])).max() for place in range(1, 8)])
    assert (steps[[0, 1, 2, 3, 6]] > 90).all(), steps
    assert steps[[4, 5]].max() < 70, steps


@pytest.mark.parametrize("grey", [0, 60, 128, 200, 255])
def test_the_part_that_a_crop_hides_is_greyed_beyond_a_line_on_any_image(grey):
    image, box = uniform(grey, (120, 100)), (20.0, 0.0, 100.0, 100.0)
    row = pixels(overlay(image, np.zeros((2, 2)), box=box))[50, :, 0]
    assert (row[20:100] == grey).all()
    # A line of either colour is one pixel wide here, the dark one first; beyond is 0.45 of the way to 160.
    assert (row[[19, 100]] == 60).all()
    assert (row[[18, 101]] == 255).all()
    hidden = np.r_[row[:18], row[102:]]
    assert (hidden == round(grey + (160 - grey) * 0.45)).all()
    assert max(abs(int(edge) - grey) for edge in (60, 255, hidden[0])) > 90
    assert pixels(overlay(image, np.zeros((2, 2)), box=(-5.0, 0.0, 125.0, 100.0))).min() == grey


def test_a_map_ends_where_a_crop_ends_and_its_outline_is_closed_there():
    size, box = (120, 100), (20.0, 0.0, 100.0, 100.0)
    nothing = pixels(overlay(uniform(100, size), np.zeros((2, 2)), box=box))
    # As strong as can be, up to the edge: the row of the picture's middle, and a column beside the crop's edge.
    drawn, layer = (draw(np.ones((2, 2)), box) for draw in (
        lambda values, box: pixels(overlay(uniform(100, size), values, box=box, has_sign=True)),
        lambda values, box: pixels(map_layer(values, size, box=box, has_sign=True)),
    ))  # fmt: skip
    hidden = np.ones(120, bool)
    hidden[20:100] = False
    np.testing.assert_array_equal(drawn[:, hidden], nothing[:, hidden])
    assert (layer[:, hidden] == 0).all()
    assert (layer[1:-1, 20, :3] == 255).all()
    assert (layer[1:-1, 99, :3] == 255).all()
    assert (layer[[0, -1], 20:100, :3] == 255).all()  # and where the picture ends
    np.testing.assert_array_equal(layer[1:-1, 21:99], np.broadcast_to(layer[50, 50], (98, 78, 4)))


@pytest.mark.parametrize("style", ["positive", "signed"])
def test_maps_without_a_sign_have_a_colour_of_their_own(style):
    """What is nowhere below 0 says no more than where the model looks, unless it is known to have a sign."""
    looks, known = (
        np.median(by_patch(pixels(map_layer(np.abs(RAMP), SIZE, style=style, grid=True, **how))), axis=1)
        for how in ({}, {"has_sign": True})
    )
    assert looks[0, :3].tolist() == [150, 0, 130]
    assert known[0, :3].tolist() == [208, 52, 10]
    np.testing.assert_array_equal(looks[:, 3], known[:, 3])
    unknown = np.median(by_patch(pixels(map_layer(RAMP, SIZE, style=style, grid=True, has_sign=False))), axis=1)
    assert unknown[0, :3].tolist() == [150, 0, 130]


@pytest.mark.parametrize("grey", [0, 255])
def test_in_grey_stronger_is_told_from_weaker_without_a_sign(grey):
    light = in_grey(by_patch(pixels(overlay(uniform(grey), np.abs(RAMP), grid=True))).mean(axis=1))
    assert (np.diff(np.abs(light[:4] - grey)) < -3).all()


def test_one_strong_patch_leaves_others_their_colour():
    """Of 100 patches the strongest five have the full colour: the fifth is 0.5, and 0.25 has half of it."""
    values = np.zeros((1, 100))
    values[0, :8] = 100, 0.8, 0.7, 0.6, 0.5, 0.5, 0.25, -0.25
    layer = pixels(map_layer(values, (800, 8), style="signed", alpha=1.0, grid=True))
    opacity = layer[4, 4:64:8, 3]
    np.testing.assert_allclose(opacity, [255] * 6 + [127.5] * 2, atol=2)
    whole = pixels(map_layer(values, (800, 8), style="signed", alpha=1.0, grid=True, limit=100))
    assert whole[4, 12:64:8, 3].max() < 5


def test_small_images_are_enlarged_before_anything_is_drawn():
    image, box = photo(), (0, 0, 30, 40)
    width, height = image.size
    large = image.resize((11 * width, 11 * height), Image.Resampling.BICUBIC)
    drawn = overlay(image, RAMP, box=box, style="signed", least_side=11 * max(image.size) - 1)
    expected = overlay(large, RAMP, box=(0, 0, 330, 440), style="signed")
    np.testing.assert_array_equal(pixels(drawn), pixels(expected))
    assert overlay(image, RAMP, least_side=max(image.size)).size == image.size
    heat = Image.new("L", image.size, 255)
    assert overlay(image, heat, least_side=2 * max(image.size)).size == (2 * width, 2 * height)


def test_a_grid_shows_patches_as_they_are():
    values = np.array([[1.0, 0.2], [-0.6, 0.0]])
    laid = pixels(overlay(uniform(0, (40, 20)), values, grid=True))
    for patch in (laid[2:8, 2:18], laid[2:8, 23:38], laid[13:18, 2:18], laid[13:18, 23:38]):
        assert np.ptp(patch.reshape(-1, 3), axis=0).max() == 0
    assert (laid[15, 20] > 20).all()  # a line where there is no heat
    smooth = pixels(overlay(uniform(0, (40, 20)), values))
    assert np.ptp(smooth[2:8, 2:18].reshape(-1, 3), axis=0).max() > 20


def test_a_map_and_its_heatmap_look_alike():
    image, box = photo(size=(90, 60)), (10.0, 5.0, 70.0, 60.0)
    values = np.random.default_rng(0).normal(size=(4, 5))
    # A heatmap knows no sign: without a word it is taken for where the model looks.
    for signed, how in ((values, {"has_sign": True}), (np.abs(values), {})):
        drawn = pixels(overlay(image, heatmap(signed, box, image.size), box=box, **how))[6:60, 11:70]
        expected = pixels(overlay(image, torch.tensor(signed), box=box, limit=signed.max()))[6:60, 11:70]
        assert (np.abs(expected - drawn).max(axis=-1) > 8).mean() < 0.02  # but for a line that moved by a pixel


def test_a_colour_map_of_the_users():
    hot = pixels(overlay(uniform(0), RAMP, alpha=1.0, colormap="viridis", grid=True))
    np.testing.assert_allclose(hot[4, 4], np.array(matplotlib.colormaps["viridis"](1.0)[:3]) * 255, atol=1)
    signed = pixels(overlay(uniform(0), RAMP, style="signed", alpha=1.0, colormap="PuOr_r", grid=True))
    np.testing.assert_allclose(signed[4, 68], np.array(matplotlib.colormaps["PuOr_r"](0.0)[:3]) * 255, atol=1)
    cold = overlay(photo(), np.ones((2, 2)), alpha=0.0)
    np.testing.assert_array_equal(pixels(cold), pixels(overlay(photo(), np.zeros((2, 2)))))


@pytest.mark.parametrize("style", ["positive", "signed"])
def test_a_caption_stands_below_with_the_scale(style):
    image, values = photo(size=(300, 200)), np.array([[0.25, -0.5]])
    plain = overlay(image, values, style=style)
    laid = overlay(image, values, style=style, caption="a label\nthat is \x1b long " + "x" * 200)
    assert laid.width == 300
    assert laid.height > 220
    np.testing.assert_array_equal(pixels(laid)[:200], pixels(plain))
    strip = pixels(laid)[200:]
    is_coloured = (np.ptp(strip, axis=-1) > 30).any(axis=1)
    first, second = np.split(strip, [np.argmax(is_coloured)])
    assert (first.max(axis=-1) < 60).any()
    assert (first.max(axis=-1) == first.min(axis=-1)).all()  # black on white; the colours are below
    blue, red = (second[..., 2] - second[..., 0] > 60, second[..., 0] - second[..., 2] > 60)
    assert red.any()
    assert blue.any() == (style == "signed")
    if style == "signed":
        assert np.nonzero(blue)[1].mean() < np.nonzero(red)[1].mean()
    of_picture = overlay(image, Image.new("L", image.size), caption="label")
    assert 200 < of_picture.height < laid.height  # without a scale, which a picture has lost


def test_captions_of_tiny_images_and_other_scripts():
    for size in ((8, 8), (60, 40), (3, 400)):
        assert overlay(photo(size=size), np.ones((2, 2)), caption="Кошка 日本", style="signed").width == size[0]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_overlay_on_images_of_every_mode(mode):
    image = photo().convert(mode)
    before = image.tobytes()
    assert overlay(image, Image.new("L", image.size, 128)).mode == "RGB"
    assert image.tobytes() == before


def test_pictures_take_nothing_of_the_image_but_its_colours():
    image = photo().convert("P")
    image.info.update(transparency=0, icc_profile=b"of another", dpi=(1, 1))
    laid = overlay(image, np.ones((2, 2)))
    assert laid.info == side_by_side({"a": laid, "b": image}).info == {}
    np.testing.assert_array_equal(pixels(laid), pixels(overlay(image.convert("RGB"), np.ones((2, 2)))))


def test_an_overlay_is_turned_as_the_pipeline_turns_the_image():
    image, values = photo(), np.array([[1.0, 0.5], [0.0, 0.2]])
    turned = image.transpose(Image.Transpose.ROTATE_270)
    turned.getexif()[0x0112] = 8
    np.testing.assert_array_equal(pixels(overlay(turned, values)), pixels(overlay(image, values)))


@pytest.mark.parametrize(
    ("heat", "settings", "message"),
    [
        (Image.new("L", (40, 60)), {}, "`heatmap` must be of the image's size (60, 40); got (40, 60)."),
        (
            Image.new("L", (60, 40)),
            {"style": "signed"},
            '`heatmap` must be a map, such as result["attribution"]; got a picture, which has no signs for '
            'style="signed". Pass the map and its `box`.',
        ),
        (
            Image.new("L", (60, 40)),
            {"grid": True},
            '`heatmap` must be a map, such as result["attribution"]; got a picture, which has no patches for `grid`. '
            "Pass the map and its `box`.",
        ),
        (RAMP, {"alpha": -0.1}, "`alpha` must be a share in [0, 1]; got -0.1."),
        (RAMP, {"alpha": math.nan}, "`alpha` must be a share in [0, 1]; got nan."),
        (
            RAMP,
            {"style": "singed"},
            "`style` must be one of \"positive\", \"signed\"; got 'singed'. Did you mean 'signed'?",
        ),
        (
            RAMP,
            {"colormap": "lava"},
            "`colormap` must be one that matplotlib knows, such as 'viridis'; got 'lava'.",
        ),
        (
            np.ones((2, 2, 2)),
            {},
            "`attribution` must be a finite map of shape (rows, cols); got shape (2, 2, 2) with ",
        ),
        (
            np.array([[math.nan]]),
            {},
            "`attribution` must be a finite map of shape (rows, cols); got shape (1, 1) with ",
        ),
    ],
)
def test_overlay_refuses(heat, settings, message):
    with pytest.raises(ArgumentError) as caught:
        overlay(photo(), heat, **settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "box", [(0, 0, 1), (5, 0, 1, 4), (0, 0, 4, 0), (0, 0, math.nan, 4), (0, 0, math.inf, 4), "box"]
)
def test_boxes_that_are_no_rectangles(box):
    for draw in (
        lambda: overlay(photo(0), torch.ones(2, 2), box=box),
        lambda: map_layer(torch.ones(2, 2), (8, 8), box=box),
        lambda: heatmap(torch.ones(2, 2), box, (8, 8)),
        lambda: placed_map(torch.ones(2, 2), box, (8, 8)),
    ):
        with pytest.raises(ArgumentError, match="`box` must be left, top, right and bottom of a rectangle"):
            draw()


def test_captions_that_are_no_texts():
    with pytest.raises(ArgumentTypeError, match="`caption` must be a text; got int"):
        overlay(photo(0), torch.ones(2, 2), caption=3)


def test_a_limit_gives_larger_values_the_full_colour():
    for style in ("positive", "signed"):
        cut = overlay(uniform(128), RAMP, style=style, grid=True, limit=0.4)
        expected = overlay(uniform(128), RAMP.clip(-0.4, 0.4), style=style, grid=True)
        np.testing.assert_array_equal(pixels(cut), pixels(expected))
        layer = map_layer(RAMP, SIZE, style=style, grid=True, limit=0.4)
        np.testing.assert_array_equal(
            pixels(layer), pixels(map_layer(RAMP.clip(-0.4, 0.4), SIZE, style=style, grid=True))
        )
    paler = pixels(map_layer(RAMP, SIZE, grid=True, limit=2))
    np.testing.assert_allclose(np.median(by_patch(paler), axis=1)[:2, 3], [0.425 * 255, 0.17 * 255], atol=2)


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf, "1", True])
def test_limits_that_are_none(limit):
    with pytest.raises(ArgumentError, match="`limit` must be a number above 0; got "):
        overlay(photo(0), RAMP, limit=limit)


@pytest.mark.parametrize("sides", ["for", ("for",), ("for", 1), None])
def test_sides_that_are_no_pair_of_texts(sides):
    with pytest.raises(ArgumentTypeError, match="`sides` must be a pair of texts; got "):
        overlay(photo(0), RAMP, caption="a label", sides=sides)


BOTH, LOOKS = "red: for; blue stripes: against; ", "magenta: looks here"


def said_below(monkeypatch, *values, **settings):
    """What `overlay` has put below a picture: text, whether there is a bar that is blue somewhere, its ends, text."""
    found = {}

    def keep(picture, text, bar, ends, below):
        levels = None if bar is None else np.asarray(bar).astype(int)
        found.update(
            text=text,
            ends=ends,
            below=below,
            is_blue=bool((levels[..., 2] > 1.5 * levels[..., 0])[levels[..., 3] > 60].any()),
        )
        return picture

    monkeypatch.setattr("gmar_hf.plotting.overlays.put_below", keep)
    overlay(photo(0), np.array([values]), caption="a label", **settings)
    return tuple(found[name] for name in ("ends", "is_blue", "below"))


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ((0.25, -0.5), {"style": "signed"}, (("-0.5", "0.5"), True, f"{BOTH}outlined: 0.25 or more, either way")),
        ((0.25, 0.0), {"style": "signed"}, (("0", "0.25"), False, LOOKS)),
        ((0.25, 0.0), {"has_sign": True}, (("0", "0.25"), False, "red: for; outlined: 0.12 or more")),
        ((0.25, -0.5), {}, (("0", "0.25"), False, "red: for; outlined: 0.12 or more")),
        (
            (0.25, -0.5),
            {"style": "signed", "limit": 0.1},
            (("≤ -0.1", "≥ 0.1"), True, f"{BOTH}outlined: 0.05 or more, either way"),
        ),
        ((0.25, 0.5), {"limit": 0.1}, (("0", "≥ 0.1"), False, LOOKS)),
        ((0.25, 0.5), {"limit": 2}, (("0", "2"), False, LOOKS)),
        ((0.25, 0.5), {"limit": 2, "colormap": "Reds"}, (("0", "2"), False, "")),
        ((8.0, 4.0, *[0.5] * 38), {}, (("0", "≥ 4"), False, LOOKS)),  # 2 of 40 patches
        (
            (0.25, -0.5),
            {"style": "signed", "sides": ("for a", "for b"), "has_numbers": False},
            (("", ""), True, "red: for a; blue stripes: for b; outlined: half of the full colour or more, either way"),
        ),
    ],
)  # fmt: skip
def test_what_a_caption_says_of_the_scale(monkeypatch, values, settings, expected):
    assert said_below(monkeypatch, *values, **settings) == expected
