"""A module fed piece by piece."""

from __future__ import annotations

from operator import is_
from typing import Any

import torch

from cellweave._checks import as_step_resets, check_positive_int
from cellweave._errors import ArgumentError, ArgumentTypeError, MisfitError, ShapeError
from cellweave.nn._base import RecurrentModule
from cellweave.nn._entry import check_kind
from cellweave.nn._plans import Facts, Options, choices_for, facts_of, stack_plan
from cellweave.nn._run import Feed, States, surroundings_of
from cellweave.nn._weights import given_weights, parameter, weights_of
from cellweave.ops.common import LayerCall, StepFunction
from cellweave.weave import Watch, can_watch

_NAMES = ("h", "c")


class Stream:
    """Feeds a sequence to a module in pieces of any lengths or step by step, without gradients; the state stays inside.

    On the native core the outputs have the same bits as those of one call over the whole sequence, however it is cut.
    Single steps keep their weights packed, and pack them again after a parameter or the module changed. They do not see
    numbers that are written through `parameter.data`: call `reset` after such writes.

    Args:
        module: An `RNN`, `LSTM` or `GRU` of `cellweave.nn`, of one direction, with nothing random acting: in evaluation
            mode, or without any dropout.
        state: To start from, as the module's `hx` `[L, B, size]`; copied. Default: zeros.
        batch_size: Rows B, where no state is given.
    Raises:
        ArgumentTypeError: another module. ArgumentError: two directions. MisfitError: a state that does not fit.
    """

    def __init__(self, module: Any, state: Any = None, *, batch_size: int = 1) -> None:
        if not isinstance(module, RecurrentModule):
            got = type(module).__name__
            raise ArgumentTypeError(f"Stream: expected an RNN, LSTM or GRU of cellweave.nn, got {got}.")
        if module.bidirectional:
            raise ArgumentError(
                "Stream: expected one direction, got two: the reverse one starts at the sequence's end."
            )
        self._module: RecurrentModule = module
        self._steps: list[StepFunction] = []
        self._facts = facts_of(module)
        self._watch = Watch(())
        self.reset(state, batch_size=batch_size)

    def reset(self, state: Any = None, *, batch_size: int = 1) -> None:
        """Start from another state, or from zeros."""
        if state is None:
            check_positive_int("Stream batch_size", batch_size)
            like = parameter(self._module, "weight_ih_l0", given_weights(self._module))
            shapes = [(self._module.num_layers, batch_size, size) for size in _sizes(self._module)]
            leaves = tuple(torch.zeros(s, dtype=like.dtype, device=like.device) for s in shapes)
        else:
            leaves = tuple(leaf.detach().clone() for leaf in self._fitting(state))
        self._steps, self._leaves = [], leaves

    def _fitting(self, state: Any, rows: int | None = None) -> States:
        """Leaves of a state, of so many rows or of any number."""
        leaves = tuple(state) if isinstance(state, tuple | list) else (state,)
        sizes, got = _sizes(self._module), [list(leaf.shape) for leaf in leaves]
        if rows is None and leaves[0].dim() == 3:
            rows = leaves[0].shape[1]
        if got != [[self._module.num_layers, rows, size] for size in sizes]:
            wanted = f"[layers, {'B' if rows is None else rows}, size]"
            raise MisfitError(f"Stream: expected a state {wanted} of sizes {list(sizes)}, got {got}.")
        return leaves

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles go on from: the module and a state of their own; the steps are prepared anew."""
        leaves = tuple(leaf.clone() for leaf in self._collected())
        return {**vars(self), "_leaves": leaves, "_steps": [], "_watch": Watch(())}

    @property
    def state(self) -> Any:
        """A copy of the state after the last step, as the module's `hx`."""
        leaves = tuple(leaf.clone() for leaf in self._collected())
        return leaves if len(leaves) == 2 else leaves[0]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state by name, `h` and for an LSTM `c`, to save with `torch.save` or as safetensors."""
        return dict(zip(_NAMES, (leaf.clone() for leaf in self._collected()), strict=False))

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a saved state; the number of rows is the saved one's.

        Raises:
            ArgumentError: other names. MisfitError: sizes that do not fit the module.
        """
        names = _NAMES[: len(_sizes(self._module))]
        if sorted(state) != sorted(names):
            got = ", ".join(sorted(state)) or "none"
            raise ArgumentError(f"Stream: expected a state of {', '.join(names)}, got {got}.")
        self.reset(tuple(state[name] for name in names))

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, *, resets: Any = None, reset_state: Any = None) -> torch.Tensor:
        """The next piece of the sequence.

        Args:
            inputs: `[T, B, I]`, or `[B, T, I]` for a module with `batch_first`; T may differ from call to call.
            resets, reset_state: As in the module's call: rows whose state is replaced before a step, and by what.
        Returns:
            outputs `[T, B, P]`, laid out as the inputs.
        Raises:
            ArgumentError: a random mask would act. Else as the module's call.
        """
        if torch.compiler.is_dynamo_compiling():
            from cellweave.nn._traced import feed_outside

            return feed_outside(self, inputs, resets=resets, reset_state=reset_state)  # type: ignore[no-any-return]
        self._check_calm(facts_of(self._module))
        self._check_rows(inputs)
        leaves = self._collected()
        hx = leaves if len(leaves) == 2 else leaves[0]
        # A forward of the module's own may not know them.
        anew = {} if resets is None and reset_state is None else {"resets": resets, "reset_state": reset_state}
        outputs, state = self._module(inputs, hx, **anew)
        self._steps, self._leaves = [], state if isinstance(state, tuple) else (state,)
        return outputs  # type: ignore[no-any-return]

    @torch.no_grad()
    def step(self, inputs: torch.Tensor, *, resets: Any = None, reset_state: Any = None) -> torch.Tensor:
        """The next step.

        Args:
            inputs: `[B, I]`.
            resets: Bool `[B]`. True: the row's state is replaced before the step; weights stay packed. Default: none.
            reset_state: What replaces it, as the module's `hx`. Default: zeros.
        Returns:
            outputs `[B, P]`.
        Raises:
            ArgumentError: a random mask would act; inputs of another dtype or device than the state; `reset_state`
                without `resets`. ArgumentTypeError: resets that are no booleans. Else as the module's call.
        """
        if torch.compiler.is_dynamo_compiling():
            from cellweave.nn._traced import feed_outside

            return feed_outside(self.step, inputs, resets=resets, reset_state=reset_state)  # type: ignore[no-any-return]
        facts = facts_of(self._module)
        self._check_calm(facts)
        flags, fresh = self._checked_resets(resets, reset_state)
        if not self._steps or facts != self._facts or not self._watch.holds() or not _is_plain(self._module):
            self._leaves, self._steps = self._collected(), []
            self._prepare(facts, inputs)
        if not self._steps:
            if inputs.dim() != 2:
                raise ShapeError(f"Stream: expected inputs [B, I] of a step, got {list(inputs.shape)}.")
            time = 1 if self._module.batch_first else 0
            flags = None if flags is None else flags.unsqueeze(time)
            return self(inputs.unsqueeze(time), resets=flags, reset_state=reset_state).squeeze(time)
        self._check_step(inputs)
        if flags is not None and flags.any():
            for number, step in enumerate(self._steps):  # which have c before h
                step.restart(flags, None if fresh is None else tuple(leaf[number] for leaf in reversed(fresh)))
        x = inputs.detach().contiguous().resolve_neg()
        for step, adds in zip(self._steps, self._adds, strict=True):
            y = step(x)
            x = x + y if adds else y
        return x

    def _check_calm(self, facts: Facts) -> None:
        plan = stack_plan(facts, Options(False, False))
        between = self._module.training and self._module.dropout > 0 and self._module.num_layers > 1
        if plan.masks or plan.weight_dropout or between:
            raise ArgumentError(
                f"Stream: expected nothing random to act, got {self._module} in training mode. Call .eval() on it."
            )

    def _check_rows(self, inputs: Any) -> None:
        rows, axis = self._leaves[0].shape[1], 0 if self._module.batch_first else 1
        if isinstance(inputs, torch.Tensor) and inputs.dim() == 3 and inputs.shape[axis] != rows:
            raise MisfitError(
                f"Stream: expected inputs of {rows} rows as the state has, got {list(inputs.shape)}. "
                "Start with `batch_size=`, or `reset` it."
            )

    def _checked_resets(self, resets: Any, reset_state: Any) -> tuple[torch.Tensor | None, States | None]:
        """Resets `[B]` and the leaves of what replaces a row's state."""
        if resets is None:
            if reset_state is not None:
                raise ArgumentError("Stream: expected resets beside reset_state, got none.")
            return None, None
        like = self._leaves[0]
        flags = as_step_resets("Stream", resets, like.shape[1]).to(like.device)
        if reset_state is None:
            return flags, None
        leaves = self._fitting(reset_state, like.shape[1])
        check_kind(self._module, "a state", leaves, like, "stream's numbers")
        return flags, leaves

    def _check_step(self, inputs: torch.Tensor) -> None:
        wanted = [self._leaves[0].shape[1], self._module.input_size]
        if list(inputs.shape) != wanted:
            raise MisfitError(f"Stream: expected inputs {wanted} of a step, got {list(inputs.shape)}.")
        if inputs.dtype != self._leaves[0].dtype:
            raise ArgumentError(f"Stream: expected inputs of {self._leaves[0].dtype}, got {inputs.dtype}.")
        if inputs.device != self._leaves[0].device:
            raise ArgumentError(
                f"Stream: expected inputs on {self._leaves[0].device} as the state is, got {inputs.device}. "
                "Move them with .to(device)."
            )

    def _collected(self) -> States:
        """The state; it lies in the steps while those run."""
        if not self._steps:
            return self._leaves
        states = [step.state for step in self._steps]  # c before h
        return tuple(torch.stack([state[leaf] for state in states]) for leaf in reversed(range(len(self._leaves))))

    def _prepare(self, facts: Facts, inputs: torch.Tensor) -> None:
        """Make the layers' steps, where the chosen backends have them."""
        module, options = self._module, Options(False, False)
        # A call of the module's own wants to be called. Nothing tells when what a parametrization or others make, or a
        # parameter of inference mode, has changed.
        if not _is_plain(module) or not can_watch([module]):
            return
        watch = Watch([module])
        if not watch.holds():
            return  # hooks want the module to be called
        plan = stack_plan(facts, options)
        weights = [weights_of(module, place, {}, 0.0) for place in plan.places]
        feed = Feed(inputs[None], self._leaves, None, None, None, False, False)
        choices = choices_for(facts, options, surroundings_of(feed, weights))
        if any(choice.backend is None or choice.backend.step is None for choice in choices):
            return
        if any(place.spec.masks for place in plan.places) or inputs.dim() != 2:
            return
        self._check_step(inputs)
        steps = []
        for number, (place, choice) in enumerate(zip(plan.places, choices, strict=True)):
            state = tuple(leaf[number] for leaf in reversed(self._leaves))
            x = inputs.new_zeros((1, inputs.shape[0], place.depth))
            make = choice.backend.step if choice.backend is not None else None
            if make is not None:
                steps.append(make(LayerCall(place.spec, x, state, weights[number])))
        self._steps, self._adds = steps, [place.spec.residual for place in plan.places]
        self._facts, self._watch = facts, watch


def _is_plain(module: RecurrentModule) -> bool:
    """Its call is cellweave's, on parameters of its own, with nothing put into their place."""
    if type(module).forward is not RecurrentModule.forward or "forward" in vars(module):
        return False
    return all(map(is_, map(module._parameters.get, module._flat_weights_names), module._flat_weights))


def _sizes(module: RecurrentModule) -> tuple[int, ...]:
    return stack_plan(facts_of(module), Options(False, False)).sizes
