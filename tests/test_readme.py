"""The README's code runs as it stands, on stand-ins for what would come from the Hub."""

from pathlib import Path

import pytest

import gmar_hf
from gmar_hf.cli import main
from tests.helpers.documents import MODEL, code_blocks, make_stand_ins

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language, in order."""
    return code_blocks(README, language)


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """A folder with the images that the README names, and a tiny ViT with ImageNet's number of labels."""
    make_stand_ins(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_blocks_run(stand_in):
    namespace: dict = {}
    for block in blocks("python"):
        assert MODEL in block or "explain" in block
        exec(compile(block.replace(MODEL, str(stand_in / "model")), str(README), "exec"), namespace)
    assert (stand_in / "why.png").stat().st_size > 0
    assert len(namespace["result"]["head_contribution"]) == 2  # layers


def run_commands(block, stand_in, monkeypatch, capsys):
    """Runs the lines of a block that are of the command line itself."""
    for line in block.replace("\\\n", " ").strip().splitlines():
        command = line.split("#")[0].replace('"', "").replace(MODEL, str(stand_in / "model")).split()
        if command[0] == "torchrun":
            assert " ".join(command[:5]) == "torchrun --nproc_per_node 8 -m gmar_hf"
            command = ["gmar-hf", *command[5:]]
        assert command[0] == "gmar-hf"
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0, capsys.readouterr().err


def test_commands_are_those_of_the_command_line(stand_in, monkeypatch, capsys):
    (stand_in / "photos").mkdir()
    (stand_in / "holiday").mkdir()
    for folder in ("photos", "holiday"):
        gmar_hf.demo.scenes(1)[0]["image"].save(stand_in / folder / "one.jpg")
    (block,) = (block for block in blocks("bash") if "gmar-hf evaluate" in block)
    run_commands(block, stand_in, monkeypatch, capsys)
    assert sorted(file.name for file in (stand_in / "explained").glob("*.json")) == ["one-2.json", "one.json"]
    assert (stand_in / "explained" / "index.html").stat().st_size > 10_000  # a page to send


def test_commands_over_a_data_set(stand_in, monkeypatch, capsys):
    (stand_in / "photos").mkdir()
    for number, scene in enumerate(gmar_hf.demo.scenes(5)):
        scene["image"].save(stand_in / "photos" / f"{number}.jpg")
    (block,) = (block for block in blocks("bash") if "gmar-hf report" in block)
    run_commands(block, stand_in, monkeypatch, capsys)
    for folder in ("heads", "h8"):
        assert gmar_hf.HeadImportanceReport.from_pretrained(stand_in / folder).num_images == 5


def test_readme_is_short_and_shows_code_at_once():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 85
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("```python") for line in lines[:25])
    assert "{{" not in README.read_text(encoding="utf-8")
