import html
import re

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from torch import nn

import gmar_hf
from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.labels import check_label_names, find_label
from gmar_hf.utils.text import markdown, printable
from tests.helpers import zoo
from tests.helpers.explainers import image_processor, make_explainer, name_classes, photo
from tests.helpers.sampling import sample_product

LABELS = {0: "tench", 1: "tabby, tabby cat", 2: "Persian cat", 3: "crane", 4: "crane", 5: "3", 6: ""}


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("tench", 0), ("tabby, tabby cat", 1), ("3", 5), ("", 6), (3, 3), (0, 0), (np.int64(4), 4),
        (np.str_("tench"), 0),
    ],
)  # fmt: skip
def test_labels_and_indices_are_found(wanted, index):
    assert find_label(wanted, LABELS) == index
    assert type(find_label(wanted, LABELS)) is int


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("cat", "'tabby, tabby cat', 'Persian cat', 'crane'"),  # those that hold the word come first
        ("PERSIAN CAT", "'Persian cat', 'tench', 'tabby, tabby cat'"),
        ("crown", "'crane', 'tench', 'tabby, tabby cat'"),  # spelled alike; each label once
        ("tensh", "'tench', 'tabby, tabby cat', 'Persian cat'"),
        ("\x1b[2J", "'tench', 'tabby, tabby cat', 'Persian cat'"),  # nothing is near: some of what there is
    ],
)
def test_unknown_labels_name_the_nearest(wanted, near):
    with pytest.raises(ArgumentError) as caught:
        find_label(wanted, LABELS, "versus")
    message = f"`versus` must be one of the model's labels or an index; got {wanted!r}. Near it: {near}."
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)
    assert message.isprintable()


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (
            "crane",
            ArgumentError,
            "`target` must name one class; got 'crane', the label of classes [3, 4]. Pass an index.",
        ),
        *(
            (index, ArgumentError, f"`target` must be an index in [0, 6] or a label; got {index}.")
            for index in (-1, 7, 10**30, np.int64(-3))
        ),
        *(
            (value, ArgumentTypeError, f"`target` must be a label or an index; got {value!r:.80}.")
            for value in (None, True, 1.0, b"tench", ["tench"], np.bool_(True), list(range(10_000)))
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_label(wanted, error, message):
    with pytest.raises(error) as caught:
        find_label(wanted, LABELS)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError if error is ArgumentError else TypeError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tabby, tabby cat", "tabby, tabby cat"),
        ("日本 Ärger [red]x ' \\", "日本 Ärger [red]x ' \\"),
        ("a\x1b[2J\n\tb\r\0", "a\\x1b[2J\\n\\tb\\r\\x00"),
        ("\u202eevil\u2028", "\\u202eevil\\u2028"),  # written right to left, and a line break
        ("\udcff", "\\udcff"),  # of a file name that is not UTF-8
        (3, "3"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()


TEXTS = [
    "tabby, tabby cat",
    "日本 Ärger's (big) T-shirt/top; 50% off?",
    "<script>alert(1)</script>",
    "<!-- a --> <b>bold</b> &lt;i&gt; &copy; <http://e.org>",
    "| a | b |",
    "a|b\\|c",
    "[x](http://e.org) ![x](a.png) [x]: /url [^1]",
    "http://e.org https://e.org/a_b www.e.org mailto:me@e.org WWW.E.ORG",
    "@someone and a@b.org, #12, :smile:",
    "`code` ``` ~~gone~~ *a* **b** _c_ __d__ a_b_c snake_case_ $x$ $$y$$",
    "two\nlines\r\n\n    code\tand\x1b[2J",
    "# heading",
    "- item",
    "+ item",
    "* item",
    "1. item",
    "12) item",
    "3.5 items, 1.",
    "> quote",
    "---",
    "===",
    "    code",
    " ",
    "",
    "\\",
    "\\*a\\*",
    "trailing \\",
    "&amp; &#60;b&#62;",
    "{{ template }} {% x %}",
    "\u202eevil\udcff",
    "~~~",
    "a ^ b ^sup^",
    "1.",
]


def tree(text):
    """The kinds of all that a renderer makes of a text, depth first, and the text that is seen."""
    kinds, seen = [], []
    pending = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    while pending:
        token = pending.pop(0)
        pending = (token.children or []) + pending
        kinds.append(token.type)
        if not token.children and token.type not in ("inline", "softbreak"):
            seen.append(token.content)
    return kinds, "".join(seen).replace("\u200b", "")


WHERE = {
    "alone": "{}",
    "first": "{} is a label",
    "within": "the label {} is one",
    "in a cell": "| label | n |\n| --- | --- |\n| {} | 3 |",
    "first in a row": "a | b\n--- | ---\n{} | 3",
    "in a list": "- {}",
    "in a link's text": "[{}](/there)",
    "emphasized": "**{}**",
    "below a line": "line\n{}",
}


@pytest.mark.parametrize(("text", "where"), sample_product(TEXTS, WHERE))
def test_markdown_shows_just_the_text(text, where):
    kinds, seen = tree(WHERE[where].format(markdown(text)))
    plain_kinds, plain = tree(WHERE[where].format("LABEL" if text else ""))
    assert [kind for kind in kinds if kind != "text_special"] == plain_kinds or not text
    wanted = plain.replace("LABEL", printable(text))
    assert "".join(seen.split()) == "".join(wanted.split())
    assert "\n" not in markdown(text)


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_has_nothing_for_those_who_look_at_the_rendered_text(text):
    # GitHub's and the Hub's renderers make links, mentions and formulas of text, after entities are resolved.
    seen = html.unescape(markdown(text))
    assert not re.search(r"(https?|ftp)://|www\.|mailto:\w|\w@\w|(^|\W)@\w|:smile:|#\d", seen, re.IGNORECASE)
    assert not set("<>`|[]*$") & set(markdown(text))
    assert seen.replace("\u200b", "") == printable(text)


def test_usual_labels_stay_readable():
    usual = "tabby, tabby cat|T-shirt/top|stop_sign|Siamese (cat)|2026-11-22T10:00:00|torch 2.13.0"
    assert [markdown(text) for text in usual.split("|")] == usual.split("|")
    assert markdown(3) == "3"


def with_head(head):
    model = name_classes(zoo.vit())
    model.classifier = head
    return model


class Cosine(nn.Module):
    """A head without linear layers."""

    def __init__(self, num_outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_outputs, 24, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return nn.functional.normalize(x, dim=-1) @ self.weight.T


HEADS = {
    "a linear layer": lambda count: nn.Linear(24, count),
    "several": lambda count: nn.Sequential(nn.Linear(24, 8), nn.GELU(), nn.Linear(8, count)),
    "no linear layer": Cosine,
    "one, and a scale": lambda count: nn.Sequential(nn.Linear(24, count), nn.LayerNorm(count)),
}
KNOWN_BEFORE = ["a linear layer", "several"]


class TestOutputsAndNames:
    """The config of these models has five names."""

    def refused(self, function, *args, **kwargs):
        with pytest.raises(ArgumentError, match="`model` must have a name in its config for every output") as caught:
            function(*args, **kwargs)
        return str(caught.value)

    @pytest.mark.parametrize("count", [12, 2])
    @pytest.mark.parametrize("kind", HEADS)
    def test_at_every_door(self, tmp_path, kind, count):
        model, data = with_head(HEADS[kind](count)), [{"image": photo()}]
        got = f"got {count} outputs and 5 names."
        assert got in self.refused(lambda: make_explainer(model)(photo()))
        assert got in self.refused(gmar_hf.survey, model, data, image_processor(), output_dir=tmp_path / "survey")
        methods = {"methods": ["rollout"], "metrics": ["sparseness"]}
        assert got in self.refused(gmar_hf.evaluate, model, data, image_processor(), **methods)
        if kind in KNOWN_BEFORE:  # before a model is run or a target looked up
            assert got in self.refused(make_explainer, model)
            assert got in self.refused(gmar_hf.survey, model, [], image_processor())
        # `explain` itself gives indices, no names.
        assert gmar_hf.explain(model, zoo.pixel_values(model), count - 1).logits.shape == (2, count)

    @pytest.mark.parametrize("kind", HEADS)
    def test_heads_that_are_named(self, kind):
        model = with_head(HEADS[kind](12))
        model.config.id2label = {index: f"class {index}" for index in range(12)}
        assert make_explainer(model)(photo(), target=11)[0]["label"] == "class 11"

    def test_a_layer_of_another_size_beside_the_output(self):
        model = name_classes(zoo.vit())
        model.projection = nn.Linear(24, 7)
        assert make_explainer(model)(photo())[0]["label"] in model.config.id2label.values()

    @pytest.mark.parametrize(
        ("names", "got"),
        [
            ({index + 1: "x" for index in range(5)}, "got 5 outputs and 5 names for the outputs [1, 2, 3, 4, 5]"),
            ({str(index): "x" for index in range(5)}, "got 5 outputs and 5 names for the outputs ['0', '1', '2',"),
            ({0: "x"}, "got 5 outputs and 1 name."),
        ],
    )
    def test_names_of_other_indices(self, names, got):
        model = zoo.vit()
        model.config.id2label = names
        assert got in self.refused(check_label_names, model)
        assert got in self.refused(make_explainer, model)

    @pytest.mark.parametrize("name", sorted(zoo.MODELS))
    def test_every_family_is_let_through(self, name):
        check_label_names(zoo.MODELS[name]())
        check_label_names(zoo.MODELS[name](), zoo.NUM_LABELS)


def test_names_that_are_no_texts():
    model = zoo.vit()
    for name in (3, None):
        model.config.id2label = {**model.config.id2label, 2: name}
        with pytest.raises(ArgumentError, match=rf"must have texts as names in its config; got {name} for output 2"):
            check_label_names(model)
