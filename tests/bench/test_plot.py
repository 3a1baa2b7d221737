from __future__ import annotations

from xml.etree import ElementTree

from tvm_qat.bench.plot import Bar, bars, points

_SVG = "{http://www.w3.org/2000/svg}"


def test_a_bar_plot_has_a_bar_and_its_figure_for_each_row():
    drawn = ElementTree.fromstring(bars("t", [Bar("a", 2.0, "2 ms", True), Bar("b", 1.0, "1 ms")]))
    widths = [float(rect.get("width", "")) for rect in drawn.iter(f"{_SVG}rect") if rect.get("x")]
    assert len(widths) == 2 and widths[0] == 2 * widths[1]
    texts = [text.text for text in drawn.iter(f"{_SVG}text")]
    assert texts == ["t", "a", "2 ms", "b", "1 ms"]


def test_quartiles_and_bars_to_meet_are_drawn():
    drawn = ElementTree.fromstring(bars("t", [Bar("a", 2.0, "", low=1.0, high=3.0, limit=4.0)]))
    assert len(list(drawn.iter(f"{_SVG}line"))) == 2


def test_names_may_hold_any_character():
    assert "a<b & c" in [e.text for e in ElementTree.fromstring(bars("a<b & c", [Bar("x", 1, "")])).iter()]


def test_no_rows_make_an_empty_plot():
    assert ElementTree.fromstring(bars("t", [])).tag == f"{_SVG}svg"


def test_points_of_all_series_are_drawn_with_the_line():
    text = points("t", "x", "y", [("a", [(1, 1), (2, 2)]), ("b", [(3, 3)])], line=(1.0, 0.0))
    drawn = ElementTree.fromstring(text)
    assert len(list(drawn.iter(f"{_SVG}circle"))) == 3 + 2  # and the legend
    assert len(list(drawn.iter(f"{_SVG}line"))) == 2 + 1  # and the axes
