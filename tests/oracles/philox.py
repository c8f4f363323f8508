"""Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") in whole numbers,
and TensorFlow's conversion of its words to uniform numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

Words = tuple[int, int, int, int]

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers of the 4x32 variant (paper, table 2)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # Weyl constants: golden ratio, sqrt(3) - 1
_MASK32, _MASK64, _MASK128 = 2**32 - 1, 2**64 - 1, 2**128 - 1
_SEED_MODULUS = 2**31 - 1
_DEFAULT_GRAPH_SEED = 87654321
BLOCKS_PER_ELEMENT = 256


def philox4x32(counter: Words, key: tuple[int, int], rounds: int = 10) -> Words:
    """The four output words of one block."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        product0, product1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 & _MASK32, (product0 >> 32) ^ c3 ^ k1, product0 & _MASK32
        k0, k1 = (k0 + _W0) & _MASK32, (k1 + _W1) & _MASK32
    return c0, c1, c2, c3


def block_words(seed: int, seed2: int, block: int) -> Words:
    """Words of block number `block` of an op: key = seed, counter = seed2 above the block number, 128 bits in all."""
    counter = (((seed2 & _MASK64) << 64) + block) & _MASK128
    c0, c1, c2, c3 = ((counter >> shift) & _MASK32 for shift in (0, 32, 64, 96))
    return philox4x32((c0, c1, c2, c3), (seed & _MASK32, (seed >> 32) & _MASK32))


def uniform(shape: Sequence[int], dtype: str, seed: int, seed2: int, block: int = 0) -> np.ndarray:
    """U[0, 1) of this shape as TensorFlow's `random_uniform` draws it, starting at a block number.

    bfloat16 values come as float32, which holds them exactly.
    """
    count = math.prod(shape)
    per_block = 2 if dtype == "float64" else 4
    blocks = [block_words(seed, seed2, block + i) for i in range((count + per_block - 1) // per_block)]
    if dtype == "float64":
        pairs = [(w[k], w[k + 1]) for w in blocks for k in (0, 2)]
        bits = np.array([(1023 << 52) | ((a & 0xFFFFF) << 32) | b for a, b in pairs], dtype=np.uint64)
        values = bits.view(np.float64) - 1.0
    else:
        words = np.array(blocks, dtype=np.uint32).reshape(-1)
        if dtype == "float32":
            values = ((words & 0x7FFFFF) | (127 << 23)).astype(np.uint32).view(np.float32) - np.float32(1.0)
        elif dtype == "bfloat16":
            values = ((words & 0x7F) << 16 | (127 << 23)).astype(np.uint32).view(np.float32) - np.float32(1.0)
        elif dtype == "float16":
            values = ((words & 0x3FF) | (15 << 10)).astype(np.uint16).view(np.float16) - np.float16(1.0)
        else:
            raise ValueError(f"uniform: expected a float dtype, got {dtype!r}.")
    return values[:count].reshape(tuple(shape))


def op_seeds(graph_seed: int | None, op_seed: int) -> tuple[int, int]:
    """The seed pair of an op with a seed of its own."""
    pair = ((_DEFAULT_GRAPH_SEED if graph_seed is None else graph_seed) % _SEED_MODULUS, op_seed % _SEED_MODULUS)
    return (0, _SEED_MODULUS) if pair == (0, 0) else pair


def mask_seed(seed: object, kind: str, index: int) -> int:
    """The op seed of mask number `index` of kind "input", "state" or "output" of a dropout wrapper."""
    digest = hashlib.md5(f"{seed}{kind}_{index}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) & 0x7FFFFFFF
