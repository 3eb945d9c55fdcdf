"""What all pages wear: a frame (frame.html.jinja), a style sheet (dress.css), a policy against the network."""

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = "gmar_hf.pages"


def environment(package: str) -> "Environment":
    """Return what renders the templates of a package, which may extend the frame; all values are escaped.

    Args:
        package (`str`): Where the templates lie, such as "gmar_hf.report".
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader(_HERE, ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def render_page(package: str, template: str, *, style: str = "", script: str = "", **values: Any) -> str:
    """Render a page in the frame.

    The page's policy (Content-Security-Policy, level 2) lets a browser load nothing but pictures in the page itself,
    and take for style and script only what is known here, by its hash: text that were not escaped could still not run.

    Args:
        package (`str`): Where the template lies.
        template (`str`): Its name; it extends "frame.html.jinja".
        style (`str`, defaults to ""): Name of a style sheet beside it, which follows the common one.
        script (`str`, defaults to ""): Name of a script beside it.
        **values: What the template shows, and of the frame `noun`: what the page says that it is, such as "report".
    """
    from markupsafe import Markup

    sheet = _text(_HERE, "dress.css") + (_text(package, style) if style else "")
    program = _text(package, script) if script else ""
    policy = f"default-src 'none'; img-src data:; style-src {_hash(sheet)}; script-src "
    policy += f"{_hash(program) if program else repr('none')}; base-uri 'none'; form-action 'none'"
    frame = {"policy": policy, "style": Markup(sheet), "script": Markup(program)}
    return environment(package).get_template(template).render(**frame, **values)


def data_uri(content: bytes, kind: str) -> str:
    """Return a file's content as an address that holds all of it.

    Example:
        >>> data_uri(b"hi", "image/png")
        'data:image/png;base64,aGk='
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
