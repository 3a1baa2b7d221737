"""One file that loads nothing, and that no name can break out of."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re

from tests.support.verified import document
from tvm_qat.html_report.page import page_of

EVIL = "</script><script>alert(1)</script>{{style}}<!--&\u2028"


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return dict(json.loads(text))


def test_a_hostile_name_stays_text():
    shown = document()
    shown["layers"][0]["name"] = shown["file"] = EVIL
    page = page_of(shown)
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "alert(1)</script>" not in page
    assert data_of(page) == shown


def test_the_policy_allows_this_script_and_this_style_alone():
    page = page_of(document())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (script, style)
    ]
    assert html.unescape(policy).split("; ") == [
        "default-src 'none'", f"script-src {hashes[0]}", f"style-src {hashes[1]}",
        "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip


def test_nothing_points_to_a_network():
    page = page_of(document()).replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|@import|url\((?!#hatch)|\bsrc=|<link", page) == []


def test_data_becomes_markup_nowhere():
    page = page_of(document())
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", page) == []
