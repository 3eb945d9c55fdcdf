"""Every short script of `examples/` runs as it stands, in this process, and finds what it says it does."""

import contextlib
import io
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

from gmar_hf import demo

EXAMPLES = Path(__file__).parents[2] / "examples"
BAG, SANDAL = 4, 3

# Of peft, when it wraps a model; of transformers' trainer, where there is no accelerator to pin memory for.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]


def execute(name, folder):
    """Run a script where it may write; return its names, what it printed, and its pictures."""
    with torch.random.fork_rng(), contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return names, printed.getvalue(), {path.name: Image.open(path).convert("RGB") for path in folder.glob("*.png")}


def is_coloured(picture):
    """Whether a map is drawn, whose red is nowhere in the picture below it."""
    red, _, blue = picture.split()
    return any(r > b + 120 for r, b in zip(red.get_flattened_data(), blue.get_flattened_data(), strict=True))


def share_on(attribution, mask):
    """The share of a map's positive mass on the patches that a mask touches."""
    patches = torch.from_numpy(mask).unfold(0, 8, 8).unfold(1, 8, 8).any(-1).any(-1)
    return (attribution.clamp(min=0)[patches].sum() / attribution.clamp(min=0).sum()).item()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_scripts_are_short(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    assert 20 <= len(lines) <= 40


def test_a_fine_tuned_classifier_finds_the_bag(tmp_path):
    names, printed, pictures = execute("finetuned", tmp_path)
    bag, no_bag = names["results"]
    assert (bag["label"], no_bag["label"]) == ("bag", "no bag")
    assert bag["score"] > 0.5
    assert f"bag: {bag['score']:.2f}" in printed
    assert share_on(bag["attribution"], names["scene"]["masks"][BAG]) > 0.5
    assert is_coloured(pictures["finetuned.png"])


def test_an_adapter_changes_what_the_bag_says(tmp_path):
    names, printed, pictures = execute("lora", tmp_path)
    before, after = names["before"], names["after"]
    model, _ = demo.load("vit")
    with torch.no_grad():
        torch.testing.assert_close(before.logits, model(names["pixels"]).logits)
    assert before.logits[0, SANDAL] < 0 < after.logits[0, SANDAL]
    assert share_on(after.attribution[0], names["scene"]["masks"][BAG]) > share_on(
        before.attribution[0], names["scene"]["masks"][BAG]
    )
    assert f"with the adapter: logit of sandal {after.logits[0, SANDAL]:+.1f}" in printed
    assert is_coloured(pictures["lora.png"])


def test_a_regression_is_better_than_the_mean(tmp_path):
    names, printed, pictures = execute("regression", tmp_path)
    percent = names["percent"]
    assert names["error"] < 0.8 * (percent - percent.mean()).abs().mean()
    assert f"mean error of 32 scenes {names['error']:.1f}" in printed
    mask = sum(names["scenes"][names["unseen"][0]]["masks"].values()) > 0
    assert share_on(names["explanation"].attribution[0], mask) > 0.5
    assert is_coloured(pictures["regression.png"])


def test_a_wide_picture_is_explained_whole(tmp_path):
    names, printed, pictures = execute("non_square", tmp_path)
    shown = {line.partition(": ")[2] for line in printed.splitlines() if line.startswith("in the picture")}
    assert {result["label"] for result in names["results"]} == shown
    assert [tuple(result["attribution"].shape) for result in names["results"]] == [(8, 16)] * 2
    # The left scene's garment is explained by the left half, the right one's by the right half.
    for side, name in enumerate(line.partition(": ")[2] for line in printed.splitlines()[:2]):
        (result,) = (result for result in names["results"] if result["label"] == name)
        halves = [half.clamp(min=0).sum() for half in result["attribution"].split(8, dim=1)]
        assert halves[side] > halves[1 - side], name
    assert is_coloured(pictures["non_square.png"])


def test_a_callback_explains_each_epoch(tmp_path):
    _, printed, pictures = execute("trainer_callback", tmp_path)
    logits = [float(line.split()[3]) for line in printed.splitlines() if line.startswith("epoch")]
    assert len(logits) == 3
    assert logits[0] < logits[2]
    assert sorted(pictures) == ["epoch-1.png", "epoch-2.png", "epoch-3.png"]
    assert pictures["epoch-1.png"].tobytes() != pictures["epoch-3.png"].tobytes()
    assert all(map(is_coloured, pictures.values()))


def test_rows_of_a_data_set_get_their_maps(tmp_path):
    datasets = pytest.importorskip("datasets")
    names, printed, _ = execute("map_dataset", tmp_path)
    rows = datasets.load_from_disk(str(tmp_path / "explained"))
    pixels = names["image_processor"]([scene["image"] for scene in demo.scenes(24)], return_tensors="pt")
    with torch.no_grad():
        scores, labels = names["model"](**pixels).logits.sigmoid().max(dim=-1)
    assert rows["label"][:] == [names["model"].config.id2label[label] for label in labels.tolist()]
    assert rows["score"][:] == pytest.approx(scores.tolist(), abs=1e-5)
    single = names["explain"](rows[5]["image"], method="recommended")[0]
    torch.testing.assert_close(torch.tensor(rows[5]["map"]), single["attribution"], atol=1e-5, rtol=1e-4)
    contributions = single["head_contribution"].abs()
    assert rows[5]["head"] == [int(place) for place in (contributions == contributions.max()).nonzero()[0]]
    assert len(printed.splitlines()) == 3


def test_a_server_explains_and_refuses_in_sentences(tmp_path):
    pytest.importorskip("fastapi", reason="an optional package of the example")
    pytest.importorskip("httpx", reason="an optional package of the example's test")
    from fastapi.testclient import TestClient

    names, _, _ = execute("serve", tmp_path)
    scene = demo.scenes(1)[0]
    buffer = io.BytesIO()
    scene["image"].save(buffer, format="PNG")
    image, client = buffer.getvalue(), TestClient(names["app"])
    answer = client.post("/explain", content=image, params={"target": "bag", "method": "contribution"})
    assert answer.status_code == 200
    (result,) = answer.json()
    expected = names["explainer"](scene["image"], target="bag", method="contribution")[0]
    assert result["label"] == "bag"
    assert result["score"] == pytest.approx(expected["score"])
    assert torch.tensor(result["attribution"]).allclose(expected["attribution"], atol=1e-6)

    huge = io.BytesIO()
    Image.new("1", (5000, 4001)).save(huge, format="PNG")
    refusals = {
        413: [client.post("/explain", content=b"x" * 5_000_001), client.post("/explain", content=huge.getvalue())],
        415: [client.post("/explain", content=body) for body in (b"", b"GIF89a", image[:99])],
        422: [
            client.post("/explain", content=image, params=params)
            for params in ({"target": "bagg"}, {"method": "gmarr"})
        ],
    }
    for status, answers in refusals.items():
        for answer in answers:
            assert answer.status_code == status
            assert answer.json()["detail"].rstrip()[-1] in ".?"
    assert "bag" in refusals[422][0].json()["detail"]
    assert "gmar" in refusals[422][1].json()["detail"]
