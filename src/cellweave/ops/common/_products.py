"""Large matrix products: torch's, by whichever of its two libraries is the faster on this processor."""

from __future__ import annotations

import functools

import torch

from cellweave.ops.common._library import native_library

#: oneDNN's product costs some microseconds more to call; below this many multiplications that is not won back.
_WORTH_A_CALL = 1 << 19


@functools.cache
def _prefers_onednn() -> bool:
    """MKL, which `torch.mm` calls, takes its fast kernels on Intel's processors only.

    Measured on an AMD EPYC (Zen 5) with two threads: torch.mm 225 to 240 GF/s, oneDNN 450 to 515 GF/s.
    """
    library = native_library()
    has_op = hasattr(torch.ops.mkldnn, "_linear_pointwise") and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_op and library is not None and not library.is_intel


def _dense(value: torch.Tensor) -> bool:
    """Rows or columns lie one after another without gaps: oneDNN is slow on anything else."""
    return value.is_contiguous() or value.t().is_contiguous()


def multiply(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor | None = None,
    *,
    add: bool = False,
    columns: slice | None = None,
) -> torch.Tensor:
    """`a b`, into `out` if given, or added to what it holds. No gradients.

    Args:
        a: `[M, K]`. b: `[K, N]`; of one dtype, on the CPU. out: `[M, N]`. add: Add to `out`.
        columns: Use only these columns of b; `out` has as many.
    """
    work = a.shape[0] * a.shape[1] * b.shape[1]
    if work >= _WORTH_A_CALL and a.dtype == torch.float32 and _prefers_onednn() and _dense(a) and _dense(b):
        # all columns, then a choice: oneDNN is slow on a part of a row
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
        if out is None:
            return found
        found = found if columns is None else found[:, columns]
        return out.add_(found) if add else out.copy_(found)
    b = b if columns is None else b[:, columns]
    if out is None:
        return torch.mm(a, b)
    return out.addmm_(a, b) if add else torch.mm(a, b, out=out)
