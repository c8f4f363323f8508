"""The Python lines that build what was recognised and load it."""

from __future__ import annotations

import ast
import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from cellweave.checkpoint import Inventory, StoredVariable
from cellweave.transfer._graph_facts import CellFacts, told_of
from cellweave.transfer._plain import PlainNeed, plain_options
from cellweave.transfer._recognise import (
    Found,
    FoundCell,
    FoundCudnn,
    FoundLayer,
    FoundLayers,
    FoundPair,
    FoundStack,
    Recognised,
    cells_in,
)

#: Parts of scopes that say nothing of what a cell is for.
_DULL = re.compile(
    r"(?:rnn|bidirectional_rnn|stack_bidirectional_rnn|multi_rnn_cell|while|cell|cell_\d+|fw|bw|\w+_cell)(?:_\d+)?"
)
_AXES = {"Linear": (1, 0), "Conv1d": (2, 1, 0), "Conv2d": (3, 2, 0, 1)}
_ROLES = {"Embedding": {"weight": "table"}, "LayerNorm": {"weight": "gamma", "bias": "beta"}}
_WIDE = 88  # columns
#: Words that the program uses for something else.
_USED = ("model", "report", "cw", "nn", "torch", "keep", "training", "print", "list", "inputs", "outputs", "state")


