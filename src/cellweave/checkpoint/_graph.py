"""Graphs: the operations of a `.meta` file, a `saved_model.pb` or a frozen graph, with their attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cellweave.checkpoint._dtypes import dtype_text
from cellweave.checkpoint._files import File
from cellweave.checkpoint._limits import MAX_NODES
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import read_size
from cellweave.checkpoint._tensor_proto import read_header, read_tensor
from cellweave.checkpoint._wire import (
    FIXED32,
    LENGTH,
    VARINT,
    Buffer,
    Field,
    expect,
    fields,
    read_varint,
    signed,
    text,
)


class Attributes(Mapping[str, Any]):
    """The attributes of a node by name, each decoded when it is asked for.

    A number is an int or a float, a flag a bool, a text `bytes`, a dtype its name, a shape a tuple (None: unknown size,
    or None for an unknown rank), a tensor a read-only array, a function its name, a list a tuple of these.
    """

    def __init__(self, data: Buffer, spans: dict[str, tuple[int, int]], place: Place) -> None:
        self._data, self._spans, self._place = data, spans, place

    def __getitem__(self, name: str) -> Any:
        start, end = self._spans[name]
        return _attribute(self._data, start, end, self._place.within(f"attribute {name!r}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __repr__(self) -> str:
        return f"Attributes({', '.join(self._spans)})"


@dataclass(frozen=True)
class Node:
    """An operation of a graph.

    Args:
        name: Its name, unique in its graph.
        op: What it does: "Const", "MatMul", ...
        inputs: Names of nodes, with ":1" for a second output and so on, and with "^" in front for an order only.
        device: Where it was placed; empty if nowhere.
        attrs: Its attributes by name.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    device: str
    attrs: Mapping[str, Any] = field(compare=False)


@dataclass(frozen=True)
class Signature:
    """What a function of a graph's library takes and gives.

    Args:
        inputs: Names of its arguments, as its operations take them.
        outputs: The tensors that it gives, as its operations call them: `node:output:0`, or an argument.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """A graph that was read from a file.

    Args:
        path: The file.
        nodes: Its operations, in the file's order.
        functions: The operations of each function in its library, by the function's name.
        tags: What a SavedModel says the graph is for, such as "serve"; empty elsewhere.
        signatures: What each of these functions takes and gives.
    """

    path: Path
    nodes: tuple[Node, ...]
    functions: Mapping[str, tuple[Node, ...]]
    tags: tuple[str, ...] = ()
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    _by_name: Mapping[str, Node] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> Node:
        """The node with this name."""
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name


def read_graph(path: str | Path) -> Graph:
    """Read the graph of a `.meta` file, a `saved_model.pb` or a frozen GraphDef.

    Of a SavedModel with several graphs the one tagged "serve" is taken, else the first. Attributes are decoded when
    they are asked for; tensors in them are views of the mapped file.

    Args:
        path: The file, or a SavedModel's folder. In a file that is called neither `*.meta` nor `saved_model.pb` the
            first field tells a SavedModel from a GraphDef.
    Returns:
        The graph.
    Raises:
        CheckpointError: the file cannot be read or is damaged, or it is a graph in text form.
    Source: graph.proto, meta_graph.proto, saved_model.proto of TensorFlow.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "saved_model.pb"
    file = File(path)
    try:
        data = memoryview(file.view(0, file.size, file.place))  # type: ignore[arg-type]
        return _read(path, data, file.place)
    finally:
        file.close()


def _read(path: Path, data: Buffer, place: Place) -> Graph:
    start, end = 0, len(data)
    tags: tuple[str, ...] = ()
    if path.suffix == ".meta":
        start, end, tags = _meta_graph(data, 0, len(data), place)
    elif path.name == "saved_model.pb" or _is_saved_model(data, place):
        start, end, tags = _saved_model(data, place)
    return _graph(path, data, start, end, tags, place)


