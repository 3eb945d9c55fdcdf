"""Pages of the site that stand elsewhere in the repository, so that every text has one source.

mkdocs calls the `on_` functions. Links are written as they hold in the repository; here they become those of the site.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from gmar_hf.cli import app

ROOT = Path(__file__).parents[2]

# Documents of the repository, and where they lie on the site.
PAGES = {
    "AGENTS.md": "tests_for_changes.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples.md",
    "examples/benchmarks/README.md": "benchmarks.md",
    "examples/benchmarks/garments.md": "garments.md",
    "examples/benchmarks/leaderboard.md": "leaderboard.md",
    "examples/costs.md": "costs.md",
    "examples/models.md": "models.md",
    "examples/photos/README.md": "photos.md",
    "examples/scaling.md": "how_to/scaling.md",
    "examples/several_machines.md": "how_to/several_machines.md",
    "examples/which_map.md": "which_map.md",
    "tests/README.md": "tests.md",
}
LANGUAGES = {".py": "python", ".slurm": "bash"}  # files that are shown on a page of their own
# A mark, and the line that stands where no site is made.
LISTED = re.compile(r"<!-- (commands|docstrings) -->\n.*")
LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
SCRIPT = """---
search: {{exclude: true}}
---
# {name}

`````{language}
{text}
`````
"""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add documents of the repository, and every file that a page links to."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for file in list(files.documentation_pages()):
        for target in linked(file):
            uri = place(target)
            if uri.startswith("files/") and uri not in files.src_uris and (ROOT / target).is_file():
                files.append(copied(config, target, uri))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn links of the repository into the site's, and put lists from the code where a page asks for them."""
    home = posixpath.dirname(page.file.src_uri)

    def on_site(link: re.Match[str]) -> str:
        uri = place(repository_path(page.file, link["path"]))
        return posixpath.relpath(uri, home or ".") + (link["anchor"] or "")

    if page.file.src_uri.startswith("files/"):
        return markdown
    lists = {"commands": commands, "docstrings": str}
    return LISTED.sub(lambda mark: lists[mark[1]](), LINK.sub(on_site, markdown))


def linked(file: File) -> Iterator[str]:
    """Yield what a page links to, as paths in the repository."""
    for link in LINK.finditer(LISTED.sub("", file.content_string)):
        yield repository_path(file, link["path"])


def repository_path(file: File, link: str) -> str:
    """Return where a link of a page leads to in the repository."""
    sources = {uri: source for source, uri in PAGES.items()}
    source = sources.get(file.src_uri, f"docs/{file.src_uri}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def place(target: str) -> str:
    """Return where a path of the repository lies on the site."""
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"files/{target}.md" if Path(target).suffix in LANGUAGES else f"files/{target}"


def copied(config: MkDocsConfig, target: str, uri: str) -> File:
    """Return a file of the repository: a script as a page that shows it, anything else as it is."""
    source = ROOT / target
    if source.suffix not in LANGUAGES:
        return File.generated(config, uri, abs_src_path=str(source))
    text = source.read_text(encoding="utf-8").rstrip()
    return File.generated(
        config, uri, content=SCRIPT.format(name=target, language=LANGUAGES[source.suffix], text=text)
    )


def commands() -> str:
    """Return the reference of all commands, as typer knows them."""
    command = typer.main.get_command(app)
    with command.make_context("gmar-hf", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="gmar-hf")
    # The page has a heading of its own, and summaries that are cut off are left to those of the commands.
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text.partition("\n")[2])
    return re.sub(r"^Example: (.*)$", r"```bash\n\1\n```", text, flags=re.MULTILINE)
