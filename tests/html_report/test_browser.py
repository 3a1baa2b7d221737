"""The page in a real browser: it reads, sorts, searches and opens layers, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Page, browser, needs_chromium
from tests.support.verified import document, suggesting, verified, with_fault
from tvm_qat.html_report.layout import layout_of
from tvm_qat.html_report.page import page_of
from tvm_qat.verification import Accuracy

pytestmark = needs_chromium

EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def show(chromium: Page, tmp_path: Path) -> Iterator[Any]:
    """Opens a document in the browser; nothing may go wrong in there or be asked of a network."""
    chromium.messages.clear()
    chromium.requests.clear()
    path = tmp_path / "report.html"

    def opened(shown: dict[str, Any], **how: Any) -> Page:
        path.write_text(page_of(shown), encoding="utf-8")
        chromium.open(path, **how)
        return chromium

    yield opened
    assert chromium.messages == []
    assert set(chromium.requests) <= {path.resolve().as_uri()}


def column(page: Page, section: str, nth: int) -> list[str]:
    rows = f"[...document.querySelectorAll('#{section} .scroll tbody tr')]"
    return list(page.run(f"{rows}.map((row) => row.children[{nth}].textContent)"))


def test_the_worst_layer_is_named_in_the_first_screen(show: Any):
    page = show(document(with_fault("reference", "fc2/add")), width=1280, height=800)
    told, bottom = page.run(
        "(e => [e.textContent, e.getBoundingClientRect().bottom])(document.querySelector('#worst'))"
    )
    assert "fc2/add" in told and "Worst layer" in told and bottom < 800
    assert page.run("document.querySelector('.verdict').getBoundingClientRect().bottom") < 800
    largest = page.run(
        "[...document.querySelectorAll('#difference svg text.strong')].map(t => t.textContent)"
    )
    assert any("fc2/add" in text and "3 steps" in text for text in largest)
    assert page.run("document.querySelectorAll('#difference .column.top').length") > 0


def test_the_verdict_and_the_accuracy_are_told(show: Any):
    accuracy = {name: Accuracy(0.75, 0.99) for name in ("simulation", "reference", "compiled")}
    found = replace(verified(), accuracy=accuracy, failures=("fc1 is 3 steps from the simulation",))
    text = show(document(found)).run("document.body.innerText")
    assert "✕ failed" in text and "fc1 is 3 steps from the simulation" in text
    assert "75% top-1" in text and "top-5 99%" in text
    assert "✓ passed" in show(document()).run("document.body.innerText")


def test_a_suggestion_is_told_with_its_trials(show: Any):
    page = show(document(suggesting()), width=420)
    told = page.run("document.querySelector('#suggested').textContent")
    assert "1 layer, 9 steps -> 0.5; no smaller set does" in told and "fc2/add" in told
    assert "tvm-qat compile --keep-float fc2 'fc2 relu'" in told
    assert column(page, "suggestion", 0) == ["nothing", "fc2, fc2 relu"]
    assert column(page, "suggestion", 3) == ["no", "✓ yes, chosen"]
    assert page.run("document.documentElement.scrollWidth") <= 420
    page.click("#suggested button.link", 0)
    assert "fc2/add" in page.run("document.querySelector('aside').textContent")
    assert page.run("document.querySelectorAll('nav a[href=\"#suggestion\"]').length") == 1
    assert show(document()).run("document.querySelector('#suggestion')") is None


@pytest.mark.parametrize("width", [1280, 800, 420])
def test_nothing_is_wider_than_the_window(show: Any, width: int):
    page = show(document(), width=width, height=800)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_headers_sort_by_mouse_and_by_key(show: Any):
    page = show(document())
    headers = page.run("[...document.querySelectorAll('#layers th button')].map((b) => b.textContent)")
    macs = headers.index("MACs")
    page.click("#layers th button", macs)
    assert column(page, "layers", 1)[:3] == ["fc1", "fc2", "fc3"]
    page.press("Enter")
    assert column(page, "layers", 1)[-4:] != ["fc1", "fc2", "fc3"]
    sort = f"document.querySelectorAll('#layers th')[{macs}].getAttribute('aria-sort')"
    assert page.run(sort) == "ascending"
    assert page.run("document.querySelectorAll('#layers th[aria-sort]').length") == 1
    page.run(f"document.querySelectorAll('#layers th button')[{headers.index('Layer')}].focus()")
    page.press("Enter")
    names = column(page, "layers", 1)
    assert names == sorted(names) and len(names) > 5


def test_search_leaves_the_rows_that_match(show: Any):
    page = show(document())
    before = len(column(page, "layers", 1))
    page.type("#layers input[type=search]", "FC2")
    found = column(page, "layers", 1)
    assert found and len(found) < before and all("fc2" in name for name in found)
    said = page.run("document.querySelector('#layers [role=status]').textContent")
    assert said.startswith(f"{len(found)} of ")
    page.type("#layers input[type=search]", " nothing has this name")
    assert column(page, "layers", 0) == ["nothing matches"]
    page.type("#ranges input[type=search]", "weight")
    cards = page.run("[...document.querySelectorAll('.card h3')].map((e) => e.textContent)")
    assert cards and all("weight" in name for name in cards)


def test_every_plot_and_histogram_is_drawn(show: Any):
    page = show(document(with_fault("compiled", "fc1")))
    assert page.run("document.querySelectorAll('#time figure svg .column').length") > 5
    assert page.run("document.querySelectorAll('#time figure svg .bound').length") == 3
    assert page.run("document.querySelectorAll('#coverage figure svg .column.float').length") > 0
    bars = page.run(
        "[...document.querySelectorAll('.card svg')].map((e) => e.querySelectorAll('.column').length)"
    )
    assert bars and all(count > 0 for count in bars)
    for key in range(4):
        page.click("#difference .choice button", key)
        assert page.run("document.querySelectorAll('#difference figure svg').length") >= 1


def test_plots_are_read_with_the_arrow_keys(show: Any):
    page = show(document())
    page.run("document.querySelector('#coverage figure svg').focus()")
    for _ in range(3):
        page.press("ArrowRight")
    assert "fc1" in page.run("document.querySelector('.tip').textContent")
    page.press("Enter")
    assert page.run("document.querySelector('aside h2').textContent") == "fc1"


def test_a_click_on_a_node_shows_its_layer_and_escape_leaves_it(show: Any):
    page = show(document())
    names = page.run("[...document.querySelectorAll('.node title')].map((e) => e.textContent)")
    (place,) = [i for i, name in enumerate(names) if name.startswith("fc2,")]
    assert page.run("document.querySelector('aside').hidden") is True
    page.click(".node", place)
    assert page.run("document.querySelector('aside h2').textContent") == "fc2"
    assert page.run("document.querySelector('#layers tr[aria-current] th').textContent") == "fc2"
    assert page.run("document.querySelectorAll('aside .histogram').length") > 0
    page.press("Escape")
    assert page.run("document.querySelector('aside').hidden") is True
    page.run(f"document.querySelectorAll('.node')[{place}].focus()")
    page.press("ArrowDown")
    page.press("Enter")
    assert page.run("document.querySelector('aside h2').textContent") == names[place + 1].split(",")[0]


def test_states_differ_by_more_than_colour(show: Any):
    page = show(document())
    kinds = page.run("[...new Set([...document.querySelectorAll('.tag')].map((e) => e.textContent))]")
    assert {"integer", "float"} <= set(kinds)
    dashes = page.run(
        "['integer', 'float', 'absorbed'].map((kind) => getComputedStyle("
        "document.querySelector(`.node.${kind} rect`)).strokeDasharray)"
    )
    assert len(set(dashes)) == 3


CONTRAST = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const color = rgb(getComputedStyle(e).backgroundColor); if (color[3] > 250) return color; } };
  const found = {};
  const texts = "p, h1, h2, h3, td, th, a, button, .tag, .verdict, .sign, svg text";
  for (const e of document.querySelectorAll(texts)) {
    if (!e.textContent.trim() || !e.getClientRects().length || e.closest(".badge")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(rgb(e.closest("svg") ? style.fill : style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found[`${e.tagName} ${e.getAttribute("class")}: ${e.textContent}`] = ratio;
  }
  return found;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(show: Any, scheme: str):
    page = show(document(with_fault("reference", "fc2/add")), scheme=scheme)
    assert page.run(CONTRAST) == {}


def test_dark_follows_the_system_and_the_button(show: Any):
    colour = "getComputedStyle(document.body).backgroundColor"
    light = show(document(), scheme="light").run(colour)
    page = show(document(), scheme="light")
    page.click("#theme")
    dark = page.run(colour)
    assert light != dark and page.run("document.querySelector('#theme').textContent") == "☀ Light"
    page = show(document(), scheme="dark")
    assert page.run(colour) == dark
    page.click("#theme")
    assert page.run(colour) == light and page.run("document.querySelector('#theme').textContent") == "☾ Dark"
    page.click("#theme")
    assert page.run(colour) == dark


def test_a_hostile_name_is_text(show: Any):
    shown = document()
    names = {layer["name"]: f"{EVIL} {layer['name']}" for layer in shown["layers"]}
    for each in [*shown["layers"], *shown["quantizers"], *shown["kernels"], *shown["graph"]["nodes"]]:
        each["name"] = names.get(each["name"], EVIL)
    for finding in shown["findings"]:
        finding["layer"] = names.get(finding["layer"], finding["layer"])
    shown["file"] = shown["model"] = EVIL
    page = show(shown)
    page.click("#worst button")
    assert page.run("window.broken === undefined && document.images.length === 0") is True
    assert page.run("document.querySelector('aside h2').textContent").startswith(EVIL)
    assert page.run("document.querySelector('h1').textContent") == EVIL


def test_three_hundred_layers_are_drawn(show: Any):
    shown = document()
    layer, row = shown["layers"][1], shown["stages"][1]["rows"][0]
    edges = [(i, i + 1) for i in range(299)] + [(i, i + 9) for i in range(0, 290, 5)]
    layout = layout_of([150.0] * 300, edges)
    shown["layers"] += [{**layer, "name": f"block{i}/conv", "state": "integer"} for i in range(300)]
    first = len(shown["layers"]) - 300
    shown["stages"][1]["rows"] += [
        {**row, "layer": first + i, "max_steps": i % 7, "differing": 1} for i in range(300)
    ]
    shown["graph"] = {
        "width": layout.width, "height": layout.height, "routes": layout.routes,
        "nodes": [
            {"name": f"block{i}/conv", "label": f"block{i}", "kind": "operator", "layer": first + i,
             "width": 150, "x": x, "y": y}
            for i, (x, y) in enumerate(layout.places)
        ],
    }  # fmt: skip
    page = show(shown)
    assert page.run("document.querySelectorAll('.node').length") == 300
    assert page.run("document.querySelectorAll('#difference figure svg rect.column').length") > 250
    page.type("#graph input[type=search]", "block299")
    frame, node = page.run(
        "[document.querySelector('.canvas'), document.querySelector('.node.found')].map((e) =>"
        "(b => [b.top, b.bottom])(e.getBoundingClientRect()))"
    )
    assert frame[0] <= node[0] and node[1] <= frame[1]
