"""What only a graph tells of cells: activations, forget biases, clips, dropout, states in one tensor."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cellweave.checkpoint import Node, StoredVariable
from cellweave.transfer._graph_activations import activated, first_activations
from cellweave.transfer._graph_dropout import Keep, dropouts_of, keep_of, number, undropped
from cellweave.transfer._graph_reader import ADDING, GraphReader, joined_parts, node_of
from cellweave.transfer._graph_step import gru_step, is_changed, lstm_step
from cellweave.transfer._recognise import Found, FoundCell, cells_in

#: Kernels' columns for each unit of Keras' cells.
_KERAS_GATES = {"keras.LSTMCell": 4, "keras.GRUCell": 3, "keras.SimpleRNNCell": 1}
_BLOCKS = ("LSTMBlockCell", "BlockLSTM", "BlockLSTMV2", "GRUBlockCell")
#: Operations that cut a tensor.
_CUTTING = ("Slice", "Split", "StridedSlice")
#: What the block operations' attributes are when a graph leaves them out.
_BLOCK_DEFAULTS = {"forget_bias": 1.0, "cell_clip": 3.0}
#: Sums between a split into gates and a gate's activation, at most: forget bias, peepholes.
_MOST_SUMS = 8


@dataclass
class CellFacts:
    """What a graph says of one cell.

    Attributes:
        options: Constructor arguments, as Python text.
        cls: The class that its operation tells, where names tell another one.
        dropout: The keep probability of each of `input`, `output`, `state` that has a dropout.
        one_tensor: Whether its own state is one tensor.
        stack_one_tensor: Whether the state of the stack around it is.
        reversed: Whether a fused cell reads its inputs backwards.
        places: In how many places of the stack around it the one cell stands (`[cell] * 2`).
        residual: Whether its inputs are added to its outputs: `inside` of its dropouts, or `outside` of them.
        step: Whether its step computes what its class does; None: not told.
        changed: Whether its state is changed on the way to the next step.
        lengths: The placeholder that feeds the lengths of its unroll's rows, "" where none does; None: no lengths.
        followed: Whether its inputs and outputs were followed to what lies around it: dropouts, sums, lengths.
    """

    options: dict[str, str] = field(default_factory=dict)
    cls: str | None = None
    dropout: dict[str, Keep] = field(default_factory=dict)
    one_tensor: bool = False
    stack_one_tensor: bool = False
    reversed: bool = False
    places: int = 1
    residual: str | None = None
    step: bool | None = None
    changed: bool = False
    lengths: str | None = None
    followed: bool = False

    @property
    def shown_lengths(self) -> str:
        """That an unroll has lengths, in words; "" where it has none."""
        fed = f", fed by {self.lengths}" if self.lengths else ""
        return "" if self.lengths is None else f"its rows have lengths (sequence_length{fed})"


def told_of(found: Found, facts: Mapping[str, CellFacts]) -> list[CellFacts]:
    """What is known of the cells in it, by the facts of each scope."""
    return [facts[cell.scope] for cell in cells_in(found) if cell.scope in facts]


def gates_shown(reader: GraphReader, kernel: StoredVariable) -> int | None:
    """How many gates the cell with this kernel has: 4 of an LSTM, 1 of a plain one; 0: it is no cell's; None: not told.

    A cell's kernel is multiplied with inputs and state in one tensor, and what comes out goes into the next product.
    """
    node = node_of(reader, kernel)
    if node not in reader.graph:
        return None
    if reader.user(node, *_BLOCKS) is not None:
        return 4
    product = reader.user(node, "MatMul")
    if product is None:  # a dense layer of a sequence multiplies with a matrix that it has reshaped
        return None if reader.user(node, "Reshape", "Transpose") is None else 0
    if not joined_parts(reader, product) or not reader.comes_back(product):
        return 0
    summed = reader.user(product.name, *ADDING) or product
    split = reader.user(summed.name, "Split")
    if split is None:
        return 1 if reader.comes_back(product, whole=True) else 0
    return 4 if split.attrs.get("num_split") == 4 else None


def cell_facts(reader: GraphReader, cell: FoundCell) -> CellFacts | None:
    """What a graph says of a cell; None when the cell is not in it."""
    if cell.kind.cls in _KERAS_GATES:
        return _keras_facts(reader, cell)
    suffix = "candidate/kernel" if "candidate/kernel" in cell.variables else "kernel"
    variable = cell.variables.get(suffix) or cell.variables.get("candidate/hidden_projection/kernel")
    if variable is None:
        return None
    node_name = node_of(reader, variable)
    if node_name not in reader.graph:
        return None
    facts = CellFacts(places=_places(reader, node_name, cell))
    block = reader.user(node_name, *_BLOCKS)
    if block is not None:
        _block_facts(reader, block, cell, facts)
        return facts
    product = reader.user(node_name, "MatMul")
    if product is None:
        return None
    summed = reader.user(product.name, *ADDING) or product
    cls = cell.kind.cls
    if cls in ("BasicLSTMCell", "LSTMCell", "CudnnCompatibleLSTMCell"):
        output = _lstm_facts(reader, summed, cell, facts)
    elif cls == "contrib.SRUCell":
        output = _sru_facts(reader, product, facts)
    elif cls in ("GRUCell", "BasicRNNCell"):
        output = _act(reader, summed.name, facts)
        if cls == "GRUCell" and output is not None:
            blended = reader.user(output.name, "Mul")
            output = None if blended is None else reader.user(blended.name, *ADDING)
            facts.step = None if output is None else gru_step(reader, cell, summed, output, facts.options)
        _state_facts(reader, product, cell, facts)
    else:
        return None
    _wrapper_facts(reader, product, output, cell, facts)
    return facts


def _keras_facts(reader: GraphReader, cell: FoundCell) -> CellFacts | None:
    """Activations of a Keras cell: each copy of its step has one for the candidate, one for each of the other gates."""
    gates = _KERAS_GATES[cell.kind.cls]
    counts = Counter(first_activations(reader, node_of(reader, cell.variables["recurrent_kernel"])))
    copies, rest = divmod(counts.total(), gates)
    if copies == 0 or rest:
        return None
    if len(counts) == 1:
        told = [next(iter(counts))] * 2
    else:
        told = [name for count in (copies, copies * (gates - 1)) for name in counts if counts[name] == count]
    if len(told) != 2:
        return None
    options = {"activation": repr(told[0])} | ({"recurrent_activation": repr(told[1])} if gates > 1 else {})
    return CellFacts(options=options)


def _places(reader: GraphReader, kernel: str, cell: FoundCell) -> int:
    """How often a loop's step multiplies with the kernel of a stack's cell: once for each place of the object."""
    if not re.search(r"multi_rnn_cell(?:_\d+)?/cell_\d+/[^/]+$", cell.scope):
        return 1
    loops: dict[str, int] = {}
    for node in reader.users(kernel):
        loop, inside, _ = node.name.partition("/while/")
        if node.op == "MatMul" and inside:  # a loop's body is one step; unrolled steps would be counted, too
            loops[loop] = loops.get(loop, 0) + 1
    return max(loops.values(), default=1)


def _block_facts(reader: GraphReader, node: Node, cell: FoundCell, facts: CellFacts) -> None:
    if node.op == "GRUBlockCell":
        old = any(key.endswith("w_ru") for v in cell.variables.values() for key in v.stored_keys())
        facts.cls = "contrib.GRUBlockCell" if old else "contrib.GRUBlockCellV2"
        return
    facts.cls = "contrib.LSTMBlockCell" if node.op == "LSTMBlockCell" else "contrib.LSTMBlockFusedCell"
    attrs = {name: float(node.attrs.get(name, default)) for name, default in _BLOCK_DEFAULTS.items()}
    facts.options["forget_bias"] = number(attrs["forget_bias"])
    clip = attrs["cell_clip"]
    facts.options["cell_clip"] = number(clip) if clip > 0 else "None"
    if node.attrs.get("use_peephole", False):
        facts.options["use_peephole"] = "True"
    source = reader.maker(node.inputs[1]) if node.op != "LSTMBlockCell" else None
    facts.reversed = source is not None and source.op.startswith("Reverse")


def _act(reader: GraphReader, tensor: str, facts: CellFacts) -> Node | None:
    """The activation of a tensor; what it gives."""
    told = activated(reader, tensor)
    if told is None:
        return None
    facts.options["activation"] = repr(told[0])
    return told[1]


def _lstm_facts(reader: GraphReader, summed: Node, cell: FoundCell, facts: CellFacts) -> Node | None:
    split = reader.user(summed.name, "Split")
    if split is None:
        return None
    _act(reader, f"{split.name}:1", facts)
    forget = reader.user(f"{split.name}:2", "Sigmoid", *ADDING)
    if forget is not None:
        bias = 0.0 if forget.op == "Sigmoid" else reader.other_constant(forget)
        if bias is not None and cell.kind.cls != "CudnnCompatibleLSTMCell":
            facts.options["forget_bias"] = number(bias)
    opened = _past_peephole(reader, reader.user(split.name, "Sigmoid", *ADDING))
    candidate = None if opened is None else reader.user(opened.name, "Mul")
    state = None if candidate is None else reader.user(candidate.name, *ADDING)
    if state is None:
        return None
    if cell.kind.cls == "LSTMCell":
        state = _clipped(reader, state, facts, "cell_clip")
    squashed = activated(reader, state.name)
    output = None if squashed is None else reader.user(squashed[1].name, "Mul")  # with the output gate
    facts.step = None if output is None else lstm_step(reader, cell, summed, output, facts.options)
    projection = cell.variables.get("projection/kernel")
    if projection is not None and output is not None:
        product = reader.user(output.name, "MatMul")
        output = None if product is None else _clipped(reader, product, facts, "proj_clip")
    product_node = reader.maker(summed.inputs[0])
    if product_node is not None:
        _state_facts(reader, product_node, cell, facts)
        if output is not None and not facts.one_tensor:
            facts.changed = is_changed(reader, product_node, output, state)
    return output


def _past_peephole(reader: GraphReader, node: Node | None) -> Node | None:
    for _ in range(_MOST_SUMS):
        if node is None or node.op not in ADDING:
            return node
        node = reader.user(node.name, "Sigmoid", *ADDING)
    return None


def _clipped(reader: GraphReader, node: Node, facts: CellFacts, option: str) -> Node:
    low = reader.user(node.name, "Minimum")
    if low is not None:
        bound = reader.other_constant(low)
        high = reader.user(low.name, "Maximum")
        if bound is not None and high is not None:
            facts.options[option] = number(bound)
            return high
    whole = reader.user(node.name, "ClipByValue")
    if whole is not None and (bound := reader.constant(whole.inputs[2])) is not None:
        facts.options[option] = number(bound)
        return whole
    facts.options[option] = "None"
    return node


def _sru_facts(reader: GraphReader, product: Node, facts: CellFacts) -> Node | None:
    split = reader.user(product.name, "Split")
    blended = None if split is None else reader.user(split.name, "Mul")
    state = None if blended is None else reader.user(blended.name, *ADDING)
    return None if state is None else _act(reader, state.name, facts)


def _state_facts(reader: GraphReader, product: Node, cell: FoundCell, facts: CellFacts) -> None:
    """Whether the state comes out of one tensor: cut out of a stack's by Slice, or into c and h by Split or Slice."""
    states = [_state_of(reader, step, cell) for step in _steps(reader, product)]
    state = states[0] if states else None
    if state is None or not all(step is not None and step.op in _CUTTING for step in states):
        return  # a first state that was cut out of something else is no sign
    if "LSTM" not in cell.kind.cls:
        facts.stack_one_tensor = state.op == "Slice" and "multi_rnn_cell" in cell.scope
        return
    if state.op == "StridedSlice":
        return
    facts.one_tensor = True
    around = reader.maker(state.inputs[1] if state.op == "Split" else state.inputs[0], within=True)
    facts.stack_one_tensor = around is not None and around.op == "Slice"


