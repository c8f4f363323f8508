"""Single steps for serving: a cell with its state, its weights kept packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cellweave import _nest
from cellweave._checks import as_step_resets
from cellweave._errors import ArgumentError, DTypeError, ShapeError
from cellweave._types import DTypeLike, Nest, dtype_name
from cellweave.cells import require_rnn_cell
from cellweave.layers._readiness import is_ready
from cellweave.layers._sequence import check_state, first_state
from cellweave.layers._stepping import Task, restarted
from cellweave.layers._weaving import misfit, obstacle, state_misfit
from cellweave.ops.common import LayerCall, StepFunction
from cellweave.specs import RunSpec
from cellweave.weave import (
    Adding,
    Feed,
    LayerRun,
    Program,
    Watch,
    asked_backend,
    can_watch,
    choice_for,
    program_of,
)


class Stepper:
    """Runs a cell one step at a time, without gradients: `stepper(inputs) -> outputs`; the state stays inside.

    Rows start anew by `stepper(inputs, resets)`, as where episodes end.

    For serving: where the native core can run the cell (any composition without active masks), a step costs some
    microseconds; weights are packed once, and again after any of them changed. Other cells are simply called. So are
    cells whose weights were made in inference mode: nothing tells when those change. Nor does anything tell of numbers
    written through `weight.data` while a step stays prepared: call `reset` after such writes.

    Args:
        cell: Any recurrent cell. It runs in the mode it is in at each step: in training mode its masks are drawn.
        state: State to start from, in the cell's structure, each leaf `[B, size]`; copied. Default: zeros.
        batch_size: Rows B, where no state is given.
        dtype: Of the zero state and the inputs, where no state is given.
    Raises:
        ArgumentTypeError: no cell, or a state of another structure. ShapeError: a state that does not fit.
    Source: the recurrences are the cells' own; see `explain` for what runs whole sequences.
    """

    def __init__(self, cell: Any, state: Nest = None, *, batch_size: int = 1, dtype: DTypeLike = "float32") -> None:
        require_rnn_cell("Stepper", cell)
        self._cell = cell
        self._chain: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._steps: list[tuple[LayerRun, StepFunction]] = []
        self._program: Program | None = None
        self._watch = Watch(())
        self._shape: torch.Size | None = None
        self.reset(state, batch_size=batch_size, dtype=dtype)

    def reset(self, state: Nest = None, *, batch_size: int = 1, dtype: DTypeLike = "float32") -> None:
        """Start from another state, or from zeros, with weights packed anew."""
        if state is None:
            start = first_state(self._cell, None, dtype, torch.empty((batch_size, 1, 1)), batch_size, "Stepper")
        else:
            check_state(self._cell, state, _nest.flatten(state)[0].shape[0], "Stepper", "state")
            start = state
        self._state = _nest.map_structure(lambda leaf: leaf.detach().clone(), start)
        self._chain = None

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles go on from: the cell and a state of their own; the steps are prepared anew."""
        kept = {"_state": self.state, "_chain": None, "_steps": [], "_program": None, "_watch": Watch(())}
        return {**vars(self), **kept}

    @property
    def state(self) -> Any:
        """A copy of the state after the last step, in the cell's structure."""
        return _nest.map_structure(torch.clone, self._collected())

    def __call__(self, inputs: torch.Tensor, resets: Any = None, reset_state: Nest = None) -> torch.Tensor:
        """One step.

        Args:
            inputs: `[B, I]`, of the state's dtype.
            resets: Bool `[B]`: True starts a row's state anew before the step. Default: none. Weights stay packed.
            reset_state: What it starts from, in the cell's structure, each leaf `[B, size]`; default: zeros.
        Returns:
            A new tensor `[B, O]`.
        Raises:
            ShapeError, DTypeError: inputs that do not fit the state or the weights; resets, or a state for them, that
                do not fit the state. ArgumentTypeError: resets that are no booleans. ArgumentError: `reset_state`
                without `resets`.
            RuntimeError: inputs, state and weights on several devices, where the cell does not move them.
        """
        if torch.compiler.is_dynamo_compiling():
            from cellweave.layers._untraced import step_outside

            return step_outside(self, inputs, resets, reset_state)  # type: ignore[no-any-return]
        chain, restarts = self._chain, resets is not None or reset_state is not None
        # Only the CPU has prepared steps, and whole devices cost twice as much to compare.
        if chain is None or inputs.shape != self._shape or not inputs.is_cpu or not self._watch.holds():
            return self._restarted(inputs, resets, reset_state) if restarts else self._anew(inputs)
        if (
            inputs.dtype is not self._dtype
            or not inputs.is_contiguous()
            or inputs.is_neg()
            or type(inputs) is not torch.Tensor
        ):
            inputs = self._checked(inputs)
        if restarts:
            flags, leaves = self._checked_resets(resets, reset_state, inputs.shape[0])
            for run, step in self._steps if flags.any() else ():
                step.restart(flags.cpu(), None if leaves is None else tuple(piece.of(leaves) for piece in run.states))
        return chain(inputs)

    def _restarted(self, inputs: Any, resets: Any, reset_state: Nest) -> torch.Tensor:
        """A step that is planned or called after rows were started anew; one that fails leaves the state as it was."""
        before = self._collected()
        flags, leaves = self._checked_resets(resets, reset_state, _nest.flatten(before)[0].shape[0])
        fresh = _nest.map_structure(torch.zeros_like, before) if leaves is None else _nest.pack(before, leaves)
        self._state, self._chain = restarted(flags, fresh, before), None
        try:
            return self._anew(inputs)
        except BaseException:
            self._state, self._chain = before, None
            raise

    def _checked_resets(
        self, resets: Any, reset_state: Nest, rows: int
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Resets `[B]` and the leaves of what rows start anew from."""
        if resets is None:
            raise ArgumentError("Stepper: expected resets because reset_state was given, got None.")
        flags = as_step_resets("Stepper", resets, rows)
        if reset_state is None:
            return flags, None
        check_state(self._cell, reset_state, rows, "Stepper", "reset_state")
        leaves = [leaf.detach() for leaf in _nest.flatten(reset_state)]
        for leaf, old in zip(leaves, _nest.flatten(self._state), strict=True):
            if leaf.dtype != old.dtype:
                wanted, got = dtype_name(old.dtype), dtype_name(leaf.dtype)
                raise DTypeError(f"Stepper: expected reset_state of {wanted} as the state is, got {got}.")
        return flags, leaves

    def _collected(self) -> Any:
        """The state; it lies in the steps of the layers while those run."""
        if self._chain is None or self._program is None:
            return self._state
        program = self._program
        made: dict[Any, torch.Tensor] = {}
        for run, step in self._steps:
            made.update(zip(run.states, step.state, strict=True))
        leaves = [torch.cat([made[part] for part in parts], dim=1) for parts in program.leaf_pieces]
        return _nest.pack(program.state_size, leaves)

    def _checked(self, inputs: Any) -> torch.Tensor:
        first = _nest.flatten(self._state)[0]
        if not isinstance(inputs, torch.Tensor) or inputs.dim() != 2 or inputs.shape[0] != first.shape[0]:
            got = list(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__
            raise ShapeError(
                f"Stepper: expected inputs [{first.shape[0]}, I] as the state has rows, got {got}. "
                "Another number of rows needs `batch_size=`, or a `reset`."
            )
        if inputs.dtype != first.dtype:
            wanted, got = dtype_name(first.dtype), dtype_name(inputs.dtype)
            raise DTypeError(f"Stepper: expected inputs of {wanted} as the state is, got {got}.")
        return inputs.detach().contiguous().resolve_neg()

    @torch.no_grad()
    def _anew(self, inputs: torch.Tensor) -> torch.Tensor:
        """A step after something has changed: plan again, or call the cell where no plan is possible."""
        self._state, self._chain = self._collected(), None
        inputs = self._checked(inputs)
        self._chain = self._plan(inputs)
        if self._chain is not None:
            return self._chain(inputs)
        outputs, self._state = self._cell(inputs, self._state)
        return outputs.clone()  # type: ignore[no-any-return]  # a cell's output may be its state

    def _plan(self, inputs: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Prepare the layers' steps; None where a layer has to be called."""
        cell = self._cell
        if not is_ready(cell):
            return None
        x, leaves = inputs[None], _nest.flatten(self._state)
        if obstacle(Task("Stepper", x, self._state, 1, x.shape[1], 1)):
            return None
        program = program_of(cell, x, leaves)
        if program.refusal or program.sites or not all(isinstance(s, LayerRun | Adding) for s in program.stages):
            return None
        if state_misfit(program, cell, self._state, x.shape[1]):
            return None  # the cell itself says what is wrong
        modules = list(cell.modules()) if isinstance(cell, nn.Module) else []
        cells = [program.modules[run.node]() for run in program.runs]
        if not can_watch(modules) or not set(map(id, modules)).issuperset(map(id, cells)):
            return None  # nothing would tell when a weight has changed
        feed, steps = Feed(x, leaves), []
        for run in program.runs:
            backend = choice_for(run, feed, asked_backend()).backend
            if backend is None or backend.step is None:
                return None
            state = tuple(piece.of(leaves) for piece in run.states)
            weights = program.modules[run.node]().named_weights()
            if misfit(program.names[run.node], run, weights, x.dtype, x.device):
                return None  # the cell itself says what is wrong
            like = x if run.source == 0 else x.new_zeros((1, x.shape[1], run.depth))
            steps.append((run, backend.step(LayerCall(RunSpec(run.spec.cell), like, state, weights))))
        self._program, self._steps, self._watch = program, steps, Watch(modules, cells)
        self._shape, self._dtype = inputs.shape, inputs.dtype
        return steps[0][1] if len(program.stages) == 1 and not steps[0][0].spec.residual else self._through

    def _through(self, inputs: torch.Tensor) -> torch.Tensor:
        """All stages of a composition."""
        program, values = self._program, {0: inputs}
        steps = iter(self._steps)
        outputs = inputs
        for stage in () if program is None else program.stages:
            if isinstance(stage, LayerRun):
                outputs = next(steps)[1](values[stage.source])
                if stage.spec.residual:
                    outputs += values[stage.source]
            elif isinstance(stage, Adding):
                outputs = values[stage.source] + values[stage.other]
            values[stage.target] = outputs
        return outputs
