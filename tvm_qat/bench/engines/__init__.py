"""One module for each runtime, with a class `Engine`:

    Engine(model, inputs, threads)   loads and compiles; inputs: arrays by name, in the model's order
    run()                            one inference on these inputs
    outputs()                        the results of the last run, as arrays
    version                          of the runtime

They are imported by the worker process alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """name : as the user writes it. module : what it imports, for the check before anything starts.

    pip : what installs it. env : variables that must be set before it is imported; {threads} stands
    for their number.
    """

    name: str
    home: str
    module: str
    pip: str
    env: tuple[tuple[str, str], ...] = ()


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "tvm_qat", "tvm_qat.bench.engines.tvm_runtime", "tvm", "apache-tvm",
            (("TVM_NUM_THREADS", "{threads}"),),
        ),
        Runtime("onnxruntime", "tvm_qat.bench.engines.onnxruntime", "onnxruntime", "onnxruntime"),
        Runtime("openvino", "tvm_qat.bench.engines.openvino", "openvino", "openvino"),
        Runtime("litert", "tvm_qat.bench.engines.litert", "ai_edge_litert", "ai-edge-litert"),
    )
}  # fmt: skip

OURS = "tvm_qat"
"""The runtime that the others are compared with."""
