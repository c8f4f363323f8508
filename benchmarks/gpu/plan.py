"""What is measured on a GPU, in which order, for how many seconds, and what must be reached. Data only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from registry import GATES, Case


@dataclass(frozen=True)
class Phase:
    """A part of a run and its time box: its share, in seconds, of a budget of 540."""

    name: str
    seconds: float


#: In order of value. What a phase does not use, the next ones have.
PHASES = (
    Phase("set-up", 45),
    Phase("calibration", 45),
    Phase("correctness", 80),
    Phase("cuDNN", 110),
    Phase("ours", 190),
    Phase("loops", 60),
)
RESERVE = 10.0  # seconds, for the table
BUDGET = sum(phase.seconds for phase in PHASES) + RESERVE
#: Measured on the device itself; `calibration.py` says how.
CALIBRATION = ("M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8")
#: float32 comes in two kinds: with products in TF32, which is torch's default for recurrent layers, and without.
DTYPES = ("bfloat16", "float16", "tf32", "float32")
BYTES = {"bfloat16": 2, "float16": 2, "tf32": 4, "float32": 4}


@dataclass(frozen=True)
class GpuCase:
    """A layer and its sizes: T steps, B rows, H units and as many inputs; kinds and modes as in registry.py."""

    kind: str
    mode: str
    dtype: str
    T: int
    B: int
    H: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.mode}-{self.dtype}-T{self.T}-B{self.B}-H{self.H}"

    @property
    def training(self) -> bool:
        return self.mode == "training"

    @property
    def flops(self) -> int:
        return Case(self.kind, self.mode, "bare", self.T, self.B, self.H, self.H).flops

    def of_steps(self, steps: int) -> GpuCase:
        return replace(self, T=steps)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# -- who computes a case ----------------------------------------------------------------------------------------------
CUDNN = "torch.nn"
OURS_ON_CUDNN = "torch backend"
TRITON = "triton"
#: Variations of our own cell; each is compared with the bare one.
WRAPPED, PROJECTED, PEEPHOLES = "triton, wrapped", "triton, projected", "triton, peepholes and clip"
#: Kernels of single steps, put into CUDA graphs.
GRAPHED = "triton, steps in graphs"
EAGER_LOOP, COMPILED_LOOP = "loop of torch's cells", "compiled cell in a CUDA graph"
KERNELS_OF_OURS = (TRITON, WRAPPED, PROJECTED, PEEPHOLES, GRAPHED)
#: Steps of the eager loop, whose time grows with them, and what it is scaled from.
LOOP_STEPS = 64
#: What "wrapped" is: variational masks on inputs, h and outputs; zoneout of h and c; residual; a reset every so many
#: steps on average.
DROP, ZONEOUT, STEPS_BETWEEN_RESETS = 0.2, 0.1, 64


@dataclass(frozen=True)
class Plan:
    """Cases of each phase, and how they are timed.

    Attributes:
        cudnn, ours, loops: The cases of these phases.
        warmups, repeats: Calls of each contestant: before, and at most.
        seconds: A contestant's share of a case's time; at least three calls are made all the same.
        check_steps: T of a correctness check. repeats_equal: How often its bits must be the same.
        graph_steps: T of such a check where steps are put into graphs.
        scale: Divides the sizes of what is calibrated.
    """

    cudnn: tuple[GpuCase, ...]
    ours: tuple[GpuCase, ...]
    loops: tuple[GpuCase, ...]
    warmups: int = 3
    repeats: int = 20
    seconds: float = 0.4
    check_steps: int = 16
    repeats_equal: int = 5
    graph_steps: int = 100
    scale: int = 1


#: (T, B, H): the anchor, the sizes that show most, and the others.
ANCHOR = (1024, 16, 768)
CORE = (ANCHOR, (512, 16, 256), (512, 64, 512), (512, 16, 1024), (512, 64, 1024), (512, 32, 128))
MORE = ((512, 64, 256), (512, 16, 512), (512, 128, 512), (512, 128, 1024), (512, 64, 1536), (512, 256, 1024))
_SOME = (ANCHOR, (512, 64, 512), (512, 32, 128))


def _cases(
    kinds: tuple[str, ...], dtypes: tuple[str, ...], shapes: tuple[tuple[int, int, int], ...], mode: str = "training"
) -> Iterator[GpuCase]:
    for shape in shapes:
        for dtype in dtypes:
            for kind in kinds:
                yield GpuCase(kind, mode, dtype, *shape)


def _on_device() -> Plan:
    plain, grus = ("lstm", "gru_after", "rnn"), ("gru_before", "gru_after")
    cudnn = [
        case
        for dtypes in (DTYPES[:2], DTYPES[2:])
        for mode in ("training", "inference")
        for case in _cases(plain, dtypes, CORE, mode)
    ]
    ours = [
        *_cases(("lstm",), ("bfloat16", "float16", "tf32"), (ANCHOR,)),
        *_cases(("lstm",), ("bfloat16",), CORE[1:]),
        *_cases(grus, ("bfloat16",), CORE),
        *_cases(("lstm",), ("float16", "tf32"), CORE[1:]),
        *_cases(("lstm",), ("bfloat16",), MORE),
        *_cases(("lstm",), ("bfloat16",), CORE, "inference"),
        *_cases(grus, ("float16", "tf32"), _SOME),
        *_cases(("rnn",), ("bfloat16", "float16"), _SOME),
        *_cases((*grus, "rnn"), ("bfloat16",), (ANCHOR,), "inference"),
        *_cases(("lstm",), ("float32",), (ANCHOR,)),
    ]
    loops = [
        *_cases(("lstm",), ("bfloat16",), (ANCHOR, (512, 64, 512), (512, 32, 128))),
        *_cases(("gru_before",), ("bfloat16",), (ANCHOR,)),
        *_cases(("lstm",), ("float16",), (ANCHOR,)),
    ]
    return Plan(tuple(cudnn), tuple(ours), tuple(loops))


def _tried_on_the_cpu() -> Plan:
    """The same phases at sizes whose numbers nobody needs: one program runs each kernel in Triton's interpreter."""
    sizes = (2, 2, 8)
    cases = tuple(_cases(("lstm", "gru_before"), ("float32",), (sizes,)))
    cudnn = (GpuCase("lstm", "inference", "float32", *sizes), cases[0])
    return Plan(cudnn, cases, cases[:1], 1, 2, 0.01, 2, 2, scale=128)


