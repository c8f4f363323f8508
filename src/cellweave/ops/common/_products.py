"""Large matrix products: torch's, by whichever of its two libraries is the faster on this processor."""

from __future__ import annotations

import functools
import math

import torch

from cellweave.ops.common._library import native_library

#: oneDNN's product costs some microseconds more to call; below so many multiplications that is not won back.
_WORTH_A_CALL = 1 << 19
#: The same on processors without AVX-512, where only products with rows that lie one after another gain at all.
_WORTH_A_CALL_AVX2 = 1 << 30


@functools.cache
def _worth_onednn() -> tuple[float, float]:
    """From how many multiplications on oneDNN is the faster: where `a` has its rows, or its columns, in a row.

    MKL, which `torch.mm` calls, takes its fast kernels on Intel's processors only; what it takes on others knows no
    AVX-512. Measured with two threads, GF/s of torch.mm and oneDNN:

        AMD EPYC (Zen 5), AVX-512, any product                            225 to 240    450 to 515
        AMD EPYC (Zen 3), AVX2, gates times weights, 64 rows and more      82 to 93      83 to 116
            the same, fewer rows                                           72 to 103     56 to 109
            inputs (transposed) times gates                                54 to 111     47 to 97
    """
    library = native_library()
    has_op = hasattr(torch.ops.mkldnn, "_linear_pointwise") and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not has_op or library is None or library.is_intel:
        return math.inf, math.inf
    if library.best_isa == "avx512":
        return _WORTH_A_CALL, _WORTH_A_CALL
    return _WORTH_A_CALL_AVX2 if library.best_isa == "avx2" else math.inf, math.inf


def _dense(value: torch.Tensor) -> bool:
    """Rows or columns lie one after another without gaps: oneDNN is slow on anything else."""
    return value.is_contiguous() or value.t().is_contiguous()


def multiply(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor | None = None,
    *,
    add: bool = False,
    rows: slice | None = None,
    columns: slice | None = None,
) -> torch.Tensor:
    """`a b`, into `out` if given, or added to what it holds. No gradients.

    Args:
        a: `[M, K]`. b: `[K, N]`; of one dtype, on the CPU. out: `[M, N]`. add: Add to `out`.
        rows, columns: Use only these rows of a, columns of b; `out` has as many.

    Of bfloat16 and float32 the latter is rounded before they meet, and so is the product; it comes in float32.
    """
    work = a.shape[0] * a.shape[1] * b.shape[1]
    by_rows, by_columns = _worth_onednn()
    worth = work >= (by_rows if a.is_contiguous() else by_columns)
    if worth and a.dtype == b.dtype == torch.float32 and _dense(a) and _dense(b):
        # everything, then a choice: oneDNN is slow on a part of a row
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
        if out is None:
            return found
        found = found if columns is None else found[:, columns]
        found = found if rows is None else found[rows]
        return out.add_(found) if add else out.copy_(found)
    a = a if rows is None else a[rows]
    b = b if columns is None else b[:, columns]
    if a.dtype != b.dtype:
        found = torch.mm(a.bfloat16(), b.bfloat16())
        if out is None:
            return found.float()
        return out.add_(found) if add else out.copy_(found)
    if out is None:
        return torch.mm(a, b)
    return out.addmm_(a, b) if add else torch.mm(a, b, out=out)