def _is_saved_model(data: Buffer, place: Place) -> bool:
    """A SavedModel begins with the number of its schema, a GraphDef with a node."""
    if not len(data):
        return False
    tag, _ = read_varint(data, 0, len(data), place)
    return tag == 1 << 3 | VARINT


def _saved_model(data: Buffer, place: Place) -> tuple[int, int, tuple[str, ...]]:
    """SavedModel: `meta_graphs` 2, repeated."""
    found = [
        _meta_graph(data, part.start, expect(part, LENGTH, place).end, place)
        for part in fields(data, 0, len(data), place)
        if part.number == 2
    ]
    if not found:
        raise place.error("a SavedModel with a graph", "one without")
    return next((graph for graph in found if "serve" in graph[2]), found[0])


def _meta_graph(data: Buffer, start: int, end: int, place: Place) -> tuple[int, int, tuple[str, ...]]:
    """MetaGraphDef: `meta_info_def` 1 with `tags` 4, `graph_def` 2. The span of the graph, and the tags."""
    span: tuple[int, int] | None = None
    tags: list[str] = []
    for part in fields(data, start, end, place):
        if part.number == 1:
            infos = fields(data, part.start, expect(part, LENGTH, place).end, place)
            tags.extend(text(data, info, place) for info in infos if info.number == 4)
        elif part.number == 2:
            span = part.start, expect(part, LENGTH, place).end
    if span is None:
        raise place.error("a MetaGraphDef with a graph", "one without")
    return *span, tuple(tags)


def _graph(path: Path, data: Buffer, start: int, end: int, tags: tuple[str, ...], place: Place) -> Graph:
    """GraphDef: `node` 1, repeated; `library` 2 with `function` 1, repeated."""
    nodes: list[Node] = []
    functions: dict[str, tuple[Node, ...]] = {}
    signatures: dict[str, Signature] = {}
    count = 0
    for part in fields(data, start, end, place):
        if part.number == 1:
            nodes.append(_node(data, expect(part, LENGTH, place), place))
            count += 1
        elif part.number == 2:
            for inner in fields(data, part.start, expect(part, LENGTH, place).end, place):
                if inner.number == 1:
                    name, body, signatures[name] = _function(data, expect(inner, LENGTH, place), place)
                    functions[name] = body
                    count += len(body)
        if count > MAX_NODES:
            raise place.error(f"at most {MAX_NODES} nodes", "more")
    return Graph(path, tuple(nodes), functions, tags, signatures, {node.name: node for node in nodes})


def _function(data: Buffer, span: Field, place: Place) -> tuple[str, tuple[Node, ...], Signature]:
    """FunctionDef: `signature` 1, `node_def` 3, repeated, `ret` 4: a map of outputs' names to tensors.

    The signature: `name` 1, `input_arg` 2 and `output_arg` 3, repeated, each with a `name` 1.
    """
    name, nodes = "", []
    arguments: dict[int, list[str]] = {2: [], 3: []}
    given: dict[str, str] = {}
    for part in fields(data, span.start, span.end, place):
        if part.number == 1:
            for inner in fields(data, part.start, expect(part, LENGTH, place).end, place):
                if inner.number == 1:
                    name = text(data, inner, place)
                elif inner.number in arguments:
                    arguments[inner.number].append(_texts(data, inner, place).get(1, ""))
        elif part.number == 3:
            nodes.append(_node(data, expect(part, LENGTH, place), place))
        elif part.number == 4:
            entry = _texts(data, part, place)
            given[entry.get(1, "")] = entry.get(2, "")
    outputs = tuple(given.get(output, "") for output in arguments[3])
    return name, tuple(nodes), Signature(tuple(arguments[2]), outputs)


def _texts(data: Buffer, span: Field, place: Place) -> dict[int, str]:
    """The texts among the first two fields of a message, by number: a name, or a map's entry."""
    parts = fields(data, span.start, expect(span, LENGTH, place).end, place)
    return {part.number: text(data, part, place) for part in parts if part.number in (1, 2) and part.kind == LENGTH}


