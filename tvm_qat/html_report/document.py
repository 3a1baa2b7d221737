"""What the page shows, as plain data: everything that is known of a layer under its node's name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvm_qat.bench.layers import Profile
from tvm_qat.html_report.findings import findings_of, shortened
from tvm_qat.html_report.graph import Graph, graph_of
from tvm_qat.html_report.layout import layout_of
from tvm_qat.verification import Layer, Subject, Verification
from tvm_qat.verification.health import Quantizer
from tvm_qat.version import __version__

Row = dict[str, Any]

_LETTER, _MARGIN, _LONGEST = 6.5, 28.0, 32
"""Width of a letter in the graph, of what is around a label, and letters of the longest label."""


def document_of(found: Verification, subject: Subject, profile: Profile | None) -> Row:
    """JSON's types only. profile : of the kernels on one thread, None where they were not timed.

    `layers` has a row for each node of the model that runs or that a stage compares; `stages`,
    `quantizers`, `kernels` and the nodes of `graph` name rows of it by their places.
    """
    rows = {str(row["name"]): row for row in subject.package.layers}
    graph = graph_of(subject.source, rows)
    names = _names(found, rows, graph)
    place = {name: number for number, name in enumerate(names)}
    removed = {str(node["name"]): node for node in subject.package.removed}
    owners = _owners(found, removed, graph)
    quantizers = [
        {**_plain(each), "layer": place.get(owners.get(each.name, each.name))} for each in found.quantizers
    ]
    kernels = profile.layers if profile else ()
    return {
        "model": found.model,
        "file": Path(found.model).name,
        "target": " ".join(str(found.target.get(key, "")) for key in ("kind", "mcpu", "mtriple")).split(),
        "rounding": found.rounding,
        "samples": found.samples,
        "seed": found.seed,
        "version": __version__,
        "versions": subject.package.meta.versions,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "passed": found.passed,
        "failures": list(found.failures),
        "agreement": found.agreement,
        "accuracy": {name: asdict(each) for name, each in (found.accuracy or {}).items()},
        "fused_differing": found.fused_differing,
        "totals": subject.package.totals,
        "findings": findings_of(found, rows, owners, profile),
        "layers": [
            _running(rows[name], place) if name in rows else _absorbed(name, removed, owners, graph, place)
            for name in names
        ],
        "stages": list(_stages(found, place)),
        "suggestion": _suggestion(found),
        "quantizers": quantizers,
        "kernels": [{**kernel.to_json(), "layer": place.get(kernel.name)} for kernel in kernels],
        "peak": {"gops": profile.peak, "instruction": profile.instruction} if profile else None,
        "graph": _drawn(graph, place),
    }  # fmt: skip


def _names(found: Verification, rows: Mapping[str, Row], graph: Graph) -> list[str]:
    """The model's nodes in execution order, then what else has a row: outputs, and what passes named."""
    compared = {layer.name for stage in found.stages for layer in stage.layers}
    shown = {node.name for node in graph.nodes if node.kind == "operator"}
    ordered = [name for name in graph.order if name in rows or name in compared or name in shown]
    return list(dict.fromkeys([*ordered, *rows, *(layer.name for s in found.stages for layer in s.layers)]))


def _running(row: Row, place: Mapping[str, int]) -> Row:
    """A row of inspect. state : "integer" or "float". host : the layer whose kernel does its work too."""
    kept = ("name", "op", "dtype", "macs", "reason", "code", "remedy", "kernel", "isa", "weight_bytes")
    return {
        **{key: row[key] for key in kept},
        "state": "integer" if row["integer"] else "float",
        "shape": list(row["shape"]),
        "bytes": row["activation_bytes"],
        "host": place.get(row["fused_into"]),
        "reads": [_tensor(tensor, place) for tensor in row["inputs"]],
        "makes": [_tensor(tensor, place) for tensor in row["outputs"]],
    }