def _steps(reader: GraphReader, product: Node) -> list[Node]:
    """Every product with the matrix of this one: one for each step that is written out, or for a loop."""
    matrix = reader.maker(product.inputs[1])
    return [product] if matrix is None else [node for node in reader.users(matrix.name) if node.op == product.op]


def _state_of(reader: GraphReader, product: Node, cell: FoundCell) -> Node | None:
    """What makes the state that a product takes beside the inputs."""
    parts = joined_parts(reader, product)
    state = reader.maker(parts[1], within=True) if len(parts) > 1 else None
    if state is not None and cell.kind.cls == "GRUCell" and state.op == "Mul":
        made = [reader.maker(name, within=True) for name in state.inputs]
        state = next((node for node in made if node is not None and node.op == "Slice"), None)
    return state


def _wrapper_facts(reader: GraphReader, product: Node, output: Node | None, cell: FoundCell, facts: CellFacts) -> None:
    """Dropouts, and inputs that are added to outputs."""
    parts = joined_parts(reader, product)
    source = reader.maker(parts[0]) if parts else None
    before = None if source is None else undropped(reader, source)
    given = None if before is None else reader.maker(before)
    if source is not None and before is not None:
        facts.dropout["input"] = keep_of(reader, source)
    if output is None:
        return
    facts.followed = True
    facts.lengths = _lengths(reader, output)
    gates = cell.variables.get("gates/kernel")
    first = None if gates is None else reader.user(node_of(reader, gates), "MatMul")
    masks = list(dropouts_of(reader, output.name))
    states = [mask for mask in masks if _comes_round(reader, mask, first or product)]
    outputs = [mask for mask in masks if mask not in states]
    if cell.kind.depth == cell.kind.outputs:
        added = _sum_with(reader, output, source, given)
        after = None if added is not None or not outputs else _sum_with(reader, outputs[0], source, given)
        if added is not None:
            facts.residual = "outside" if given is not None and given in _makers(reader, added) else "inside"
            outputs = list(dropouts_of(reader, added.name))
        elif after is not None:
            facts.residual = "outside"
            if given not in _makers(reader, after):  # what is added has the mask already: it is another cell's
                facts.dropout.pop("input", None)
    if cell.kind.cls in ("GRUCell", "BasicRNNCell") and not facts.stack_one_tensor:
        facts.changed = is_changed(reader, first or product, output)
    facts.changed = facts.changed and not states
    for what, found in (("state", states), ("output", outputs)):
        if found:
            facts.dropout[what] = keep_of(reader, found[0])


