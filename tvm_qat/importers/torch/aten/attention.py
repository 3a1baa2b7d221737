"""Attention and embeddings."""

from __future__ import annotations

import math

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, const, relax


def scaled_dot_product(write: Writer, node: Node) -> Expr:
    """softmax(query times key transposed, scaled, plus mask) times value, spelled out."""
    if node.flag("is_causal") or node.real("dropout_p", 0):
        raise UnsupportedError("causal masks and dropout inside attention are not supported")
    query, key, value = (node.tensor(name) for name in ("query", "key", "value"))
    rank, width = len(node.shape("query")), node.shape("query")[-1]
    if not isinstance(width, int):
        raise UnsupportedError("heads of unknown width are not supported")
    scale = node.real("scale", 1 / math.sqrt(width))
    turned = write(relax.op.permute_dims(key, [*range(rank - 2), rank - 1, rank - 2]))
    scores = write(relax.op.matmul(query, turned))
    scores = write(relax.op.multiply(scores, const(np.asarray(scale), node.dtype("query"))))
    if node.has("attn_mask"):
        scores = write(_masked(node, scores))
    weights = write(relax.op.nn.softmax(scores, -1))
    return relax.op.matmul(weights, value)


def _masked(node: Node, scores: Expr) -> Expr:
    mask = node.tensor("attn_mask")
    if node.dtype("attn_mask") != "bool":
        return relax.op.add(scores, mask)
    return relax.op.where(mask, scores, const(np.asarray(-np.inf), node.dtype("query")))


def embedding(_write: Writer, node: Node) -> Expr:
    return relax.op.take(node.tensor("weight"), node.tensor("indices"), axis=0, mode="clip")
