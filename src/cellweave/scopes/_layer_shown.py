"""What `print` shows of a layer: the arguments that it was made with."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

#: Arguments of every layer, which say nothing of what it computes.
_COMMON = frozenset(["name", "trainable", "dtype", "reuse"])

#: What an activation that is not given stands for in TF1's cells.
_DEFAULT_ACTIVATION = "tanh"


#: Significant digits of a number; keep probabilities are rounded to float32.
_DIGITS = 7


def config_is_ours(layer: nn.Module) -> bool:
    """Whether the configurations of a layer and of all layers inside are the library's own, which never fail."""
    owners = [
        next(base for base in type(module).__mro__ if "get_config" in vars(base))
        for module in layer.modules()
        if hasattr(type(module), "get_config")
    ]
    return all(_is_ours(owner) for owner in owners)


def shown_arguments(layer: Any) -> str:
    """The numbers, texts and flags of a layer's configuration that differ from its constructor's defaults."""
    cls: Any = next(base for base in type(layer).__mro__ if _is_ours(base))
    config = layer.get_config()
    shown, leading = [], True
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        required = parameter.default is inspect.Parameter.empty
        if name in _COMMON or name not in config or not _is_plain(config[name]):
            leading = leading and not required
        elif required and leading:
            shown.append(_text(config[name]))
        elif not _is_default(name, config[name], parameter.default):
            shown.append(f"{name}={_text(config[name])}")
    return ", ".join(shown)


def _is_ours(cls: type[Any]) -> bool:
    return cls.__module__.startswith("cellweave.")


def _is_default(name: str, value: Any, default: Any) -> bool:
    return bool(value == default or (default is None and name == "activation" and value == _DEFAULT_ACTIVATION))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(item, int) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _text(value: Any) -> str:
    return repr(float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value)