def _lengths(reader: GraphReader, output: Node) -> str | None:
    """What feeds the lengths after which an unroll keeps the state: it chooses between that and the new one."""
    for user in reader.users(output.name):
        ended = reader.maker(user.inputs[0]) if user.op.startswith("Select") else None
        if ended is None or ended.op != "GreaterEqual" or undropped(reader, user) is not None:
            continue
        source = reader.maker(ended.inputs[1])
        if source is not None and source.op == "Cast":
            source = reader.maker(source.inputs[0])
        return source.name if source is not None and source.op.startswith("Placeholder") else ""
    return None


def _makers(reader: GraphReader, node: Node) -> list[Node | None]:
    return [reader.maker(name) for name in node.inputs]


def _sum_with(reader: GraphReader, node: Node, *inputs: Node | None) -> Node | None:
    """The sum of what a node gives and one of these, if that is what comes out of a cell."""
    users = list(reader.users(node.name))
    if any(user.op.startswith(("TensorArrayWrite", "TensorListSetItem", "Pack")) for user in users):
        return None
    wanted = [made for made in inputs if made is not None]
    sums = [user for user in users if user.op in ("Add", "AddV2")]
    return next((user for user in sums if any(made in wanted for made in _makers(reader, user))), None)


def _comes_round(reader: GraphReader, node: Node, product: Node) -> bool:
    """Whether a tensor is the cell's next state: in a loop, or joined with the inputs of the next step."""
    seen: set[str] = set()
    open_names = [node.name]
    while open_names:
        for user, place in reader.uses(open_names.pop()):
            if user.op == "NextIteration" or (place and reader.is_joined_for(user, place, product)):
                return True
            if user.op.startswith("Select") and user.name not in seen:
                seen.add(user.name)
                open_names.append(user.name)
    return False
