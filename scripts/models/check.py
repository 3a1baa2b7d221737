"""Does the exported file compute what the simulation computes? Asked of onnxruntime.

With its optimizer off onnxruntime evaluates the graph literally, node by node in float; that must
agree with the simulation to one step of the logits' scale (a step and not zero, because convolution
sums round in another order, which can tip a tie). With the optimizer on it runs its own integer
kernels, which round differently; there only the accuracy has to hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import torch

from models.nets import IMAGE
from models.qdq_export import export
from models.training import Digits, Trained, to_input

POINTS_ALLOWED = 0.3
STEPS_ALLOWED = 1.0


@dataclass(frozen=True)
class Comparison:
    accuracy_literal: float  # of the file, optimizer off, percent
    accuracy_optimized: float  # of the file, optimizer on, percent
    step: float  # scale of the logits
    steps_literal: float  # largest difference of logits, in steps
    steps_optimized: float
    same_logits: float  # percent of the literal logits that are bit for bit the simulation's

    def complaints(self, accuracy_qat: float) -> list[str]:
        found = []
        for way in ("literal", "optimized"):
            measured = getattr(self, f"accuracy_{way}")
            if abs(measured - accuracy_qat) > POINTS_ALLOWED:
                versus = f"{measured:.2f} %, the simulation {accuracy_qat:.2f} %"
                found.append(f"onnxruntime ({way}) has {versus}")
        if self.steps_literal > STEPS_ALLOWED + 1e-3:  # the margin is float32's, in logits / step
            found.append(f"a logit is {self.steps_literal:.2f} steps off the simulation")
        return found


@torch.no_grad()
def compare(model: onnx.ModelProto, trained: Trained, digits: Digits) -> Comparison:
    simulation = trained.simulation
    images = to_input(digits.test_images)
    expected = simulation(images).numpy()
    step = float(simulation.grid(simulation.spec.head).scale)
    bare = export(simulation, softmax=False)
    literal, optimized = (run(bare, images.numpy(), way) for way in (False, True))
    winners = [run(model, images.numpy(), way).argmax(axis=1) for way in (False, True)]
    return Comparison(
        accuracy_literal=100.0 * float((winners[0] == digits.test_labels).mean()),
        accuracy_optimized=100.0 * float((winners[1] == digits.test_labels).mean()),
        step=step,
        steps_literal=float(np.abs(literal - expected).max()) / step,
        steps_optimized=float(np.abs(optimized - expected).max()) / step,
        same_logits=100.0 * float((literal == expected).mean()),
    )


def run(model: onnx.ModelProto, images: np.ndarray, optimize: bool) -> np.ndarray:
    """One image at a time where the batch is fixed, all together where it is not."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    fixed = session.get_inputs()[0].shape[0] == 1
    batches = np.split(images, len(images)) if fixed else [images]
    return np.concatenate([session.run(None, {IMAGE: batch})[0] for batch in batches])
