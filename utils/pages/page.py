"""Writes HTML pages from `templates/`.

Each page is one file that loads nothing from elsewhere, so it works offline and can be passed on.
File and class names may contain anything: Jinja2 escapes all inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from convoy.utils.files import Remote, naming


def environment() -> Environment:
    """Returns the templates' environment, which escapes all inputs."""
    loader = PackageLoader("convoy.utils.pages")
    return Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def write_page(path: Path | Remote, template: str, **context: Any) -> None:
    """Fills a template, such as "report.html.j2", and writes the page."""
    stream = environment().get_template(template).stream(**context)
    stream.enable_buffering(1000)
    # Escapes a file name that is not UTF-8 rather than ending the run.
    with naming(path), path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(stream)