class CodeWriter:
    """Writes the program of one checkpoint."""

    def __init__(self, path: str, inventory: Inventory, found: Recognised, facts: Mapping[str, CellFacts]) -> None:
        self.path, self.inventory, self.found, self.facts = path, inventory, found, facts
        self._names: dict[int, str] = {}
        self._keeps: dict[str, str] = {}
        taken: set[str] = set()
        alone = len(found.recurrent) == 1
        for item in found.recurrent:
            self._names[id(item)] = _free(_cell_name(item, alone), taken)
        for layer in found.layers:
            self._names[id(layer)] = _free(_word(layer.scope.rpartition("/")[2]), taken)

    def name_of(self, found: Found | FoundLayer) -> str:
        """What the program calls a part."""
        return self._names[id(found)]

    def code(self) -> str:
        """The program."""
        parts = [(self.name_of(item), self._expression(item)) for item in self.found.recurrent]
        parts += [(self.name_of(layer), self._layer(layer)) for layer in self.found.layers]
        if not parts:
            return "# No cell or layer was recognised: read variables by cellweave.checkpoint.open_checkpoint."
        single = len(parts) == 1
        imports = ["import cellweave as cw"]
        body = "\n".join(text for _, text in parts)
        if "torch." in body or self._keeps:
            imports.insert(0, "import torch")
        if "nn." in body or not single:
            imports.append("from torch import nn")
        lines = [*imports, ""]
        lines += [f"{name} = torch.tensor(1.0)  # {placeholder}" for placeholder, name in self._keeps.items()]
        target = parts[0][0] if single else "model"
        lines += [*self._assumed(), *self._doubts()]
        lines.append(f"{target} = {parts[0][1] if single else _long_dict(parts)}")
        mapped = self._map(target if single else None)
        averaged = ["averaged=True"] if self._only_averages() else []
        if mapped:
            lines += ["report = cw.load_tf1(", f"    {target},", f"    {_quoted(self.path)},", "    map={"]
            lines += [f"        {_quoted(key)}: {_quoted(value)}," for key, value in mapped.items()]
            lines += ["    },", *(f"    {option}," for option in averaged), ")"]
        else:
            lines.append(f"report = cw.load_tf1({', '.join([target, _quoted(self.path), *averaged])})")
        lines += ["print(report)", *self._usage(single)]
        return "\n".join(lines) + "\n"

    def _only_averages(self) -> bool:
        """Whether of a variable in the program only the moving average is stored."""
        cells = [cell for item in self.found.recurrent for cell in cells_in(item)]
        variables = [v for cell in cells for v in cell.variables.values()]
        variables += [v for layer in self.found.layers for v in layer.parameters.values()]
        return any(variable.value is None for variable in variables)

    def _assumed(self) -> Iterator[str]:
        """A comment on the arguments that are left at TF1's defaults because nothing tells them."""
        assumed: dict[str, str] = {}
        for item in self.found.recurrent:
            for cell in cells_in(item):
                told = self.facts.get(cell.scope)
                if isinstance(item, FoundCudnn) or (told is not None and (told.cls is not None or told.step is False)):
                    continue
                known = {} if told is None else told.options
                assumed |= {name: value for name, value in cell.kind.unknown.items() if name not in known}
        if assumed:
            yield "# TF1's defaults, which no checkpoint confirms: " + ", ".join(
                f"{name}={_text(value)}" for name, value in assumed.items()
            )

    def _doubts(self) -> Iterator[str]:
        """A comment on each part that computes something else in the graph than the program's cells do."""
        for item in self.found.recurrent:
            told = told_of(item, self.facts)
            if any(fact.step is False for fact in told):
                yield f"# {self.name_of(item)}: the graph has another step than this class, so its outputs are others."
            if any(fact.changed for fact in told):
                yield f"# {self.name_of(item)}: the graph changes the state between steps, which this program does not."

    def _expression(self, found: Found) -> str:
        if isinstance(found, FoundCell):
            return self._cell(found)
        if isinstance(found, FoundStack):
            flag = any(facts.stack_one_tensor for facts in told_of(found, self.facts))
            keywords = ["state_is_tuple=False"] if flag else []
            told = self.facts.get(found.cells[0].scope)
            if len(found.cells) == 1 and told is not None and told.places > 1:
                text = f"[{self._expression(found.cells[0])}] * {told.places}"  # one object in several places
                return f"cw.MultiRNNCell({', '.join([text, *keywords])})"
            return _call("cw.MultiRNNCell", [self._expression(cell) for cell in found.cells], keywords)
        if isinstance(found, FoundPair):
            fw = self._expression(found.fw)
            if found.bw is None:
                return fw
            return _dict([("fw", fw), ("bw", self._expression(found.bw))])
        if isinstance(found, FoundLayers):
            ahead = [self._expression(pair.fw) for pair in found.pairs]
            back = [self._expression(pair.bw or pair.fw) for pair in found.pairs]
            return _dict([("fw", _call("nn.ModuleList", ahead)), ("bw", _call("nn.ModuleList", back))])
        return self._cudnn(found)

    def _cell(self, cell: FoundCell) -> str:
        kind, told = cell.kind, self.facts.get(cell.scope)
        cls = kind.cls if told is None or told.cls is None else told.cls
        options = dict(kind.options)
        if told is not None and told.step is not False:
            options |= {
                name: value
                for name, value in told.options.items()
                if value != kind.unknown.get(name) and not (name == "cell_clip" and value == "None")
            }
        if told is not None and told.one_tensor:
            options["state_is_tuple"] = "False"
        if cls.startswith("contrib.LSTMBlock") and "use_peepholes" in options:
            options["use_peephole"] = options.pop("use_peepholes")
        arguments = [str(kind.units), *(f"{name}={_text(value)}" for name, value in options.items())]
        text = f"cw.{cls}({', '.join(arguments)})"
        if told is not None and told.reversed:
            text = f"cw.contrib.TimeReversedFusedRNN({text})"
        return text if told is None else self._wrapped(cell, told, text)

    def _wrapped(self, cell: FoundCell, told: CellFacts, text: str) -> str:
        """A cell's text within the wrappers that the graph shows."""
        if told.residual == "inside":
            text = f"cw.ResidualWrapper({text})"
        if told.dropout:
            keeps = told.dropout.items()
            options = [f"{what}_keep_prob={self._keep(keep.value, keep.placeholder)}" for what, keep in keeps]
            if any(keep.shared for _, keep in keeps):
                dtype = next(iter(cell.variables.values())).dtype
                options += ["variational_recurrent=True", f"dtype={_quoted(dtype)}"]
                options += [f"input_size={cell.kind.depth}"] if "input" in told.dropout else []
            text = f"cw.DropoutWrapper({text}, {', '.join(options)})"
        return f"cw.ResidualWrapper({text})" if told.residual == "outside" else text

    def _keep(self, value: str | None, placeholder: str | None) -> str:
        if value is not None:
            return value
        placeholder = "not told by the graph" if placeholder is None else f"fed by {placeholder} in TF1"
        if placeholder not in self._keeps:
            self._keeps[placeholder] = "keep" if not self._keeps else f"keep_{len(self._keeps)}"
        return self._keeps[placeholder]

    def _cudnn(self, found: FoundCudnn) -> str:
        options = [str(found.layers), str(found.units)]
        if found.both:
            options.append('direction="bidirectional"')
        return f"cw.{found.cls}({', '.join(options)})"

    def _layer(self, layer: FoundLayer) -> str:
        dtype = next(iter(layer.parameters.values())).dtype
        sizes = list(layer.sizes)
        if dtype != "float32" and hasattr(torch, dtype):
            sizes.append(f"dtype=torch.{dtype}")
        return f"nn.{layer.kind}({', '.join(sizes)})"

    def _map(self, single: str | None) -> dict[str, str]:
        """What names alone would not tell, by path in the model."""
        mapped: dict[str, str] = {}
        several = len(self.found.recurrent) > 1
        for item in self.found.recurrent:
            weights = self._weights_of_graph(item, "" if single else self.name_of(item))
            if weights:
                mapped |= weights
                continue
            if isinstance(item, FoundPair) and item.bw is not None and "/fw/" not in f"{item.fw.scope}/":
                before = "" if single else f"{self.name_of(item)}."
                mapped |= {f"{before}fw": item.fw.scope, f"{before}bw": item.bw.scope}
                continue
            inside_stack = isinstance(item, FoundCell) and re.search(r"(?:^|/)cell_\d+/[^/]+$", item.scope)
            if several or inside_stack:
                mapped["" if single else self.name_of(item)] = item.scope
        for layer in self.found.layers:
            name = "" if single else self.name_of(layer)
            for parameter, variable in layer.parameters.items():
                path = f"{name}.{parameter}" if name else parameter
                if not self._found_alone(layer, name, path, parameter):
                    told = self.inventory.named(variable.name) is variable
                    mapped[path] = variable.name if told else variable.lookup
                    if self._renamed(variable):
                        mapped[path] = variable.spelled
        return mapped

    def _weights_of_graph(self, item: Found, path: str) -> dict[str, str]:
        """Every weight of Keras's cells whose variables only the graph tells, by path in the model."""
        cells = {"": item} if not isinstance(item, FoundPair) else {"fw": item.fw, "bw": item.bw}
        return {
            ".".join(part for part in (path, side, suffix) if part): variable.spelled
            for side, cell in cells.items()
            if isinstance(cell, FoundCell)
            for suffix, variable in cell.variables.items()
            if self._renamed(variable)
        }

    def _renamed(self, variable: StoredVariable) -> bool:
        """Whether a variable has its name from the graph only."""
        return self.inventory.variables.get(variable.lookup) is not variable

    def _found_alone(self, layer: FoundLayer, name: str, path: str, parameter: str) -> bool:
        """Whether loading would find the variable by the module's name."""
        if layer.as_torch and parameter == "weight":
            return False
        variable = layer.parameters[parameter]
        axes = _AXES.get(layer.kind) if parameter == "weight" else None
        role = _ROLES.get(layer.kind, {"weight": "kernel", "bias": "bias"})[parameter]
        shape = variable.shape if axes is None else tuple(variable.shape[axis] for axis in axes)
        value = torch.empty(shape, device="meta")
        need = PlainNeed(path, name, value, role, axes, len(layer.parameters) == 1)
        options = plain_options(need, self.inventory, None, None)
        return len(options) == 1 and options[0].sources[0] is variable

    def _usage(self, single: bool) -> Iterator[str]:
        """How each recurrent part is run, as comments."""
        if self.found.recurrent:
            yield ""
        for item in self.found.recurrent:
            name = self.name_of(item)
            part = name if single else f'model["{name}"]'
            lowest = next(cells_in(item))
            depth, dtype = lowest.kind.depth, _quoted(next(iter(lowest.variables.values())).dtype)
            shape = f"[B, T, {depth}]"
            lengths = any(facts.lengths is not None for facts in told_of(item, self.facts))
            more = "sequence_length=lengths, " if lengths else ""
            if isinstance(item, FoundPair) and item.bw is None:
                call = f"cw.bidirectional_dynamic_rnn({part}, {part}, inputs, {more}dtype={dtype})"
            elif isinstance(item, FoundPair):
                call = f'cw.bidirectional_dynamic_rnn({part}["fw"], {part}["bw"], inputs, {more}dtype={dtype})'
            elif isinstance(item, FoundLayers):
                pair = f'list({part}["fw"]), list({part}["bw"])'
                call = f"cw.stack_bidirectional_dynamic_rnn(\n#     {pair}, inputs, {more}dtype={dtype})"
            elif isinstance(item, FoundCudnn):
                call, shape = f"{part}(inputs, training=False)", f"[T, B, {depth}]"
            elif isinstance(item, FoundCell) and "FusedCell" in item.kind.cls:
                call, shape = f"{part}(inputs, dtype={dtype})", f"[T, B, {depth}]"
            else:
                call = f"cw.dynamic_rnn({part}, inputs, {more}dtype={dtype})"
            yield f"# outputs, state = {call}  # inputs {shape}"


