"""Rendering a page as one file that loads nothing from elsewhere."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from sgbench.core.errors import InputError
from sgbench.core.words import printable_lines
from sgbench.report.page.content import Content
from sgbench.report.tables import Table, to_html

MOST_BYTES = 30_000_000
"""Maximum size of a page, so that it can still be sent around."""


def render(content: Content) -> str:
    """Return a page as HTML.

    Its policy forbids every connection, and any style and script but its own, which are known by their hashes.

    Raises:
        InputError: If it would have more than `MOST_BYTES`.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    environment.filters |= {"fragment": _fragment, "data": _data, "note": _note}
    style, script = _text("page.css"), _text("page.js")
    page = environment.from_string(_text("template.html")).render(
        page=content,
        style=Markup(style),  # our own file
        script=Markup(script),
        policy=(
            f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    )
    if (size := len(page.encode())) > MOST_BYTES:
        raise InputError(
            f"the page would have {size / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}; show less of the store with "
            "--backbone, --loss, --seeds, --test or --metric."
        )
    return page


def _printable(value: Any) -> Any:
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the hash by which a policy identifies a style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _fragment(table: Table) -> Markup:
    """Return a table without its notes, which are below it and need not scroll with it."""
    return Markup(to_html(replace(table, notes=())))  # it escapes what it is given


def _note(text: str) -> Markup:
    """Return a note, with text between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(printable_lines(text)))))


def _data(value: Any) -> Markup:
    """Return plain values as JSON that cannot close the element that contains it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