PLANS = {"cuda": _on_device(), "cpu": _tried_on_the_cpu()}


#: Elements of h beyond which the kernels are those of single steps.
_STEPS_FROM = 1 << 15


def variations(case: GpuCase) -> tuple[str, ...]:
    """Of our kernels, beside the bare cell: everything in training, graphs, more options of an LSTM at the anchor."""
    if not case.training:
        return ()
    if case.B * case.H > _STEPS_FROM:
        return (WRAPPED, GRAPHED)
    at_anchor = (case.T, case.B, case.H) == ANCHOR
    options = (PROJECTED, PEEPHOLES) if case.kind == "lstm" and case.dtype == "bfloat16" and at_anchor else ()
    return (WRAPPED, *options)


def checks(plan: Plan) -> list[tuple[GpuCase, str]]:
    """What must be correct before it is timed, each size and dtype once, in the order of timing."""
    names = ((case, name) for case in plan.ours for name in (TRITON, *variations(case)))
    return list(dict.fromkeys((checked_as(case, name, plan), name) for case, name in names))


def checked_as(case: GpuCase, name: str, plan: Plan) -> GpuCase:
    """The case that a kernel must be right at before it is timed at this one."""
    return replace(case, mode="training", T=plan.graph_steps if name == GRAPHED else plan.check_steps)


# -- what must be reached ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Target:
    """Time over that of `versus` at most: for the first release with these kernels, and for 1.0."""

    versus: str
    first: float
    final: float


#: From here on H has no place on a chip of 227 KiB a program, by kind, with 2 and 4 bytes an element.
_MOST_UNITS = {"lstm": (1408, 1024), "gru_before": (1792, 1024), "gru_after": (1792, 1024), "rnn": (2368, 1792)}
_MOST_STATE = 1 << 16  # elements of h
_SMALL_UNITS = 192  # up to which cuDNN keeps a layer's weights on the chip, in every dtype
#: Milliseconds of the anchor, an LSTM's training step in half precision.
ANCHOR_MS = (9.0, 6.5)
#: Bytes kept for backward by step, row and unit: an LSTM in half precision.
SAVED_BYTES = 14.0


def _fits(case: GpuCase) -> bool:
    return _MOST_UNITS[case.kind][0 if BYTES[case.dtype] == 2 else 1] >= case.H


def target(case: GpuCase, name: str) -> Target | None:
    """What a contestant's time must be; None: nothing is promised."""
    if name == WRAPPED:
        return Target(TRITON, 1.2, 1.1)
    if name in (PROJECTED, PEEPHOLES):
        return Target(TRITON, 1.3, 1.2)
    if name != TRITON or case.dtype == "float32":
        return None
    if case.B * case.H > _MOST_STATE or not _fits(case):
        return Target(CUDNN, 1.5, 1.2)
    if case.H <= _SMALL_UNITS:
        return Target(CUDNN, 2.0, 1.3)
    if case.kind == "gru_before":
        return Target(CUDNN, 1.4, 1.0)
    if case.kind == "gru_after":
        return Target(CUDNN, 1.0, 0.6)
    if 256 <= case.H <= 1024 and case.B <= 64:
        return Target(CUDNN, 2.0, 1.3) if case.dtype == "float16" else Target(CUDNN, 1.0, 0.6)
    return None


def anchor_ms(case: GpuCase, name: str) -> tuple[float, float] | None:
    """Milliseconds that the anchor may take, first and final."""
    is_anchor = (case.kind, case.mode, case.T, case.B, case.H) == ("lstm", "training", *ANCHOR)
    return ANCHOR_MS if is_anchor and name == TRITON and BYTES[case.dtype] == 2 else None


def gates(case: GpuCase) -> int:
    return GATES[case.kind]
