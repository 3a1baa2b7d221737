"""Where to look first: one line for each kind of trouble, the gravest first.

level : "bad" where numbers are wrong, "warn" where training or export should be looked at, "note" for
what costs time and no numbers, "good" where there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tvm_qat.bench.layers import Profile
from tvm_qat.verification import Layer, Stage, Verification
from tvm_qat.verification.health import Quantizer

_LEVELS = ("bad", "warn", "note", "good")

_FIRST = "the first layer that differs by more than ties explain; what follows may inherit it"

Finding = dict[str, Any]


def findings_of(
    found: Verification, rows: Mapping[str, Mapping[str, Any]], owners: Mapping[str, str],
    profile: Profile | None,
) -> list[Finding]:  # fmt: skip
    """rows : of inspect, by node. owners : the layer of each quantizer, by its node.

    Each finding has level, title, layer (or None), text, section.
    """
    lines = [*_stages(found), *_suggestion(found), *_ranges(found, owners), *_float(rows)]
    lines += _time(profile) if profile else ()
    return sorted(lines, key=lambda line: _LEVELS.index(line["level"]))


def shortened(name: str, letters: int) -> str:
    """Both ends of a name that is longer; the last part says more than the first.

    TFLite joins the names of all nodes that it merged by semicolons: there the first is enough.
    """
    first, head = name.split(";")[0], letters // 3
    if 0 < len(first) <= letters - 2 < len(name) - 2:
        return f"{first};…"
    return name if len(name) <= letters else f"{name[:head]}…{name[head + 1 - letters :]}"


def _duration(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def _finding(level: str, title: str, layer: str | None, text: str, section: str) -> Finding:
    return {"level": level, "title": title, "layer": layer, "text": text, "section": section}


def _stages(found: Verification) -> Iterator[Finding]:
    for stage in found.stages:
        worst = max(stage.layers, key=lambda layer: layer.figures.noise, default=None)
        differing = sum(layer.figures.differing for layer in stage.layers)
        between = f"{stage.name.capitalize()} against {stage.against}"
        if worst is None or not differing:
            total = found.summaries[f"{stage.name}_vs_{stage.against}"]
            text = f"0 of {total.elements:,} elements differ, in {total.layers} layers"
            yield _finding("good", between, None, text, "difference")
            continue
        yield _finding(_gravity(stage), between, worst.name, _in_words(worst, stage), "difference")
        first = found.summaries[f"{stage.name}_vs_{stage.against}"].first_layer
        if first is not None and first != worst.name and (_gravity(stage) != "note" or _foreign(stage)):
            text = "the first layer that differs" if _foreign(stage) else _FIRST
            yield _finding(_gravity(stage), f"{between}, first", first, text, "difference")


def _gravity(stage: Stage) -> str:
    """Compiled code may not differ at all; other stages by ties, and by float arithmetic in floats.

    Another engine may round otherwise, and its layers inherit what earlier ones did: no fault of ours.
    """
    if stage.against == "reference":
        return "bad"
    if _foreign(stage):
        return "note"
    on_grid = [layer.figures for layer in stage.layers if layer.figures.max_steps is not None]
    if any(figures.unexplained and (figures.max_steps or 0) > 1 for figures in on_grid):
        return "bad"
    return "warn" if any(figures.unexplained for figures in on_grid) else "note"


def _foreign(stage: Stage) -> bool:
    return stage.against not in ("simulation", "reference")


def _in_words(layer: Layer, stage: Stage) -> str:
    figures = layer.figures
    total = sum(each.figures.noise for each in stage.layers)
    share = figures.differing / max(figures.elements, 1)
    if figures.max_steps is not None:
        size = f"by at most {figures.max_steps:g} {'step' if figures.max_steps == 1 else 'steps'}"
        ties = f"; ties explain {figures.tie_share:.0%}" if stage.against == "simulation" else ""
    else:
        size, ties = f"by at most {100 * (figures.max_relative or 0.0):.2g}% of its largest value", ""
    rest = f", {figures.noise / total:.0%} of the noise that layers add" if total else ""
    rest = ", with what it inherits" if _foreign(stage) else rest
    return f"{_percent(share)} of its elements differ {size}{ties}{rest}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.1 else f"{share:.0%}"


def _suggestion(found: Verification) -> Iterator[Finding]:
    made = found.suggestion
    if made is not None:
        layer = made.layers[0] if len(made.layers) == 1 else None
        title = "Layers in float" if made.layers else "No layer in float"
        yield _finding("note", title, layer, "; ".join(made.in_words()), "suggestion")


def _ranges(found: Verification, owners: Mapping[str, str]) -> Iterator[Finding]:
    warned = [quantizer for quantizer in found.quantizers if quantizer.warnings]
    if not warned:
        text = f"none of {len(found.quantizers)} is dead, clipped or much too wide"
        yield _finding("good", "Ranges", None, text, "ranges")
        return
    worst = max(warned, key=_badness)
    others = f" ({len(warned) - 1} more have warnings)" if len(warned) > 1 else ""
    layer = owners.get(worst.name, worst.name)
    which = "its range" if layer == worst.name else f"the range of {shortened(worst.name, 60)}"
    yield _finding("warn", "Range", layer, f"{which}: {'; '.join(worst.warnings)}{others}", "ranges")


def _badness(quantizer: Quantizer) -> tuple[bool, float]:
    """Dead ones first, then by what is cut off, then by what is not used."""
    dead = quantizer.used_share == 0
    clipped = quantizer.clipped_low + quantizer.clipped_high if quantizer.kind == "activation" else 0.0
    return dead, max(clipped, (1 - quantizer.used_share) / 100)


def _float(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    left = [row for row in rows.values() if not row["integer"]]
    total = sum(row["macs"] for row in rows.values())
    if not left:
        text = f"all {len(rows)} layers run on integers"
        yield _finding("good", "Float", None, text, "coverage")
        return
    worst = max(left, key=lambda row: (row["macs"], row["activation_bytes"]))
    share = sum(row["macs"] for row in left) / total if total else 0.0
    level = "warn" if worst["macs"] else "note"
    remedy = f"; {worst['remedy']}" if worst["remedy"] else ""
    count = f"{len(left)} of {len(rows)} layers in float, {_percent(share)} of the multiply-accumulates"
    yield _finding(level, "Float", worst["name"], f"{worst['reason']}{remedy} ({count})", "coverage")


def _time(profile: Profile) -> Iterator[Finding]:
    slowest = max(profile.layers, key=lambda kernel: kernel.seconds, default=None)
    if slowest is None:
        return
    rate = f", {slowest.gops:.3g} GOPS" if slowest.gops else ""
    bound = f", {slowest.of_peak:.0%} of this core's peak" if slowest.of_peak else ""
    text = f"the slowest kernel: {_duration(slowest.seconds)}, {slowest.share:.0%} of the time{rate}{bound}"
    yield _finding("note", "Time", slowest.name, text, "time")