def _node(data: Buffer, span: Field, place: Place) -> Node:
    """NodeDef: `name` 1, `op` 2, `input` 3, `device` 4, `attr` 5: a map of texts to values."""
    texts = {1: "", 2: "", 4: ""}
    inputs: list[str] = []
    spans: dict[str, tuple[int, int]] = {}
    for part in fields(data, span.start, span.end, place):
        if part.number in texts:
            texts[part.number] = text(data, part, place)
        elif part.number == 3:
            inputs.append(text(data, part, place))
        elif part.number == 5:
            key, value = "", (part.start, part.start)
            for inner in fields(data, part.start, expect(part, LENGTH, place).end, place):
                if inner.number == 1:
                    key = text(data, inner, place)
                elif inner.number == 2:
                    value = inner.start, expect(inner, LENGTH, place).end
            spans[key] = value
    if not texts[1] or not texts[2]:
        raise place.error("a node with a name and an operation", f"{texts[1]!r} and {texts[2]!r}", span.start)
    attributes = Attributes(data, spans, place.of(texts[1]))
    return Node(texts[1], texts[2], tuple(inputs), texts[4], attributes)


def _attribute(data: Buffer, start: int, end: int, place: Place) -> Any:
    """AttrValue: a oneof; `list` 1 holds the same fields repeated, which is why one function reads both."""
    value: Any = None
    for part in fields(data, start, end, place):
        if part.number == 1:
            expect(part, LENGTH, place)
            items: list[Any] = []
            for item in fields(data, part.start, part.end, place):
                items.extend(_items(data, item, place))
            value = tuple(items)
        else:
            values = _items(data, part, place)
            value = values[-1] if values else None
    return value


def _items(data: Buffer, part: Field, place: Place) -> list[Any]:
    """`s` 2, `i` 3, `f` 4, `b` 5, `type` 6, `shape` 7, `tensor` 8, `placeholder` 9, `func` 10; numbers are packed."""
    if part.number == 2:
        return [bytes(data[expect(part, LENGTH, place).start : part.end])]
    if part.number == 4:
        raw = data[part.start : part.end]
        if part.kind not in (FIXED32, LENGTH) or len(raw) % 4:
            raise place.error("floats of 4 bytes", f"{len(raw)} bytes", part.start)
        return [float(number) for number in np.frombuffer(raw, "<f4")]
    if part.number in (3, 5, 6):
        numbers = _numbers(data, part, place)
        if part.number == 3:
            return [signed(number) for number in numbers]
        return [bool(number) if part.number == 5 else dtype_text(number) for number in numbers]
    if part.number == 7:
        return [_partial_shape(data, expect(part, LENGTH, place), place)]
    if part.number == 8:
        expect(part, LENGTH, place)
        dtype, shape = read_header(data, part.start, part.end, place)
        return [read_tensor(data, part.start, part.end, dtype, shape, place)]
    if part.number == 9:
        return [text(data, part, place)]
    if part.number == 10:
        parts = fields(data, part.start, expect(part, LENGTH, place).end, place)
        names = [inner for inner in parts if inner.number == 1]
        return [text(data, names[-1], place) if names else ""]
    return []


def _numbers(data: Buffer, part: Field, place: Place) -> list[int]:
    if part.kind == VARINT:
        return [part.value]
    at, numbers = expect(part, LENGTH, place).start, []
    while at < part.end:
        number, at = read_varint(data, at, part.end, place)
        numbers.append(number)
    return numbers


def _partial_shape(data: Buffer, part: Field, place: Place) -> tuple[int | None, ...] | None:
    dims: list[int | None] = []
    for field_ in fields(data, part.start, part.end, place):
        if field_.number == 3 and field_.value:
            return None
        if field_.number == 2:
            size = read_size(data, field_.start, expect(field_, LENGTH, place).end, place)
            dims.append(None if size < 0 else size)
    return tuple(dims)
