"""Data and the two training phases: float first, then fine-tuning with fake quantization."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from models.nets import Spec
from models.simulation import Simulation

TEST_SHARE = 0.25
BATCH = 64
SHIFT = 1  # pixels of the 16x16 image: half a pixel of the original
RATE_FLOAT = 4e-3
RATE_QAT = 4e-4
WEIGHT_DECAY = 1e-4
SMOOTHING = 0.05
PIXEL_SCALE = 1 / 16  # the data set's pixels are the integers 0..16

Report = Callable[[str], None]
Step = Callable[[Tensor], None]


@dataclass(frozen=True)
class Digits:
    """Images are uint8 0..16, (N, 1, 16, 16); the networks read `images * PIXEL_SCALE`."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class Trained:
    simulation: Simulation  # fake quantization on, ranges frozen, in eval mode
    accuracy_float: float  # of the same weights' ancestor, before fine-tuning, on the test part
    accuracy_qat: float
    seconds: float


def load(seed: int) -> Digits:
    """scikit-learn's digits, split by label, each pixel doubled to give convolutions room."""
    data = load_digits()
    small = data.images.astype(np.uint8)[:, np.newaxis]
    images = small.repeat(2, axis=2).repeat(2, axis=3)
    train_x, test_x, train_y, test_y = train_test_split(
        images,
        data.target.astype(np.int64),
        test_size=TEST_SHARE,
        random_state=seed,
        stratify=data.target,
    )
    return Digits(train_x, train_y, test_x, test_y)


def to_input(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) * np.float32(PIXEL_SCALE))


def qat_epochs(epochs: int) -> int:
    return max(2, epochs // 2)


def train(spec: Spec, digits: Digits, epochs: int, seed: int, report: Report) -> Trained:
    """Deterministic by seed on one machine: one thread, deterministic kernels."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = time.perf_counter()
    simulation = Simulation(spec)
    _train_float(simulation, digits, epochs, report)
    accuracy_float = accuracy(simulation, digits)
    _train_quantized(simulation, digits, qat_epochs(epochs), report)
    accuracy_qat = accuracy(simulation, digits)
    return Trained(simulation, accuracy_float, accuracy_qat, time.perf_counter() - started)


@torch.no_grad()
def accuracy(simulation: Simulation, digits: Digits) -> float:
    """Top-1 in percent on the held-out part, in eval mode."""
    simulation.eval()
    winners = simulation(to_input(digits.test_images)).argmax(dim=1).numpy()
    return 100.0 * float((winners == digits.test_labels).mean())


def _train_float(simulation: Simulation, digits: Digits, epochs: int, report: Report) -> None:
    step = _optimizer(simulation, digits, epochs, RATE_FLOAT)
    for epoch in range(1, epochs + 1):
        simulation.train()
        _epoch(simulation, digits, step, f"float {epoch:3}/{epochs}", report)


def _train_quantized(simulation: Simulation, digits: Digits, epochs: int, report: Report) -> None:
    """The ranges start from the float network and are frozen for the last half of the epochs.

    Frozen ranges let the weights settle on the very grid that will be deployed.
    """
    simulation.eval()
    simulation.observing = True
    with torch.no_grad():
        for batch in torch.split(to_input(digits.train_images), BATCH):
            simulation(batch)
    simulation.quantized = True
    step = _optimizer(simulation, digits, epochs, RATE_QAT)
    for epoch in range(1, epochs + 1):
        simulation.observing = epoch <= epochs // 2
        _epoch(simulation, digits, step, f"QAT   {epoch:3}/{epochs}", report)


def _optimizer(simulation: Simulation, digits: Digits, epochs: int, rate: float) -> Step:
    """One step of Adam with decoupled weight decay under a one-cycle rate."""
    steps = epochs * -(-len(digits.train_labels) // BATCH)
    optimizer = torch.optim.AdamW(simulation.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    # It steps once when it is made.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps + 1)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()

    return step


def _epoch(
    simulation: Simulation,
    digits: Digits,
    step: Step,
    title: str,
    report: Report,
) -> None:
    started = time.perf_counter()
    images, labels = to_input(digits.train_images), torch.from_numpy(digits.train_labels)
    losses, hits = 0.0, 0
    for chosen in torch.split(torch.randperm(len(labels)), BATCH):
        logits = simulation(_shifted(images[chosen]))
        loss = F.cross_entropy(logits, labels[chosen], label_smoothing=SMOOTHING)
        step(loss)
        losses += loss.item() * len(chosen)
        hits += int((logits.argmax(dim=1) == labels[chosen]).sum())
    seconds = time.perf_counter() - started
    report(
        f"{simulation.spec.name}  {title}  loss {losses / len(labels):.4f}"
        f"  train {100 * hits / len(labels):6.2f} %  {seconds:.1f} s"
    )


def _shifted(images: Tensor) -> Tensor:
    """Every image moved by up to SHIFT pixels each way; the border fills with background."""
    size = images.shape[-1]
    padded = F.pad(images, (SHIFT,) * 4)
    moves = torch.randint(0, 2 * SHIFT + 1, (len(images), 2)).tolist()
    return torch.stack(
        [
            image[:, top : top + size, left : left + size]
            for image, (top, left) in zip(padded, moves, strict=True)
        ]
    )
