"""BERT and ViT with the shapes of the published ones, and random weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, TOKENS = 30522, 128


class Attention(nn.Module):
    """Query and key weights are larger than usual, so that the softmax is not uniform."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.each = heads, size // heads
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, 0.0, 0.05)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, tokens, size = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, tokens, self.heads, self.each).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.each)
        if mask is not None:
            scores = scores + mask
        mixed = torch.matmul(torch.softmax(scores, -1), value)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, size))


class FusedAttention(Attention):
    """The same by PyTorch's own kernel, which is how PyTorch runs it fastest."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, tokens, size = x.shape
        heads = (batch, tokens, self.heads, self.each)
        parts = (layer(x).view(heads).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, size))


class PostNorm(nn.Module):
    """A BERT layer."""

    def __init__(self, size: int, heads: int, hidden: int, attention: type[Attention]) -> None:
        super().__init__()
        self.attention = attention(size, heads)
        self.first, self.second = nn.LayerNorm(size, eps=1e-12), nn.LayerNorm(size, eps=1e-12)
        self.widen, self.narrow = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.first(x + self.attention(x, mask))
        return self.second(x + self.narrow(functional.gelu(self.widen(x))))


class Bert(nn.Module):
    """BERT-base with a classifier of two classes; ids and mask are int64 (batch, TOKENS)."""

    def __init__(
        self, layers: int = 12, size: int = 768, heads: int = 12, attention: type[Attention] = Attention
    ) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, size), nn.Embedding(512, size)
        self.kinds = nn.Embedding(2, size)
        self.norm = nn.LayerNorm(size, eps=1e-12)
        self.layers = nn.ModuleList(PostNorm(size, heads, 4 * size, attention) for _ in range(layers))
        self.pool, self.head = nn.Linear(size, size), nn.Linear(size, 2)
        self.register_buffer("position", torch.arange(TOKENS)[None])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.places(self.position) + self.kinds.weight[0])
        hidden = (1.0 - mask.to(x.dtype))[:, None, None, :] * -10000.0
        for layer in self.layers:
            x = layer(x, hidden)
        return self.head(torch.tanh(self.pool(x[:, 0])))


class PreNorm(nn.Module):
    """A ViT layer."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(size, eps=1e-6), nn.LayerNorm(size, eps=1e-6)
        self.attention = Attention(size, heads)
        self.widen, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.narrow(functional.gelu(self.widen(self.second(x))))


class VisionTransformer(nn.Module):
    """ViT-S/16 of 224x224 images: 196 patches and one class token."""

    def __init__(self, layers: int = 12, size: int = 384, heads: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, size, 16, 16)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, size))
        self.places = nn.Parameter(0.02 * torch.randn(1, 197, size))
        self.layers = nn.Sequential(*(PreNorm(size, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.head = nn.Linear(size, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.layers(x))[:, 0])
