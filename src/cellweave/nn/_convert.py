"""Exchanging the recurrent modules inside a model, and back."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.nn.utils import parametrize

from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave.nn._additions import Additions
from cellweave.nn._base import RecurrentModule
from cellweave.nn._gru import GRU
from cellweave.nn._gru_cell import GRUCell
from cellweave.nn._lstm import LSTM
from cellweave.nn._lstm_cell import LSTMCell
from cellweave.nn._rnn import RNN
from cellweave.nn._rnn_cell import RNNCell
from cellweave.nn._single_step import SingleStep

_OURS: dict[type, type] = {
    torch.nn.RNN: RNN,
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNNCell: RNNCell,
    torch.nn.LSTMCell: LSTMCell,
    torch.nn.GRUCell: GRUCell,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
#: What a class made for parametrized tensors does not hand on to another.
_OWN = ("__dict__", "__weakref__", "__doc__", "__module__")


@dataclass(frozen=True)
class ConvertedModule:
    """One recurrent module of a model.

    Attributes:
        name: Its dotted name in the model; "" for the model itself.
        before, after: Its class, such as `torch.nn.LSTM`; `after` equals `before` where it was left as it is.
        note: Why it was left, or what goes on with it; "" for nothing to say.
    """

    name: str
    before: str
    after: str
    note: str = ""

    @property
    def changed(self) -> bool:
        """It was exchanged."""
        return self.before != self.after


@dataclass(frozen=True)
class ModelConversion:
    """What `convert` or `convert_back` did. `str(report)` is the table.

    Attributes:
        model: The model, the very object that was given.
        modules: Its recurrent modules.
    """

    model: torch.nn.Module
    modules: tuple[ConvertedModule, ...]

    def __str__(self) -> str:
        changed = sum(row.changed for row in self.modules)
        lines = [f"{changed} of {len(self.modules)} recurrent modules converted"]
        for row in self.modules:
            what = f"{row.before} -> {row.after}" if row.changed else f"{row.before} stays"
            lines.append(f"{row.name or '(the model)'}: {what}" + (f": {row.note}" if row.note else ""))
        return "\n".join(lines)


def convert(model: torch.nn.Module) -> ModelConversion:
    """Turn every recurrent module of torch.nn inside a model into cellweave's, in place.

    Each module stays the object that it is and changes its class: parameters, their sharing, optimizers, hooks,
    devices, training flags, parametrizations and every reference to the module remain. A second call changes nothing.

    Args:
        model: Any module; it may be a recurrent one itself. Changed in place.
    Returns:
        The report, with the model.
    Raises:
        ArgumentTypeError: no module.
    Numerics: results agree with torch.nn's within rounding; masks of `dropout` are the same under the same seed.
    """
    _require_module("convert", model)
    rows = []
    for name, module in model.named_modules():
        kind = type(module)
        base = _plain_class(module)
        taken = sorted(_TAKEN & vars(module).keys()) if base in _OURS else []
        if taken:
            why = f"its own attributes {', '.join(taken)} would hide those of cellweave's"
            rows.append(ConvertedModule(name, _shown(base), _shown(base), why))
        elif base in _OURS:
            note = "its parametrizations stay" if base is not kind else ""
            _change_class(module, _OURS[base])
            rows.append(ConvertedModule(name, _shown(base), _shown(_OURS[base]), note))
        elif isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
            rows.append(ConvertedModule(name, _shown(base), _shown(base), _why_it_stays(base)))
    return ModelConversion(model, tuple(rows))


def convert_back(model: torch.nn.Module) -> ModelConversion:
    """Turn every recurrent module of cellweave inside a model into torch.nn's, in place; the way back of `convert`.

    Args:
        model: Any module. Changed in place, or not at all.
    Returns:
        The report, with the model.
    Raises:
        ArgumentError: a module has an addition that torch.nn does not have; the message names all of them.
        ArgumentTypeError: no module.
    """
    _require_module("convert_back", model)
    found = [(name, module, _plain_class(module)) for name, module in model.named_modules()]
    ours = [(name, module, base) for name, module, base in found if base in _THEIRS]
    lost = [f"{name or 'the model'} has {_without_form(module)}" for name, module, _ in ours if _without_form(module)]
    if lost:
        raise ArgumentError(f"convert_back: expected modules that torch.nn can be, got {'; '.join(lost)}.")
    rows = []
    for name, module, base in found:
        if base in _THEIRS:
            for held in ("additions", "draws"):
                module.__dict__.pop(held, None)
            _change_class(module, _THEIRS[base])
            rows.append(ConvertedModule(name, _shown(base), _shown(_THEIRS[base])))
        elif isinstance(module, (RecurrentModule, SingleStep)):
            rows.append(ConvertedModule(name, _shown(base), _shown(base), "a class of its own"))
    return ModelConversion(model, tuple(rows))


def _require_module(where: str, model: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise ArgumentTypeError(f"{where}: expected a module, got {model!r}.")


def _without_form(module: Any) -> str:
    """The additions of a module that torch.nn does not have."""
    return ", ".join(each for each in module.additions.differing() if each.partition("=")[0] not in _WITHOUT_EFFECT)


def _why_it_stays(base: type) -> str:
    if base in _THEIRS:
        return "it is cellweave's already"
    if issubclass(base, (RecurrentModule, SingleStep)):
        return "a subclass of cellweave's already"
    return "a class of its own, which may compute otherwise"


#: Names that a module of cellweave's gives a meaning.
_TAKEN = {"forward", "additions", "draws", *(field.name for field in fields(Additions))}
#: Say how masks are drawn, if any are.
_WITHOUT_EFFECT = ("variational", "mask_per_row", "mask_per_gate")


def _plain_class(module: torch.nn.Module) -> type:
    return parametrize.type_before_parametrizations(module)


def _change_class(module: torch.nn.Module, target: type) -> None:
    kind = type(module)
    if parametrize.is_parametrized(module):  # torch made a class for its properties
        members = {name: value for name, value in vars(kind).items() if name not in _OWN}
        target = type(f"Parametrized{target.__name__}", (target,), members)
    module.__class__ = target


def _shown(kind: type) -> str:
    home = "torch.nn" if kind.__module__.startswith("torch.nn.") else kind.__module__.split("._")[0]
    return f"{home}.{kind.__name__}"
