"""Functions inside a wrapper's config, in Keras's form: marshalled code, or a name."""

from __future__ import annotations

import base64
import marshal
import sys
import types
from collections.abc import Mapping
from typing import Any

from cellweave._errors import ArgumentError, ArgumentTypeError


def function_config(key: str, function: Any) -> dict[str, Any]:
    """The three entries `<key>`, `<key>_type`, `<key>_module` that describe a function.

    A plain function gives its marshalled code, defaults and closure values; another callable its `__name__`
    (AttributeError when it has none).
    Source: TF 2.15 `RNNCellDropoutWrapper.get_config`.
    """
    if isinstance(function, types.FunctionType):
        code = base64.encodebytes(marshal.dumps(function.__code__)).decode("ascii")
        cells = function.__closure__
        closure = None if cells is None else tuple(cell.cell_contents for cell in cells)
        value: Any = (code, function.__defaults__, closure)
        kind = "lambda"
    else:
        value, kind = function.__name__, "function"
    return {key: value, f"{key}_type": kind, f"{key}_module": function.__module__}


def with_function(
    config: Mapping[str, Any],
    key: str,
    argument: str,
    custom_objects: Mapping[str, Any] | None,
    safe_mode: bool,
    where: str,
) -> dict[str, Any]:
    """A copy of `config` whose three function entries are replaced by the constructor's argument.

    Raises:
        ArgumentError: marshalled code in safe mode, or a name that is not found. ArgumentTypeError: another type.
    """
    arguments = dict(config)
    if key not in arguments:
        return arguments
    value = arguments.pop(key)
    kind = arguments.pop(f"{key}_type", None)
    # TF 2.0 and 2.1 misspelt the residual wrapper's key
    module = arguments.pop(f"{key}_module", arguments.pop(f"{key.replace('residual', 'residule')}_module", None))
    if kind == "function":
        arguments[argument] = _by_name(value, module, custom_objects, where)
    elif kind == "lambda":
        if safe_mode:
            raise ArgumentError(
                f"{where}.from_config: expected no code in the config, got a marshalled function under {key!r}. "
                "Pass safe_mode=False to run it, if you trust where the config comes from."
            )
        arguments[argument] = _from_code(value, module)
    else:
        raise ArgumentTypeError(f"{where}.from_config: expected {key}_type 'function' or 'lambda', got {kind!r}.")
    return arguments


def _by_name(name: Any, module: str | None, custom_objects: Mapping[str, Any] | None, where: str) -> Any:
    if custom_objects and name in custom_objects:
        return custom_objects[name]
    found = getattr(sys.modules.get(module or ""), str(name), None)
    if found is None:
        raise ArgumentError(f"{where}.from_config: expected a known function, got {name!r}. Pass it in custom_objects.")
    return found


def _from_code(value: Any, module: str | None) -> types.FunctionType:
    code_text, defaults, closure = value
    code = marshal.loads(base64.b64decode(code_text))
    cells = None if closure is None else tuple(types.CellType(item) for item in closure)
    namespace = vars(sys.modules[module]) if module in sys.modules else {"__builtins__": __builtins__}
    function = types.FunctionType(code, namespace, code.co_name, None if defaults is None else tuple(defaults), cells)
    function.__module__ = module or __name__
    return function
