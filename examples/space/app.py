"""Why this label? A page on which anybody sees where in a picture a model's label comes from, and which heads made it.

python app.py                                       # then open the address that it prints
GMAR_SPACE_MODELS=my-model python app.py            # with a model of your own, a folder, to choose by its name
"""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from classifiers import BUNDLED, FOLDERS, SUGGESTED, Shelf
from explaining import ALWAYS, MAPS, Look, explain_label, rank_labels
from PIL import Image
from refusals import Refusal, told
from uploads import MAX_BYTES, bundled_pictures, read_upload
from views import head_view, heads_view, maps_view, strip_view, strongest_head

HERE = Path(__file__).parent
QUEUE = 20  # users that wait; who comes after them is told so
KEPT = 3600  # seconds that a look, and an uploaded file, is kept after its last use

WELCOME = """# Why this label?
An image classifier names what is in a picture. See **where in the picture** its label comes from, and **which of its
attention heads** made it: small parts of the model, several in every layer, each of which looks at the picture in its
own way.
"""
HEADS = """### What each head adds
A row is a layer, from the first to the last; a square is a head. Its colour says how many logits it adds to this
label, or takes from it: logits are the numbers that become percent.
**Click on a square** to see where what it adds comes from: what this head alone adds for and against the label."""
HINT = (
    "The models that come along know six garments only, and see one of them in anything. For photographs take one of "
    "the Hub: it is downloaded first."
)
NOTHING = "anything else"
TO_CHOOSE = [*FOLDERS, *BUNDLED, *SUGGESTED]

shelf = Shelf()


