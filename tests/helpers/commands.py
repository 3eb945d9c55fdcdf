"""Running the command line inside the test's own process, and a model folder for it to load."""

import sys

from transformers.utils import logging as transformers_logging

from gmar_hf.cli import main
from tests.helpers.explainers import image_processor, name_classes
from tests.helpers.zoo import NARROW, SQUARE, ViTConfig, ViTForImageClassification, build, image_size

# Labels that would leave the folder, steer the terminal, be read as markup or share a file name.
LABELS = [
    "cat", "tabby, tabby cat", "../../etc", "[red]x", "<b>&", "a\x1b[2J", "long " * 80, "A b", "a/b", "日本", "", "7",
]  # fmt: skip


def save_model(folder, model=None):
    """Writes a model, by default one with `LABELS`, and its image processor as a repository is; gives its name."""
    if model is None:
        model = build(ViTForImageClassification, ViTConfig(**NARROW, **SQUARE, num_labels=len(LABELS)))
        name_classes(model, LABELS)
    model.save_pretrained(folder)
    image_processor(image_size(model)).save_pretrained(folder)
    return str(folder)


def run(monkeypatch, capsys, *arguments):
    """Exit code, standard output and standard error of `gmar-hf` with these arguments."""
    verbosity = transformers_logging.get_verbosity()
    monkeypatch.setattr(sys, "argv", ["gmar-hf", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code
    else:
        code = 0
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    return code, *capsys.readouterr()


def printed(outcome):
    """What a command printed that ended well and said nothing on standard error."""
    code, out, err = outcome
    assert (code, err) == (0, "")
    return out


def refusal(outcome, longest=700):
    """The line, behind the command's name, in which a command ended that printed nothing else."""
    code, out, err = outcome
    assert (code, out) == (1, "")
    assert err.startswith("gmar-hf: ")
    assert len(err.splitlines()) == 1
    assert err[:-1].isprintable()
    assert len(err) < longest
    return err.removeprefix("gmar-hf: ")
