"""What the app does without its page: limits, refusals, and HTML in which everything is escaped."""

import base64
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import gmar_hf
from gmar_hf import demo
from tests.helpers.pages import Page

SPACE = Path(__file__).parents[2] / "examples" / "space"
sys.path.insert(0, str(SPACE))
try:
    import classifiers
    import explaining
    import refusals
    import uploads
    import views
finally:
    sys.path.remove(str(SPACE))

WIDTH, HEIGHT = 90, 60


def say(share, text):
    assert 0 <= share <= 1
    assert text


def upload(tmp_path, image, name="photo.png", **settings):
    image.save(tmp_path / name, **settings)
    return tmp_path / name


class TestRefusals:
    @pytest.mark.parametrize(
        "text", ["of /home/me/cat.jpg.", "of '/tmp/x'", r"of C:\Users\me\cat.jpg", "of file:///etc/passwd"]
    )
    def test_no_path_is_told(self, text):
        said = refusals.told(gmar_hf.ImageError(f"It must be one {text}"))
        assert not any(word in said for word in ("home", "tmp", "Users", "etc", "cat"))

    def test_names_addresses_and_fractions_stay(self):
        text = "google/vit is 1/2 of https://hf.co/google/vit and/or so."
        assert refusals.told(refusals.Refusal(text)) == text

    def test_nothing_is_told_of_what_nobody_foresaw(self, caplog):
        said = refusals.told(RuntimeError("secret /srv"))
        assert "secret" not in said
        assert "secret" in caplog.text

    def test_markup_is_text(self):
        assert refusals.told(refusals.Refusal("<img src=x>" + "a" * 1000)).startswith("&lt;img src=x&gt;aaa")
        assert len(refusals.told(refusals.Refusal("a" * 1000))) < 500


class TestUploads:
    def test_a_photograph_comes_upright_and_bare(self, tmp_path):
        exif = Image.Exif()
        exif[274], exif[271] = 6, "camera"  # to be turned by 90 degrees
        path = upload(tmp_path, Image.new("RGB", (40, 20)), "photo.jpg", exif=exif, comment=b"mine")
        picture = uploads.read_upload(path)
        assert (picture.size, picture.mode, picture.info) == ((20, 40), "RGB", {})

    def test_a_large_one_is_shrunk_and_a_small_one_left_alone(self, tmp_path):
        assert uploads.read_upload(upload(tmp_path, Image.new("RGB", (2048, 512)))).size == (1024, 256)
        small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8))
        assert np.array_equal(uploads.read_upload(upload(tmp_path, small)), small)

    def test_pixels_are_counted_before_they_are_decoded(self, tmp_path, monkeypatch):
        path = upload(tmp_path, Image.new("1", (8000, 8000)))
        assert path.stat().st_size < 100_000
        monkeypatch.setattr(Image.Image, "load", None)
        with pytest.raises(refusals.Refusal, match=r"at most 25 million pixels; it has 8000 x 8000"):
            uploads.read_upload(path)

    @pytest.mark.parametrize("name", ["a.gif", "a.tiff", "a.bmp"])
    def test_other_kinds_are_refused_whatever_their_name(self, tmp_path, name):
        path = upload(tmp_path, Image.new("RGB", (8, 8)), name).rename(tmp_path / "a.png")
        with pytest.raises(refusals.Refusal, match="intact picture of kind JPEG, PNG, WEBP"):
            uploads.read_upload(path)

    def test_what_is_broken_deep_or_heavy(self, tmp_path, monkeypatch):
        path = upload(tmp_path, Image.new("RGB", (64, 64)))
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(refusals.Refusal, match="intact"):
            uploads.read_upload(path)
        with pytest.raises(refusals.Refusal, match="8 bits a colour"):
            uploads.read_upload(upload(tmp_path, Image.new("I;16", (8, 8))))
        monkeypatch.setattr(uploads, "MAX_BYTES", 50)
        with pytest.raises(refusals.Refusal, match="at most 0 MB"):
            uploads.read_upload(path)