@contextmanager
def in_words() -> Iterator[None]:
    """Turn every error of the block into one that the user reads."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(told(error), print_exception=False) from error


def main() -> None:
    """Serve the app."""
    build().queue(max_size=QUEUE, default_concurrency_limit=1).launch(
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css_paths=HERE / "style.css",
        max_file_size=MAX_BYTES,
        show_error=False,  # but for those that were put into words
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        state_session_capacity=200,
        footer_links=["gradio", "settings"],
    )


def explain(
    picture: Image.Image | None,
    model: str | None,
    more: list[str],
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple[Any, ...]:
    """Show what the model says of the picture, and why it says the first."""
    with in_words():
        if picture is None:
            raise Refusal("There is no picture yet. Drop one, or take one of those below.")
        name = (model or "").strip()
        explainer = shelf.explainer(name, progress)
        progress(0.8, "Asking the model what it sees")
        seen = rank_labels(explainer, name, picture)
        progress(0.9, "Explaining the first label")
        seen = explain_label(seen, explainer, target=seen.labels[0].target, more_maps=more)
        labels = [(f"{label.name}  {_score(label.score)}", label.target) for label in seen.labels]
        others = [(NOTHING, -1), *seen.others]
        knows = f"{html.escape(name)} knows {len(seen.names):,} labels."
        if name in BUNDLED:
            knows += f" It says of each by itself whether it is there, so they do not sum to 100 %. {HINT}"
        return (
            *_views(seen),
            gr.Radio(labels, value=labels[0][1]),
            gr.Dropdown(others, value=-1),
            knows,
            gr.Column(visible=True),
        )


def choose(
    look: Look | None,
    target: int,
    versus: int,
    more: list[str],
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple[Any, ...]:
    """Show why the model says another label, or this and not that."""
    with in_words():
        look = _there(look)
        explainer = shelf.explainer(look.model, progress)
        progress(0.8, "Explaining the label")
        against = None if versus in (None, -1) else versus
        return _views(explain_label(look, explainer, target=target, versus=against, more_maps=more))


def show_head(look: Look | None, event: gr.EventData) -> str:
    """Show what one head looks at."""
    with in_words():
        look = _there(look)
        return head_view(look, event.layer, event.head)


def take(event: gr.EventData) -> Image.Image:
    """Take one of the pictures that come along."""
    with in_words():
        pictures = bundled_pictures()
        if event.number not in range(len(pictures)):
            raise Refusal("There is no such picture. Take another.")
        return pictures[event.number][1]


def build() -> gr.Blocks:
    """Lay the page out, and say what happens when something is clicked."""
    pictures = bundled_pictures()
    with gr.Blocks(title="Why this label?", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as app:
        look = gr.State(None, time_to_live=KEPT)
        gr.Markdown(WELCOME)
        with gr.Row():
            with gr.Column():
                picture = uploadable(
                    gr.Image(
                        pictures[0][1], label="Picture", sources=["upload", "clipboard"], height=280, elem_id="picture"
                    )
                )
                strip = gr.HTML(strip_view(pictures), js_on_load=(HERE / "strip.js").read_text())
            with gr.Column():
                model = gr.Dropdown(
                    TO_CHOOSE,
                    value=TO_CHOOSE[0],
                    allow_custom_value=True,
                    label="Model",
                    info="One of these, or the id of any image classifier on the Hub: click and type owner/name.",
                )
                start = gr.Button("Explain", variant="primary")
                said = gr.Markdown("" if FOLDERS else HINT, elem_id="said", min_height=60)
        with gr.Column(visible=False) as answer:
            with gr.Row():
                label = gr.Radio(
                    [], label="What the model says", info="Click on a label to see why.", elem_id="labels"
                )
                with gr.Column():
                    versus = gr.Dropdown([], label="Why this, and not …", info="What tells two labels apart.")
                    opacity = gr.Slider(0, 100, 85, step=1, label="Opacity of the colours")
            maps = gr.HTML(elem_id="maps")
            more = gr.CheckboxGroup(
                [(MAPS[name].title, name) for name in MAPS if name not in ALWAYS], label="More maps beside these"
            )
            gr.Markdown(HEADS)
            with gr.Row():
                with gr.Column():
                    heads = gr.HTML(js_on_load=(HERE / "heads.js").read_text(), elem_id="heads")
                with gr.Column():
                    head = gr.HTML(elem_id="head")

        shown = [look, maps, heads, head]
        strip.select(take, outputs=picture)
        start.click(explain, [picture, model, more], [*shown, label, versus, said, answer], show_progress_on=said)
        for control in (label, versus, more):
            control.input(choose, [look, label, versus, more], shown, show_progress_on=maps)
        heads.select(show_head, look, head)
        opacity.input(
            None, opacity, js="value => document.documentElement.style.setProperty('--opacity', value / 100)"
        )
    return app


def uploadable(picture: gr.Image) -> gr.Image:
    """Let a component for pictures take uploaded files only, and read them as [`read_upload`] does.

    Left alone, it decodes files of any size, and whoever calls it without a browser may have it fetch addresses.
    """
    own = picture.async_move_resource_to_block_cache

    async def only_files(source: Any) -> str | None:
        with in_words():
            if str(source).lower().startswith(("http:", "https:")):
                raise Refusal("A picture must be a file, no address. Download it, and drop it here.")
            return await own(source)

    def read(payload: Any) -> Image.Image | None:
        with in_words():
            if payload is None:
                return None
            if not payload.path:
                raise Refusal("A picture must be a file. Drop one, or take one of those below.")
            return read_upload(payload.path)

    picture.async_move_resource_to_block_cache = only_files  # type: ignore[method-assign]
    picture.preprocess = read  # type: ignore[method-assign]
    return picture


def _there(look: Look | None) -> Look:
    if look is None:
        raise Refusal("This page has been open for too long, and the picture is gone. Explain it again.")
    return look


def _views(look: Look) -> tuple[Any, ...]:
    """Return a look and all that is seen of it: maps, matrix, and the map of the strongest head."""
    return look, maps_view(look), heads_view(look), head_view(look, *strongest_head(look))


def _score(score: float) -> str:
    return f"{score:.0%}" if 0 <= score <= 1 else f"{score:.2f}"


if __name__ == "__main__":
    main()
