"""Recurrences that run step by step: their sizes and weights, and the spec that says why."""

from __future__ import annotations

from dataclasses import dataclass

from cellweave._types import Activation, Size
from cellweave.specs._cells import OneState, WeightSpec
from cellweave.specs._states import LSTMStateTuple


@dataclass(frozen=True)
class SteppedSpec:
    """What a cell's `spec()` gives where only single steps can have it.

    Attributes:
        reason: Why, in words for a plan.
    """

    reason: str


@dataclass(frozen=True)
class _Pair:
    """Sizes of a cell whose state is c and h, each as wide as its output."""

    units: int

    @property
    def state_size(self) -> Size:
        """Widths of c and h."""
        return LSTMStateTuple(self.units, self.units)

    @property
    def output_size(self) -> int:
        """Units."""
        return self.units


@dataclass(frozen=True)
class NASSpec:
    """The cell that neural architecture search found (Zoph & Le 2017).

    Attributes:
        projection: Width of the projected m; None: no projection.
    """

    units: int
    projection: int | None = None
    use_bias: bool = False

    @property
    def output_size(self) -> int:
        """Width of m: the projection's, else units."""
        return self.units if self.projection is None else self.projection

    @property
    def state_size(self) -> Size:
        """Widths of c and m."""
        return LSTMStateTuple(self.units, self.output_size)

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        n, m = self.units, self.output_size
        found: tuple[WeightSpec, ...] = (
            WeightSpec("recurrent_kernel", (m, 8 * n), "recurrent_kernel"),
            WeightSpec("kernel", (depth, 8 * n), "kernel"),
        )
        if self.use_bias:
            found += (WeightSpec("bias", (8 * n,), "bias", 0.0),)
        if self.projection is not None:
            found += (WeightSpec("projection_weights", (n, m), "projection"),)
        return found


@dataclass(frozen=True)
class SRUSpec(OneState):
    """The simple recurrent unit (Lei et al. 2017); the columns of its kernel: candidate, forget, reset, highway."""

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        n = self.units
        return WeightSpec("kernel", (depth, 4 * n), "kernel"), WeightSpec("bias", (2 * n,), "bias", 0.0)


@dataclass(frozen=True)
class UGRNNSpec(OneState):
    """The update gate RNN (Collins et al. 2017); the columns of its kernel: gate, candidate.

    Attributes:
        forget_bias: Added to the gate when run, never stored.
    """

    forget_bias: float = 1.0

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        n = self.units
        return WeightSpec("kernel", (depth + n, 2 * n), "kernel"), WeightSpec("bias", (2 * n,), "bias", 0.0)


@dataclass(frozen=True)
class IntersectionSpec(OneState):
    """The intersection RNN, or +RNN (Collins et al. 2017); `activation` is that of its output.

    Inputs of another width than the units are projected first.

    Attributes:
        forget_bias: Added to both gates when run, never stored.
    """

    forget_bias: float = 1.0

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        n = self.units
        found = (WeightSpec("kernel", (2 * n, 4 * n), "kernel"), WeightSpec("bias", (4 * n,), "bias", 0.0))
        if depth == n:
            return found
        name = "in_projection"
        return (
            WeightSpec(f"{name}/kernel", (depth, n), "kernel"),
            WeightSpec(f"{name}/bias", (n,), "bias", 0.0),
            *found,
        )


@dataclass(frozen=True)
class IndRNNSpec(OneState):
    """The independently recurrent network (Li et al. 2018): each unit sees its own state only."""

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        return _independent("kernel_w", "kernel_u", "bias", depth, self.units, 0.0)


@dataclass(frozen=True)
class IndyGRUSpec(OneState):
    """The gated recurrent unit whose units see their own state only."""

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order; TF1 calls the candidate's first one `kernel`."""
        n = self.units
        gates = _independent("gates/kernel_w", "gates/kernel_u", "gates/bias", depth, 2 * n, 1.0)
        return gates + _independent("candidate/kernel", "candidate/kernel_u", "candidate/bias", depth, n, 0.0)


@dataclass(frozen=True)
class IndyLSTMSpec(_Pair):
    """The long short-term memory whose units see their own state only; gates i, j, f, o (Gonnet & Deselaers 2019).

    Attributes:
        forget_bias: Added to the forget gate when run, never stored.
    """

    activation: Activation = "tanh"
    forget_bias: float = 1.0

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        return _independent("kernel_w", "kernel_u", "bias", depth, 4 * self.units, 0.0)


@dataclass(frozen=True)
class PhasedLSTMSpec(_Pair):
    """The phased long short-term memory (Neil et al. 2016).

    Attributes:
        peepholes: The gates see c too, through matrices.
        ratio_on: Starting value of the share of a period in which a unit's gate is open.
    """

    peepholes: bool = False
    ratio_on: float = 0.1

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]` beside their times, in creation order."""
        n = self.units
        wide = depth + n + (n if self.peepholes else 0)
        found: tuple[WeightSpec, ...] = ()
        for name, rows, columns in (("mask_gates", wide, 2 * n), ("new_input", depth + n, n), ("output_gate", wide, n)):
            kernel = WeightSpec(f"{name}/kernel", (rows, columns), "kernel")
            found += (kernel, WeightSpec(f"{name}/bias", (columns,), "bias", 0.0))
        rhythm = (WeightSpec("period", (n,), "rhythm"), WeightSpec("phase", (n,), "rhythm"))
        return (*found, *rhythm, WeightSpec("ratio_on", (n,), "rhythm", self.ratio_on))


def _independent(
    kernel: str, diagonal: str, bias: str, depth: int, columns: int, fill: float
) -> tuple[WeightSpec, ...]:
    return (
        WeightSpec(kernel, (depth, columns), "kernel"),
        WeightSpec(diagonal, (1, columns), "recurrent_kernel"),
        WeightSpec(bias, (columns,), "bias", fill),
    )
