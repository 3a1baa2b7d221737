"""One HTML file of markup, style, scripts and data. The browser is told to load and run nothing else.

Data is JSON inside a script element of a type that is not run, with `<`, `>` and `&` as JSON escapes:
no name of a node can end the element. The page's scripts put names into text nodes only, and the
policy allows exactly the script and the style that are part of the package, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_SCRIPTS = (
    "dom.js", "format.js", "table.js", "plot.js", "difference.js", "suggestion.js", "coverage.js", "time.js",
    "ranges.js", "graph.js", "drawer.js", "summary.js", "main.js",
)  # fmt: skip
"""In this order: each uses what those before it define."""

_STYLES = ("base.css", "parts.css")

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def page_of(document: Mapping[str, Any]) -> str:
    """document : what document_of returns."""
    style = "\n".join(map(_text, _STYLES))
    script = "'use strict';\n(() => {\n" + "\n".join(map(_text, _SCRIPTS)) + "\n})();\n"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(f"{document['file']} - tvm-qat verify"),
        "style": style,
        "script": script,
        "data": _escaped(document),
    }
    return _PLACE.sub(lambda place: parts[place[1]], _text("page.html"))


def _escaped(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(name: str) -> str:
    return (files("tvm_qat.html_report") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
