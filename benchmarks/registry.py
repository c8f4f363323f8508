"""What is timed, by whom, and what must be reached. Data only: every worker reads it, with or without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

#: Gates per unit.
GATES = {"lstm": 4, "gru_before": 3, "gru_after": 3, "rnn": 1}
#: gru_before: TF1's GRUCell, reset before the candidate's product; gru_after: Keras's, cuDNN's and torch's form.
KINDS = tuple(GATES)
MODES = ("inference", "training")
#: (T, B, I = H)
SHAPES = (
    (100, 1, 128),
    (100, 1, 256),
    (100, 16, 256),
    (100, 64, 256),
    (35, 20, 650),
    (100, 64, 512),
    (100, 128, 1024),
)
#: Where every contestant is timed: the others show a single step, cached weights and sheer size, at which those that
#: call a cell or an operation per step only cost minutes.
COMMON_SHAPES = ((100, 1, 128), (100, 16, 256), (35, 20, 650), (100, 64, 512))
KEEP = 0.8  # of every mask: input, state and output
STEPS_BETWEEN_RESETS = 20  # on average
STEP_UNITS = (32, 128, 256)
#: What cellweave.nn's modules have beside torch.nn's arguments, and what it may cost over the plain module.
ADDITIONS = {"lengths": 1.10, "zoneout": 1.10, "layer norm": 1.25, "weight dropout": 1.10, "all states": 1.10}
ADDITION_SHAPES = ((100, 16, 256), (100, 64, 512))
#: A whole layer in this dtype: its module, its weights, what goes in and comes out.
HALF = "bfloat16"
HALF_SHAPES = tuple(shape for shape in SHAPES if shape[1] >= 16)


@dataclass(frozen=True)
class Case:
    """A layer and its sizes: T steps, B rows, I inputs, H units, float32, time-major.

    variation: bare; variational and per-step (a DropoutWrapper on input, state and output); resets; step (one time step
    from a given state, as in streaming); those in ADDITIONS and HALF, of modules of cellweave.nn. Training is forward
    and backward, with gradients of inputs and all weights.
    """

    kind: str
    mode: str
    variation: str
    T: int
    B: int
    I: int
    H: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.mode}-{self.variation.replace(' ', '-')}-T{self.T}-B{self.B}-H{self.H}"

    @property
    def flops(self) -> int:
        """Of its matrix products: input and recurrent ones forward, and twice as much backward."""
        forward = 2 * self.T * self.B * (self.I + self.H) * GATES[self.kind] * self.H
        return forward * (3 if self.mode == "training" else 1)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def small(case: Case) -> Case:
    """Small awkward sizes, at which the results of a contestant are checked."""
    sizes = {"B": 3, "I": 12, "H": 19}
    return replace(case, T=1 if case.variation == "step" else 7, **sizes)


def _cases() -> tuple[Case, ...]:
    bare = [
        Case(kind, mode, "bare", T, B, H, H)
        for kind in KINDS
        for mode in MODES
        for T, B, H in (COMMON_SHAPES if kind == "rnn" else SHAPES)
    ]
    # without torch.nn as a rival the largest shape says little: matrix products alone decide it
    varied = [
        Case(kind, "training", variation, T, B, H, H)
        for variation in ("variational", "per-step", "resets")
        for kind in ("lstm", "gru_before")
        for T, B, H in COMMON_SHAPES
    ]
    steps = [Case(kind, "inference", "step", 1, 1, H, H) for kind in ("lstm", "gru_after") for H in STEP_UNITS]
    added = [
        Case(kind, "training", variation, T, B, H, H)
        for variation in ADDITIONS
        for kind in ("lstm", "gru_after")
        for T, B, H in ADDITION_SHAPES
    ]
    halves = [Case(kind, "inference", HALF, T, B, H, H) for kind in ("lstm", "gru_after") for T, B, H in HALF_SHAPES]
    return tuple(bare + varied + steps + added + halves)


CASES = _cases()

OURS = "cellweave"
OWN_BARE = "cellweave, bare"


@dataclass(frozen=True)
class Contestant:
    """Who computes a case.

    module: file in contestants/ that builds it; additions: that for what is in ADDITIONS, and HALF. process: those with
    the same one share a worker process. environment: where its packages are installed. shapes: it is only timed at
    these (T, B, I = H), and at single steps. peer: false for ours and for yardsticks. seconds_to_build: longer, and it
    is given up.
    """

    name: str
    module: str
    process: str
    environment: str  # "project", "peers" or "tf1"
    kinds: tuple[str, ...] = KINDS
    modes: tuple[str, ...] = MODES
    variations: tuple[str, ...] = ("bare", "variational", "per-step", "resets", "step")
    shapes: tuple[tuple[int, int, int], ...] | None = None
    peer: bool = True
    seconds_to_build: float = 300.0
    additions: str | None = None

    def module_for(self, case: Case) -> str:
        """The file that builds a case."""
        return self.additions if case.variation in (*ADDITIONS, HALF) and self.additions else self.module

    def takes(self, case: Case) -> bool:
        return (
            case.kind in self.kinds
            and case.mode in self.modes
            and case.variation in self.variations
            and (self.shapes is None or case.variation == "step" or (case.T, case.B, case.H) in self.shapes)
        )


_OURS_AND_TORCH = {"process": "torch", "environment": "project"}
_ALL = ("bare", "variational", "per-step", "resets", "step")
_MODULES = "cellweave_modules"
_WITH_MASKS = ("bare", "variational", "per-step", "resets")
CONTESTANTS = (
    Contestant(
        OURS, "cellweave_layers", **_OURS_AND_TORCH,
        variations=(*_ALL, *ADDITIONS, HALF), peer=False, additions=_MODULES,
    ),
    Contestant(
        OWN_BARE, "cellweave_layers", **_OURS_AND_TORCH,
        variations=("variational", "per-step", "resets", *ADDITIONS), peer=False, additions=_MODULES,
    ),
    Contestant("stepwise", "cellweave_layers", **_OURS_AND_TORCH, shapes=COMMON_SHAPES, additions=_MODULES),
    Contestant("torch.nn", "torch_layers", **_OURS_AND_TORCH, variations=("bare", "step", "lengths", HALF)),
    Contestant("torch loop", "torch_layers", **_OURS_AND_TORCH, shapes=COMMON_SHAPES),
    Contestant(
        "torch compiled", "torch_layers", "torch compiled", "project",
        # every shape is compiled anew, for up to a minute: two kinds and shapes show what a compiled loop gains
        kinds=("lstm", "gru_before"), modes=("training",), variations=("bare",),
        shapes=((100, 1, 128), (35, 20, 650)), seconds_to_build=60,
    ),
    Contestant("jax", "jax_scan", "jax", "peers"),
    Contestant("onnxruntime", "onnx_models", "onnxruntime", "peers", modes=("inference",), variations=("bare", "step")),
    Contestant("openvino", "onnx_models", "openvino", "peers", modes=("inference",), variations=("bare", "step")),
    Contestant(
        "tf1", "tf1_graphs", "tf1", "tf1",
        kinds=("lstm", "gru_before", "rnn"), variations=("bare", "variational", "per-step"), shapes=COMMON_SHAPES,
    ),
    Contestant(
        "sgemm", "products", **_OURS_AND_TORCH,
        modes=("training",), variations=("bare",), peer=False,
    ),
    Contestant(
        "own products", "products", **_OURS_AND_TORCH,
        modes=("training",), variations=("bare",), peer=False,
    ),
)  # fmt: skip
BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
#: Measured without other packages: what `make bench` takes unless told otherwise.
QUICK_PEERS = ("stepwise", "torch.nn", "torch loop")
PEERS = tuple(contestant.name for contestant in CONTESTANTS if contestant.peer)
#: Who can win against us: our own stepwise form is a yardstick, too.
RIVALS = tuple(name for name in PEERS if name != "stepwise")
#: m, k, n of the product whose rate is "sgemm": large enough for the full rate, small enough for a moment.
LARGE_PRODUCT = (4096, 1024, 1024)


@dataclass(frozen=True)
class Target:
    """What a case must reach: a quantity of its result at least or at most a bound.

    quantity: "ratio" is the fastest of `versus` over ours (above 1 we are faster); "cost" ours over the only one of
    `versus`; "sgemm" our share of the sgemm rate; "saved" floats kept for backward per step, row and unit.
    """

    quantity: str
    bound: float
    versus: tuple[str, ...] = ()

    @property
    def at_most(self) -> bool:
        return self.quantity in ("cost", "saved")

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def words(self) -> str:
        subject = {"sgemm": "of sgemm", "saved": "floats saved"}.get(self.quantity, "of " + " / ".join(self.versus))
        return f"{'≤' if self.at_most else '≥'} {self.bound:g} {subject}"


_TORCH = ("torch.nn",)
_BY_SHAPE = {(100, 1, 128): 0, (100, 16, 256): 1, (100, 64, 512): 2}


def targets(case: Case) -> tuple[Target, ...]:
    """All that the case must reach."""
    return tuple(_speed(case)) + tuple(_frugality(case))


def _speed(case: Case) -> list[Target]:
    if case.variation == "bare":
        rules: dict[str, Callable[[Case], list[Target]]] = {"lstm": _lstm, "gru_before": _gru, "gru_after": _gru}
        return rules[case.kind](case) if case.kind in rules else []
    if case.variation == "step":
        if (case.kind, case.H) == ("lstm", 128):
            return [Target("ratio", 20, _TORCH), Target("ratio", 5, ("torch loop",))]
        return []
    if case.variation == HALF:
        return [Target("ratio", 1.0 if case.kind == "lstm" else 2.0, _TORCH)]
    if case.variation in ADDITIONS:
        packed = [Target("ratio", 2.0, _TORCH)] if case.variation == "lengths" and case.B >= 64 else []
        return [Target("cost", ADDITIONS[case.variation], (OWN_BARE,)), *packed]
    found = [Target("cost", 1.10 if case.variation == "per-step" else 1.05, (OWN_BARE,))]
    at = _BY_SHAPE.get((case.T, case.B, case.H))
    if case.variation == "variational" and at is not None:
        found.append(Target("ratio", (12, 3.5, 1.8)[at], ("torch loop",)))
        found.append(Target("ratio", (15, 4, 2.2)[at], ("tf1",)))
    return found


def _lstm(case: Case) -> list[Target]:
    if case.mode == "inference":
        return [Target("ratio", 2.0 if case.B == 1 else 1.0, _TORCH)]
    return [Target("ratio", 1.8 if case.B == 1 else 1.05 if (case.B, case.H) == (16, 256) else 1.15, _TORCH)]


def _gru(case: Case) -> list[Target]:
    large = case.H >= 1024
    if case.mode == "training":
        bound = 6 if case.B == 1 else 1.2 if large else 1.4
        return [Target("ratio", bound, _TORCH), Target("ratio", 1.0, ("jax",))]
    bound = 3 if case.B == 1 else 1.05 if large else 1.3
    return [Target("ratio", bound, _TORCH), Target("ratio", 0.95, ("openvino", "onnxruntime"))]


def _frugality(case: Case) -> list[Target]:
    if case.mode != "training":
        return []
    found = []
    if case.variation == "bare" and case.H >= 512:
        found.append(Target("sgemm", 0.85))
    if case.kind == "lstm" and case.variation not in ADDITIONS:
        found.append(Target("saved", 6))
    return found
