"""HTML pages from the templates of `runtime/templates`.

Each is one file that loads nothing from anywhere, so it works offline and can be passed on. File
and class names are anybody's text: Jinja2 escapes whatever it is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from convoy.runtime.outputs import UTF8
from convoy.utils.files import Remote


def environment() -> Environment:
    """The templates of `runtime/templates`, escaping whatever they are given."""
    loader = PackageLoader("convoy.runtime")
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
    with path.open("w", **UTF8) as file:
        stream.dump(file)