class TestModels:
    @pytest.fixture
    @staticmethod
    def repo(hub):
        """The bundled ViT on the Hub of the tests; what else it should hold, by path."""

        def add(**files):
            repo = hub.add("you/vit")
            folder = Path(demo.__file__).parent / "vit"
            tree = {path.name: path.read_bytes() for path in folder.glob("*")} | files
            hub.commit(repo, "main", {name: hub.blob(name, data, is_lfs=False) for name, data in tree.items() if data})
            return hub

        return add

    @pytest.mark.parametrize(
        "name", [f"{demo.__path__[0]}/vit", "/etc/passwd", "../space/x", "vit", "https://a.b/c", "a/b/c", "", "./x"]
    )
    def test_no_name_is_taken_for_a_path(self, hub, name):
        with pytest.raises(refusals.Refusal, match="the id of one on the Hub"):
            classifiers.Shelf().explainer(name, say)
        assert hub.requests == []

    def test_a_folder_of_that_name_is_no_model(self, hub, tmp_path, monkeypatch):
        monkeypatch.chdir(demo.__path__[0] + "/..")
        with pytest.raises(refusals.Refusal, match="There is no model demo/vit on the Hub"):
            classifiers.Shelf().explainer("demo/vit", say)

    def test_one_of_the_hub_explains_as_the_bundled_one(self, repo, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        hub = repo(**{"pytorch_model.bin": b"no", "code.py": b"raise SystemExit", "sub/model.safetensors": b"no"})
        shelf = classifiers.Shelf()
        explainer = shelf.explainer("you/vit", say)
        image = demo.scenes(1)[0]["image"]
        mine, bundled = (each(image) for each in (explainer, shelf.explainer(next(iter(classifiers.BUNDLED)), say)))
        assert torch.equal(mine[0]["attribution"], bundled[0]["attribution"])
        # Only what is needed was fetched, at one commit, and nothing of it stays on the disk.
        fetched = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
        assert fetched <= {"config.json", "preprocessor_config.json", "model.safetensors"}
        assert {"config.json", "model.safetensors"} <= fetched
        assert not any("/resolve/main" in line for line in hub.requests)
        assert not list(tmp_path.glob("tmp*"))
        num_requests = len(hub.requests)
        assert shelf.explainer("you/vit", say) is explainer
        assert len(hub.requests) == num_requests

    def test_sizes_are_asked_before_anything_is_fetched(self, repo, monkeypatch):
        monkeypatch.setattr(classifiers, "MAX_MODEL_BYTES", 1_000_000)
        hub = repo()
        with pytest.raises(refusals.Refusal, match=r"at most 1 MB; you/vit has [\d.]+\. Take a smaller one"):
            classifiers.load_from_hub("you/vit", say)
        assert not [line for line in hub.requests if "/resolve/" in line]

    def test_pickles_are_refused(self, repo):
        hub = repo(**{"model.safetensors": None, "pytorch_model.bin": b"no"})
        with pytest.raises(refusals.Refusal, match=r"has no model\.safetensors"):
            classifiers.load_from_hub("you/vit", say)
        assert not [line for line in hub.requests if "/resolve/" in line]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"num_hidden_layers": 10**9}, "at most 64 layers"),
            ({"hidden_size": 1 << 15}, "MB of memory"),
            ({"num_labels": 3, "id2label": {"0": "a", "1": "b", "2": "c"}}, "an image classifier"),
            ({"num_hidden_layers": 7}, "no trained classifier"),
            ({"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}, "without code of its own"),
        ],
    )  # fmt: skip
    def test_configs_that_ask_for_more(self, repo, change, said):
        config = json.loads((Path(demo.__file__).parent / "vit" / "config.json").read_text())
        repo(**{"config.json": json.dumps(config | change).encode(), "code.py": b"raise SystemExit"})
        with pytest.raises(refusals.Refusal, match=said):
            classifiers.load_from_hub("you/vit", say)

    def test_a_private_one_and_a_hub_that_is_down(self, repo, hub):
        repo()
        hub.repos["you/vit"].is_private = True
        with pytest.raises(refusals.Refusal, match="that everybody may read"):
            classifiers.load_from_hub("you/vit", say)
        hub.fail("/api/models", status=500)
        with pytest.raises(refusals.Refusal, match="does not answer"):
            classifiers.load_from_hub("you/vit", say)

    def test_few_are_kept(self, monkeypatch):
        made = []
        monkeypatch.setattr(classifiers, "load_from_hub", lambda name, say: made.append(name) or SimpleNamespace())
        shelf = classifiers.Shelf()
        for name in ("a/a", "b/b", "a/a", "c/c", "a/a", "b/b"):
            shelf.explainer(name, say)
        assert made == ["a/a", "b/b", "c/c", "b/b"]  # a/a was always used of late


