"""Normalization."""

from __future__ import annotations

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, TupleGetItem, const, relax


def batch_norm(write: Writer, node: Node) -> Expr:
    """With running statistics; a model left in training mode is taken as it is at inference."""
    data = node.tensor("input")
    if not node.has("running_mean") or not node.has("running_var"):
        raise UnsupportedError("a batch norm without running statistics is not supported")
    channels = node.fixed_shape("running_mean")
    ones, zeros = const(np.ones(channels, np.float32)), const(np.zeros(channels, np.float32))
    normed = relax.op.nn.batch_norm(
        data, node.optional("weight") or ones, node.optional("bias") or zeros,
        node.tensor("running_mean"), node.tensor("running_var"), axis=1,
        epsilon=node.real("eps", 1e-5), momentum=node.real("momentum", 0.1), training=False,
    )  # fmt: skip
    return TupleGetItem(write(normed), 0)


def native_batch_norm(write: Writer, node: Node) -> list[Expr | None]:
    """(result, saved mean, saved reciprocal deviation): the last two are for training."""
    return [batch_norm(write, node), None, None, None, None]


def layer_norm(_write: Writer, node: Node) -> Expr:
    sizes = node.wholes("normalized_shape")
    axes = list(range(-len(sizes), 0))
    ones, zeros = const(np.ones(sizes, np.float32)), const(np.zeros(sizes, np.float32))
    return relax.op.nn.layer_norm(
        node.tensor("input"), node.optional("weight") or ones, node.optional("bias") or zeros, axes,
        epsilon=node.real("eps", 1e-5),
    )  # fmt: skip


def native_layer_norm(write: Writer, node: Node) -> list[Expr | None]:
    return [layer_norm(write, node), None, None]


def group_norm(_write: Writer, node: Node) -> Expr:
    """The number of groups is called `group` in the native form."""
    shape = node.shape("input")
    ones, zeros = const(np.ones(shape[1], np.float32)), const(np.zeros(shape[1], np.float32))
    groups = node.whole("num_groups" if node.has("num_groups") else "group")
    return relax.op.nn.group_norm(
        node.tensor("input"), node.optional("weight") or ones, node.optional("bias") or zeros, groups,
        1, list(range(2, len(shape))), epsilon=node.real("eps", 1e-5),
    )  # fmt: skip


def native_group_norm(write: Writer, node: Node) -> list[Expr | None]:
    return [group_norm(write, node), None, None]


def native_dropout(_write: Writer, node: Node) -> list[Expr | None]:
    """(result, mask): at inference nothing is dropped."""
    return [node.tensor("input"), None]
