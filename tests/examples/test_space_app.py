"""The app as users have it: in a real browser, and ten of them at once."""

import base64
import contextlib
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gmar_hf
from gmar_hf import demo
from tests.helpers.browser import CHROMIUM, browsing

SPACE = Path(__file__).parents[2] / "examples" / "space"
PHOTO = SPACE / "pictures" / "elephant.jpg"
MODEL = "Six garments, ViT (comes along)"
SIDE = 480  # of what the page shows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason='gradio is missing: pip install ".[space]"'),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app in a process of its own, without the Hub."""
    log = tmp_path_factory.mktemp("space") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(log.parent / "uploads"), "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(SPACE.parents[1]),
    }  # fmt: skip
    with open(log, "wb") as file:
        app = subprocess.Popen(
            [sys.executable, SPACE / "app.py"], env={**os.environ, **settings}, stdout=file, stderr=file
        )
    try:
        address = f"http://127.0.0.1:{port}/"
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(address) as page:
                assert page.status == 200
                break
            assert app.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        app.terminate()
        app.wait()


@pytest.fixture(scope="module")
def explainer():
    model, image_processor = demo.load("vit")
    return gmar_hf.GMARExplainer(model=model, image_processor=image_processor, device="cpu")


@pytest.fixture(scope="module")
def client(address):
    """Makes clients, each a user of its own."""
    from gradio_client import Client

    return lambda: Client(address, verbose=False)


def drawn(result, picture, values=None, has_sign=True):
    """The map as the public API draws it in the size of the page."""
    scale = SIDE / max(picture.size)
    size = tuple(round(side * scale) for side in picture.size)
    box = [edge * size[place % 2] / picture.size[place % 2] for place, edge in enumerate(result["box"])]
    values = result["attribution"] if values is None else values
    return gmar_hf.plotting.map_layer(values, size, box=box, alpha=1.0, style="signed", has_sign=has_sign)


def assert_same(source, expected):
    """Compares a picture of the page with what it should be; threads may round otherwise."""
    found = np.array(Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))), dtype=int)
    assert found.shape == np.shape(expected)
    assert (np.abs(found - np.array(expected, dtype=int)) > 2).mean() < 0.002


def layers(view):
    return re.findall(r'class="layer"[^>]*src="([^"]*)"', view)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium")
def test_a_photo_a_label_and_a_head_in_a_browser(address, explainer, tmp_path):
    picture = Image.open(PHOTO).convert("RGB")
    ranked = explainer(picture, top_k=2)
    button = "[...document.querySelectorAll('button')].find(one => one.textContent.trim() == 'Explain')"
    src = "document.querySelectorAll('{} img.layer')[{}].src"
    title = "document.querySelector('#maps h3')?.textContent == 'Why {}?'"
    with browsing(tmp_path / "browser") as tab:
        for width in (1280, 390):
            tab.open(address, width, 900)
            tab.wait(button)
            assert tab.run("document.documentElement.scrollWidth") <= width
            before = tab.run("document.querySelector('#picture img').src")
            tab.upload("#picture input[type=file]", PHOTO)
            tab.wait(f"(document.querySelector('#picture img')?.src ?? {before!r}) != {before!r}")
            tab.run(f"{button}.click()")
            tab.wait(title.format(ranked[0]["label"]))
            # A click on the second label: both its maps, and the head that contributes most.
            tab.run("document.querySelectorAll('#labels input')[1].click()")
            label = ranked[1]["label"]
            tab.wait(title.format(label))
            result, gmar = explainer(picture, target=label, method=["recommended", "gmar"], return_head_maps=True)
            assert_same(tab.run(src.format("#maps", 0)), drawn(result, picture))
            assert_same(tab.run(src.format("#maps", 1)), drawn(gmar, picture, has_sign=False))
            head = result.top_heads(1)[0]
            of_head = result["head_maps"][head["layer"], head["head"]]
            assert_same(tab.run(src.format("#head", 0)), drawn(result, picture, of_head))
            # Another head.
            tab.run('document.querySelector(\'#heads [data-layer="2"][data-head="5"]\').click()')
            tab.wait("document.querySelector('#head b').textContent == 'Layer 2, head 5'")
            assert_same(tab.run(src.format("#head", 0)), drawn(result, picture, result["head_maps"][2, 5]))
            pressed = "[...document.querySelectorAll('#heads [aria-pressed=true]')].map(one => one.title)"
            value = result["head_contribution"][2, 5].item()
            said = f"layer 2, head 5: {value:+.2f}".replace("-", "\N{MINUS SIGN}")
            assert tab.run(pressed) == [said]
            # The slider is the colours' opacity, and the screen shows it.
            opacity = "getComputedStyle(document.querySelector('#maps img.layer')).opacity"
            assert float(tab.run(opacity)) == 0.85
            tab.run("document.querySelector('#maps').scrollIntoView()")
            strong = np.array(tab.screenshot(), dtype=int)
            tab.run(
                "(() => { const slider = document.querySelector('input[type=range]'); slider.value = 0;"
                "slider.dispatchEvent(new Event('input', { bubbles: true })); })()"
            )
            tab.wait(f"{opacity} == '0'")
            assert (np.abs(np.array(tab.screenshot(), dtype=int) - strong) > 20).mean() > 0.02
            assert tab.run("document.documentElement.scrollWidth") <= width
            # An error is a sentence, and leaves what was there.
            tab.run("document.querySelector('input[aria-label=Model]').focus()")
            tab.run("document.querySelector('input[aria-label=Model]').select()")
            tab.call("Input.insertText", text="/etc/passwd")
            tab.press("Enter")
            tab.run("new Promise(done => setTimeout(done, 500))")
            tab.run(f"{button}.click()")
            tab.wait("document.body.innerText.includes('The model must be the id of one on the Hub')")
            assert "etc" not in tab.run("document.querySelector('[data-testid=toast-body]').innerText")
            assert tab.run(title.format(label))