def _tensor(tensor: Row, place: Mapping[str, int]) -> Row:
    grid = tensor["qparams"]
    return {
        "source": tensor["source"],
        "layer": place.get(tensor["source"]),
        "dtype": tensor["dtype"],
        "shape": list(tensor["shape"]),
        "scale": _ends(grid["scale"]) if grid else None,
        "zero_point": _ends(grid["zero_point"]) if grid else None,
    }


def _ends(value: Any) -> list[float]:
    """The least and the greatest of what channels may have their own of."""
    values = value if isinstance(value, list) else [value]
    return [min(values), max(values)]


def _absorbed(
    name: str, removed: Mapping[str, Row], owners: Mapping[str, str], graph: Graph, place: Mapping[str, int]
) -> Row:
    """A node without work of its own. state : "absorbed", or "output". owner : the layer that it joined.

    how : what became of it, in words.
    """
    state = "absorbed" if name in graph.order else "output"
    node = removed.get(name, {})
    common = {"macs": 0, "shape": [], "dtype": "", "owner": place.get(owners.get(name, ""))}
    return {"name": name, "op": node.get("op", ""), "state": state, "how": node.get("how", ""), **common}


def _stages(found: Verification, place: Mapping[str, int]) -> Iterator[Row]:
    """The stages; one that inherits differences is told twice, alone and as it runs."""
    for stage in found.stages:
        summary = asdict(found.summaries[f"{stage.name}_vs_{stage.against}"])
        common = {"name": stage.name, "against": stage.against, "unnamed": stage.unnamed}
        rows = [_compared(layer, layer.figures, place) for layer in stage.layers]
        yield {**common, "inherited": False, "summary": summary, "rows": rows}
        if any(layer.inherited is not None for layer in stage.layers):
            rows = [_compared(layer, layer.inherited or layer.figures, place) for layer in stage.layers]
            yield {**common, "inherited": True, "summary": None, "rows": rows}


def _compared(layer: Layer, figures: Any, place: Mapping[str, int]) -> Row:
    return {"layer": place[layer.name], "op": layer.op, "noise": figures.noise, **asdict(figures)}


def _suggestion(found: Verification) -> Row | None:
    """What `--suggest` found: in words, as a flag, and all that was tried."""
    made = found.suggestion
    if made is None:
        return None
    trials = [{"kept": list(trial.keep_float), "steps": trial.max_steps} for trial in made.trials]
    own = {"words": made.in_words(), "flag": made.flag, "reached": made.reached, "within": made.within}
    return {**own, "layers": list(made.layers), "kept": list(made.keep_float), "trials": trials}


def _owners(found: Verification, removed: Mapping[str, Row], graph: Graph) -> dict[str, str]:
    """For nodes that passes removed, and for quantizers, the layer that they are a part of, where known."""
    results = {
        layer.quantizer: layer.name for stage in found.stages for layer in stage.layers if layer.quantizer
    }
    weights = {name: readers[0] for name, readers in graph.weights.items() if readers}
    joined = {name: str(node["into"]) for name, node in removed.items() if node["into"]}
    return {**joined, **weights, **results}


def _plain(quantizer: Quantizer) -> Row:
    row = asdict(quantizer)
    row["histogram"]["counts"] = list(quantizer.histogram.counts)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}


def _drawn(graph: Graph, place: Mapping[str, int]) -> Row:
    labels = [shortened(node.name, _LONGEST) for node in graph.nodes]
    widths = [max(88.0, len(label) * _LETTER + _MARGIN) for label in labels]
    layout = layout_of(widths, graph.edges)
    nodes = [
        {
            "name": node.name, "label": label, "kind": node.kind, "width": round(width, 1),
            "x": round(x, 1), "y": round(y, 1),
            "layer": place.get(node.name) if node.kind == "operator" else None,
        }
        for node, label, width, (x, y) in zip(graph.nodes, labels, widths, layout.places, strict=True)
    ]  # fmt: skip
    routes = [[[round(x, 1), round(y, 1)] for x, y in route] for route in layout.routes]
    return {"width": layout.width, "height": layout.height, "nodes": nodes, "routes": routes}