def _cell_name(found: Found, alone: bool) -> str:
    if alone:
        return "cells" if isinstance(found, FoundPair | FoundLayers) else "cell"
    telling = [part for part in found.scope.split("/") if part and not _DULL.fullmatch(part)]
    return _word(telling[-1]) if telling else "cell"


def _word(text: str) -> str:
    """A Python word out of a scope's part."""
    word = re.sub(r"\W+", "_", text).strip("_").lower() or "part"
    if not f"_{word}".isidentifier():  # a superscript two is a letter for `re`
        word = re.sub(r"\W+", "_", word, flags=re.ASCII)
    return word if word.isidentifier() else f"_{word}"


def _free(word: str, taken: set[str]) -> str:
    if hasattr(nn.ModuleDict, word) or keyword.iskeyword(word) or word in _USED:
        word += "_layer"
    name, index = word, 1
    while name in taken:
        name, index = f"{word}_{index}", index + 1
    taken.add(name)
    return name


def _text(value: str) -> str:
    """An option's Python text with double quotes."""
    return _quoted(ast.literal_eval(value)) if value.startswith(("'", '"')) else value


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # escapes as Python has them


def _call(function: str, items: list[str], more: Sequence[str] = ()) -> str:
    """A call with a list and keywords, on one line where it fits, else as formatters break it."""
    flat = f"{function}({', '.join(['[' + ', '.join(items) + ']', *more])})"
    if len(flat) <= _WIDE and "\n" not in flat:
        return flat
    inner = "".join(f"        {_indented(item)},\n" for item in items)
    rest = "".join(f"    {keyword},\n" for keyword in more)
    return f"{function}(\n    [\n{inner}    ]{',' if more else ''}\n{rest})"


def _dict(items: list[tuple[str, str]]) -> str:
    flat = "{" + ", ".join(f'"{name}": {text}' for name, text in items) + "}"
    if len(flat) <= _WIDE and "\n" not in flat:
        return f"nn.ModuleDict({flat})"
    return _long_dict(items)


def _long_dict(items: list[tuple[str, str]]) -> str:
    inner = "".join(f'        "{name}": {_indented(text)},\n' for name, text in items)
    return f"nn.ModuleDict(\n    {{\n{inner}    }}\n)"


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 8)