class TestViews:
    @pytest.fixture(scope="class")
    @staticmethod
    def explainer():
        model, image_processor = demo.load("vit")
        nasty = ["<script>alert(1)</script>", "${alert(2)} {{ 7 * 7 }}", "\"' onload=x", "a & b", "\u202egnp", "בגד"]
        model.config.id2label = dict(enumerate(nasty))
        return gmar_hf.GMARExplainer(model=model, image_processor=image_processor, device="cpu")

    @pytest.fixture(scope="class")
    @staticmethod
    def look(explainer):
        picture = demo.scenes(1)[0]["image"].resize((WIDTH, HEIGHT))
        look = explaining.rank_labels(explainer, "mine", picture)
        return explaining.explain_label(look, explainer, target=0, versus=2, more_maps=["rollout", "nonsense"])

    def test_maps_are_those_of_the_pipeline(self, look, explainer):
        page = Page(views.maps_view(look))
        assert [found["data-kind"] for found, _ in page.find("figure")] == ["recommended", "gmar", "rollout"]
        layers = page.find("img", **{"class": "layer"})
        expected = explainer(look.picture, method=["recommended", "gmar"], target=0, versus=2)
        for (found, _), result in zip(layers, expected, strict=False):
            is_signed = result["method"] == "recommended"
            box = [edge * 480 / WIDTH for edge in result["box"]]
            how = {"box": box, "style": "signed", "has_sign": is_signed, "alpha": 1.0}
            drawn = gmar_hf.plotting.map_layer(result["attribution"], (480, 320), **how)
            assert np.array_equal(picture_of(found["src"]), drawn)

    def test_labels_are_text(self, look):
        for view in (views.maps_view(look), views.heads_view(look), views.head_view(look, 0, 0)):
            Page(view)  # complains of what is not closed
            assert "<script" not in view
            assert "\u202e" not in view
        assert "Why <script>alert(1)</script>, and not \"' onload=x?" in Page(views.maps_view(look)).texts("h3")

    def test_a_button_a_head(self, look):
        contributions = look.results["recommended"]["head_contribution"]
        buttons = Page(views.heads_view(look)).find("button", **{"aria-pressed": "false"})
        (chosen,) = Page(views.heads_view(look)).find("button", **{"aria-pressed": "true"})
        assert len(buttons) + 1 == contributions.numel()
        place = int(chosen[0]["data-layer"]), int(chosen[0]["data-head"])
        assert contributions[place].abs() == contributions.abs().max()
        view = views.head_view(look, 2, 3)
        drawn = {**look.results["recommended"], "attribution": look.results["recommended"]["head_maps"][2, 3]}
        (layer,) = Page(view).find("img", **{"class": "layer"})
        assert np.array_equal(picture_of(layer[0]["src"]), views.layer_of(look.picture, drawn))

    @pytest.mark.parametrize("place", [(6, 0), (0, 8), (-1, 0), (None, 0), ("0", 0), (0.5, 0)])
    def test_heads_that_are_not_there(self, look, place):
        with pytest.raises(refusals.Refusal, match="no such head"):
            views.head_view(look, *place)

    def test_labels_that_are_not_there(self, look, explainer):
        for target, versus, said in ((6, None, "one of the model's"), (0, -3, "one of the model's"), (1, 1, "itself")):
            with pytest.raises(refusals.Refusal, match=said):
                explaining.explain_label(look, explainer, target=target, versus=versus)

    def test_every_map_is_a_method_and_every_bundled_picture_opens(self, explainer):
        scene = demo.scenes(1)[0]["image"]
        look = explaining.rank_labels(explainer, "mine", scene)
        look = explaining.explain_label(look, explainer, target=1, more_maps=list(explaining.MAPS))
        assert set(look.results) == set(explaining.MAPS)
        assert [(label.target, name) for label, (name, _) in zip(look.labels, look.others, strict=True)] == [
            (target, look.names[target]) for _, target in look.others
        ]
        pictures = uploads.bundled_pictures()
        assert len(Page(views.strip_view(pictures)).find("button")) == len(pictures) == 6


def picture_of(source):
    return np.array(Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))))


def test_the_card_says_what_the_hub_reads():
    import yaml

    front = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (front["sdk"], front["app_file"], front["license"]) == ("gradio", "app.py", "apache-2.0")
    assert (SPACE / front["app_file"]).is_file()
    assert front["models"] == list(classifiers.SUGGESTED)
