"""Networks that were trained with fake quantization, against TensorFlow's own simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvm_qat as tq
from tests.importers.frameworks.tensorflow_support import (
    frozen_graph,
    function,
    keras,
    layer_values,
    layers_of,
    spec,
    tf,
    tfmot,
)
from tests.support.layers import check_layers
from tvm_qat.importers.tensorflow.graph import translate
from tvm_qat.importers.tensorflow.load import frozen
from tvm_qat.importers.tensorflow.model import array

L = keras.layers
IMAGE = (12, 12, 3)


def data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which quarter of the image is brightest."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(count, *IMAGE)).astype(np.float32), rng.integers(0, 4, count)
    for image, label in zip(x, y, strict=True):
        row, column = divmod(int(label), 2)
        image[6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 0.7
    return x, y


@pytest.fixture(scope="module")
def trained() -> Any:
    """quantize_model of a CNN with everything tfmot's own test networks have."""
    keras.utils.set_random_seed(1)
    image = L.Input(IMAGE, name="image")
    x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first")(image)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    y = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)))
    y = L.Conv2D(8, 1, name="pointwise")(y)
    x = L.ReLU()(L.Add(name="join")([x, y]))
    x = L.Concatenate()([L.MaxPooling2D(2)(x), L.AveragePooling2D(2, name="average")(x)])
    x = L.Dense(16, activation="relu", name="hidden")(L.Flatten()(x))
    model = keras.Model(image, L.Dense(4, name="logits")(x))
    quantized = tfmot.quantization.keras.quantize_model(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    quantized.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    quantized.fit(*data(1500, 0), epochs=6, batch_size=50, verbose=0)
    x, y = data(300, 1)
    assert (quantized(x, training=False).numpy().argmax(1) == y).mean() > 0.8
    return quantized


@pytest.fixture(scope="module")
def saved(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "cnn"
    trained.save(folder)
    return folder


def scale_of(nodes: dict[str, Any], name: str) -> float:
    """Of a per-tensor fake quantization with constant range, in a frozen graph."""
    low, high = (float(constant(nodes, source)) for source in list(nodes[name].input)[1:3])
    return (high - low) / 255


def constant(nodes: dict[str, Any], tensor: str) -> np.ndarray:
    node = nodes[tensor.partition(":")[0]]
    return array(node.attr["value"].tensor) if node.op == "Const" else constant(nodes, node.input[0])


def check_outputs(model: Any, expected: np.ndarray, x: np.ndarray, step: float) -> None:
    package = tq.compile(model, target="native")
    assert package.totals["int8_mac_share"] == 1.0
    (got,) = package.run({package.inputs[0].name: x}).values()
    assert np.abs(np.rint((got - expected) / step)).max() <= 1
    np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))


def logit_step(model: Any) -> float:
    graph = frozen_graph(
        function(lambda image: model(image, training=False), spec(None, *IMAGE, name="image"))
    )
    return scale_of({node.name: node for node in graph.node}, layers_of(graph)[-1])


def test_every_layer_of_a_tfmot_network_is_within_a_step(trained: Any):
    body = function(lambda image: trained(image, training=False), spec(None, *IMAGE, name="image"))
    graph, x = frozen_graph(body), {"image": data(100, 2)[0]}
    layers = layers_of(graph)
    assert len(layers) == 8
    check_layers(translate(frozen(graph, "model"), {}), x, layer_values(graph, layers, x))


def test_a_saved_model_a_live_model_and_a_frozen_graph_are_one(trained: Any, saved: Path, tmp_path: Path):
    x = data(100, 2)[0]
    expected = trained(x, training=False).numpy()
    body = function(lambda image: trained(image, training=False), spec(None, *IMAGE, name="image"))
    frozen = tmp_path / "frozen.pb"
    frozen.write_bytes(frozen_graph(body).SerializeToString())
    step = logit_step(trained)
    for source in (saved, saved / "saved_model.pb", frozen, trained, body):
        check_outputs(source, expected, x, step)


def test_names_are_the_models_own(trained: Any, saved: Path):
    report = tq.inspect(saved)
    assert {"model/quant_first/Conv2D", "model/quant_depthwise/depthwise"} <= {
        row.name for row in report.layers
    }
    mod = tq.import_model(saved)["main"]
    assert list(mod.attrs["input_names"]) == ["image"]
    assert list(mod.attrs["output_names"]) == list(trained.output_names)


class ByHand(tf.Module):
    """Ranges as variables that are trained, weights per channel, activations per tensor."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(4)
        self.convs = [self._weight(rng, 3, 3, 3, 8), self._weight(rng, 3, 3, 8, 8)]
        self.dense = self._weight(rng, 72, 4)
        self.ranges = [tf.Variable([-4.0, 4.0]), tf.Variable([0.0, 4.0]), tf.Variable([0.0, 4.0])]

    @staticmethod
    def _weight(rng: np.random.Generator, *shape: int) -> tf.Variable:
        values = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        return tf.Variable(values.astype(np.float32))

    def _fake(self, x: Any, i: int) -> Any:
        low, high = self.ranges[i][0], self.ranges[i][1]
        return tf.quantization.fake_quant_with_min_max_vars(x, low, high)

    @staticmethod
    def _channels(weight: Any) -> Any:
        most = tf.stop_gradient(tf.reduce_max(tf.abs(weight), list(range(len(weight.shape) - 1))))
        return tf.quantization.fake_quant_with_min_max_vars_per_channel(
            weight, -most, most, narrow_range=True
        )

    def __call__(self, x: Any) -> Any:
        x = self._fake(x, 0)
        for i, weight in enumerate(self.convs):
            x = tf.nn.conv2d(x, self._channels(weight), 2, "SAME")
            x = self._fake(tf.nn.relu(x), i + 1)
        x = tf.reshape(x, [tf.shape(x)[0], -1])
        most = tf.stop_gradient(tf.reduce_max(tf.abs(self.dense)))
        logits = tf.matmul(x, tf.quantization.fake_quant_with_min_max_vars(self.dense, -most, most))
        return tf.quantization.fake_quant_with_min_max_args(logits, -8.0, 8.0)


def test_a_frozen_graph_trained_by_hand(tmp_path: Path):
    model, optimizer = ByHand(), keras.optimizers.Adam(5e-3)
    x, y = data(1000, 0)
    for step in range(60):
        part = slice(50 * (step % 20), 50 * (step % 20) + 50)
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y[part], model(tf.constant(x[part])))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(losses, variables), variables, strict=True))
    assert float(model.ranges[1][1]) != 4.0
    graph = frozen_graph(function(model, spec(None, *IMAGE, name="image")))
    path = tmp_path / "by_hand.pb"
    path.write_bytes(graph.SerializeToString())
    images = data(100, 3)[0]
    check_outputs(path, model(tf.constant(images)).numpy(), images, 16 / 255)
    layers, x = layers_of(graph), {"image": images}
    check_layers(tq.import_model(path), x, layer_values(graph, layers, x))