def test_ten_at_once_see_their_own_pictures(client, explainer, tmp_path):
    from gradio_client import handle_file

    scenes = [scene["image"] for scene in demo.scenes(10, seed=7)]
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for scene, path in zip(scenes, paths, strict=True):
        scene.save(path)

    def use(path):
        user = client()
        maps, _, _, label, *_ = user.predict(handle_file(path), MODEL, [], api_name="/explain")
        # A second step builds on what the session holds.
        second = label["choices"][1][1]
        again, *_ = user.predict(second, label["value"], [], api_name="/choose")
        return maps, label["value"], again, second

    with ThreadPoolExecutor(10) as pool:
        seen = list(pool.map(use, paths))
    for scene, (maps, first, again, second) in zip(scenes, seen, strict=True):
        ranked = explainer(scene, top_k=2, method="recommended")
        assert [first, second] == [result["target"] for result in ranked]
        assert_same(layers(maps)[0], drawn(ranked[0], scene))
        (versus,) = explainer(scene, method="recommended", target=second, versus=first)
        assert_same(layers(again)[0], drawn(versus, scene))


@pytest.mark.parametrize(
    ("file", "model", "said"),
    [
        (None, "", "There is no picture yet"),
        (PHOTO, "/etc", "must be the id of one on the Hub"),
        (PHOTO, str(SPACE), "must be the id of one on the Hub"),
        (PHOTO, "google/vit-base-patch16-224", "The Hub does not answer"),
        (SPACE / "README.md", "", "must be an intact picture"),
    ],
)
def test_errors_are_sentences(client, file, model, said):
    from gradio_client import exceptions, handle_file

    with pytest.raises(exceptions.AppError, match=said):
        client().predict(file and handle_file(file), model or MODEL, [], api_name="/explain")


def test_a_head_of_no_picture(client):
    from gradio_client import exceptions

    with pytest.raises(exceptions.AppError, match="open for too long"):
        client().predict(api_name="/show_head")


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ({"path": "https://example.org/a.png"}, "A picture must be a file, no address"),
        ({"path": "HTTP://127.0.0.1:1/a.png"}, "null"),
        ({"path": str(PHOTO)}, "null"),
        ({"path": "/etc/passwd"}, "null"),
        ({"path": None, "url": "data:image/png;base64,AAAA"}, "A picture must be a file"),
    ],
)
def test_neither_addresses_nor_the_servers_own_files_are_read(address, picture, said):
    """By requests as no browser and no client makes them; what Gradio itself refuses is refused without a word."""
    data = json.dumps({"data": [{**picture, "meta": {"_type": "gradio.FileData"}}, MODEL, []]}).encode()
    ask = urllib.request.Request(f"{address}gradio_api/call/explain", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(ask) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}gradio_api/call/explain/{event}") as answer:
        text = answer.read().decode()
    assert text.startswith("event: error")
    assert said in text
    assert not [word for word in (str(SPACE.parents[1]), "site-packages", ".py") if word in text]


@pytest.mark.parametrize("path", [SPACE / "app.py", PHOTO, "/etc/passwd", sys.executable])
def test_no_file_of_the_server_is_served(address, path):
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(f"{address}gradio_api/file={path}"):
        pass
    assert caught.value.code in (403, 404)
    caught.value.close()
