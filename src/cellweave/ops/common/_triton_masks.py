"""Masks of a layer run as the Triton kernels take them: a table of streams and a number that tells their kinds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from cellweave.ops.common._masks import MANTISSA_BITS, BoundMask
from cellweave.ops.common._streams import signed64

#: Numbers of the places inside the time loop, in three bits; "gate_h" is h where each gate has masks of its own.
PLACES = {"input": 0, "h": 1, "c": 2, "output": 3, "zone_h": 4, "zone_c": 5, "gate_h": 6}
#: Kinds take 7 bits each of one 64-bit number.
MOST_MASKS = 9
_PER_STEP, _PER_ROW, _GIVEN, _EXPECTED = 8, 16, 32, 64
_MASK64 = (1 << 64) - 1


class MaskTable(NamedTuple):
    """Masks as kernels take them.

    Attributes:
        table: int64 `[masks, 6]`: seed, upper and lower half of the start, stride, threshold, where its given factors
            begin.
        scales: float32 `[masks]`. given: float32, the factors of masks with given noise, one after another.
        number, kinds: How many, and their kinds as `_triton_device.factors` reads them.
        bits: Mantissa bits of the noise.
    """

    table: torch.Tensor | None
    scales: torch.Tensor | None
    given: torch.Tensor | None
    number: int
    kinds: int
    bits: int

    def has(self, place: str) -> bool:
        """A mask stands at this place."""
        return any((self.kinds >> (7 * mask)) & 7 == PLACES[place] for mask in range(self.number))

    def arguments(self) -> dict[str, object]:
        """What a kernel takes."""
        return {
            "table": self.table, "scales": self.scales, "given": self.given,
            "COUNT": self.number, "KINDS": self.kinds, "BITS": self.bits,
        }  # fmt: skip


def mask_table(masks: tuple[BoundMask, ...], rows: int, widths: dict[str, int], like: torch.Tensor) -> MaskTable:
    """The table of some masks.

    Args:
        masks: At most `MOST_MASKS`, none on inputs. rows: B. widths: Of the values at each place, "gate_h" G times that
            of h. like: Has their dtype and device.
    """
    bits = MANTISSA_BITS[like.dtype]
    if not masks:
        return MaskTable(None, None, None, 0, 0, bits)
    lines, scales, factors, kinds, begin = [], [], [], 0, 0
    for number, mask in enumerate(masks):
        place = "gate_h" if mask.spec.per_gate else mask.spec.place
        kind: int = PLACES[place] + _PER_STEP * mask.spec.per_step
        kind += _PER_ROW * (mask.spec.per_row or mask.spec.per_step)
        if mask.expected:
            kind = PLACES[place] + _EXPECTED
        elif mask.noise is not None:
            found = mask.factors(rows, widths[place], like).to(torch.float32)
            kind = PLACES[place] + _GIVEN + _PER_ROW * (found.shape[0] > 1)
            factors.append(found.reshape(-1))
        kinds |= kind << (7 * number)
        counter = (mask.seed2 << 64) + mask.block
        halves = (signed64((counter >> 64) & _MASK64), signed64(counter & _MASK64))
        lines.append([signed64(mask.seed & _MASK64), *halves, mask.stride, mask.threshold(like.dtype), begin])
        scales.append(mask.scale(like.dtype))
        begin += factors[-1].numel() if kind & _GIVEN else 0
    return MaskTable(
        _on_device(lines, torch.int64, like), _on_device(scales, torch.float32, like),
        torch.cat(factors) if factors else None, len(masks), kinds, bits,
    )  # fmt: skip


def _on_device(numbers: list[Any], dtype: torch.dtype, like: torch.Tensor) -> torch.Tensor:
    """Numbers of the host's, copied without waiting for what the device has still to do.

    Not into a CUDA graph, which would read memory of the host that has long been used for something else: there torch
    refuses the ordinary copy.
    """
    if like.is_cuda and not torch.cuda.is_current_stream_capturing():
        return torch.tensor(numbers, dtype=dtype, pin_memory=True).to(like.device, non_blocking=True)
    return torch.tensor(numbers, dtype=dtype, device=like.device)
