"""Telling which cell or layer wrote a group of variables, from their suffixes, shapes and scope."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cellweave.transfer._keras_cudnn import gates_of, is_keras_cudnn

Shapes = Mapping[str, tuple[int, ...]]

#: Cells whose kernel has so many columns per unit, by the scope that TF1 gives them.
_BY_SCOPE = {
    "basic_rnn_cell": ("BasicRNNCell", 1),
    "basic_lstm_cell": ("BasicLSTMCell", 4),
    "lstm_cell": ("LSTMCell", 4),
    "cudnn_compatible_lstm_cell": ("CudnnCompatibleLSTMCell", 4),
    "layer_norm_basic_lstm_cell": ("contrib.LayerNormBasicLSTMCell", 4),
    "coupled_input_forget_gate_lstm_cell": ("contrib.CoupledInputForgetGateLSTMCell", 3),
    "lstm_fused_cell": ("contrib.LSTMBlockFusedCell", 4),
    "lstm_block_wrapper": ("contrib.LSTMBlockFusedCell", 4),
    "lstm_block_cell": ("contrib.LSTMBlockCell", 4),
    "sru_cell": ("contrib.SRUCell", 4),
    "ugrnn_cell": ("contrib.UGRNNCell", 2),
    "intersection_rnn_cell": ("contrib.IntersectionRNNCell", 4),
    "nas_cell": ("contrib.NASCell", 8),
    "nas_rnn": ("contrib.NASCell", 8),
}
#: Further names of cells, which are told by their variables.
_NAMED = ("gru_cell", "cudnn_compatible_gru_cell", "ind_rnn_cell", "indy_lstm_cell", "indy_gru_cell")
#: Cells of TF1 that this library does not have; some have variables that look like another cell's.
FOREIGN_CELLS = r"(?:time_freq|\w*grid|weight_norm|wn|g)_lstm_cell|minimal_rnn_cell|cfn_cell"
_FOREIGN = re.compile(rf"(?:^|/)(?:{FOREIGN_CELLS})(?:_\d+)?(?:/|$)")
#: Scopes in which one cell's scope lies directly.
_AROUND_CELLS = re.compile(r"(?:rnn|fw|bw|cell)(?:_\d+)?")
_KERAS = {4: "keras.LSTMCell", 3: "keras.GRUCell", 1: "keras.SimpleRNNCell"}
_GATES = ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias")
_CUDNN_GRU = (
    "gates/kernel", "gates/bias", "candidate/input_projection/kernel", "candidate/input_projection/bias",
    "candidate/hidden_projection/kernel", "candidate/hidden_projection/bias",
)  # fmt: skip
_INDY = ("kernel_w", "kernel_u", "bias")
_INDY_GRU = (
    "gates/kernel_w", "gates/kernel_u", "gates/bias", "candidate/kernel", "candidate/kernel_u", "candidate/bias",
)  # fmt: skip
_IN_PROJECTION = ("in_projection/kernel", "in_projection/bias")
_LSTM_EXTRAS = ("w_f_diag", "w_i_diag", "w_o_diag", "projection/kernel", "projection/bias")
_NORMS = tuple(
    f"{part}/{what}" for part in ("input", "transform", "forget", "output", "state") for what in ("gamma", "beta")
)
_NORMED = ("contrib.LayerNormBasicLSTMCell", "contrib.CoupledInputForgetGateLSTMCell")
_CUDNN_BIASES = ("bias_cudnn_0", "bias_cudnn_1", "gates/bias_cudnn_0", "gates/bias_cudnn_1")

#: Every suffix that a cell's variable may have; the longest that fits a name is its own.
CELL_SUFFIXES = tuple(
    dict.fromkeys(
        ("kernel", "bias", "recurrent_kernel", *_GATES, *_CUDNN_GRU, *_LSTM_EXTRAS, *_NORMS, *_CUDNN_BIASES,
         "projection_weights", *_INDY, *_INDY_GRU, *_IN_PROJECTION)
    )
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A cell as the checkpoint tells it.

    Attributes:
        cls: Its class below `cellweave`, such as `BasicLSTMCell` or `keras.GRUCell`.
        units: Its units.
        depth: Its input depth.
        options: Arguments that shapes and suffixes tell, as Python text: `use_peepholes` to `True`.
        suffixes: Which of the group's variables are its own.
        unknown: Constructor arguments that no checkpoint holds, with TF1's defaults as Python text.
        certain: Whether names say so; else shapes alone do.
    """

    cls: str
    units: int
    depth: int
    options: Mapping[str, str] = field(default_factory=dict)
    suffixes: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    certain: bool = True

    @property
    def outputs(self) -> int:
        """The size of what it gives at each step."""
        return int(self.options.get("num_proj", self.units))


_ACTIVATION = {"activation": "'tanh'"}
_FORGET = {"forget_bias": "1.0", **_ACTIVATION}
_CLIPS = {"cell_clip": "None"}


#: Names that people give to layers without a state.
_DENSE = re.compile(
    r"(?:.*_)?(?:dense|fc|fully_connected|linear|logits?|softmax|outputs?|out|pred\w*|proj\w*|embed\w*)(?:_?\d+)*"
)


def cell_kind(scope: str, shapes: Shapes, *, objects: bool = False) -> Kind | None:
    """The cell whose variables these are by names that only cells have, None when they are no cell's.

    Args:
        scope: The scope around the variables, in lookup form.
        shapes: Suffix to shape, for suffixes of cells.
        objects: Whether the keys are those of objects, as TensorFlow 2 saves them.
    """
    if _FOREIGN.search(scope):
        return None
    last = scope.rpartition("/")[2]
    base = re.sub(r"_\d+$", "", last)
    named = base in _BY_SCOPE or base in _NAMED
    found = _keras_kind(base, shapes, objects) or _cudnn_gru_kind(shapes) or _gru_kind(shapes)
    found = found or _indy_kind(base, shapes)
    if found is None and (named or any(suffix in shapes for suffix in _LSTM_EXTRAS)):
        found = _joined_kind(base, shapes)
    return found if named else _with_name(found, last)


def guessed_kind(scope: str, shapes: Shapes, gates: int | None) -> Kind | None:
    """The cell whose kernel and bias these may be, by what the graph shows, else by their place and name.

    Args:
        scope, shapes: As for `cell_kind`.
        gates: How many gates the graph shows: 4 of an LSTM, 1 of a plain cell, 0 of no cell; None: it does not tell.
    """
    if _FOREIGN.search(scope):
        return None
    parts = scope.split("/")
    base = re.sub(r"_\d+$", "", parts[-1])
    if gates is not None:
        cls = {4: "LSTMCell", 1: "BasicRNNCell"}.get(gates)
        return None if cls is None else _with_name(_of_class(cls, gates, shapes), parts[-1])
    inside = len(parts) > 1 and _AROUND_CELLS.fullmatch(parts[-2]) is not None
    telling = bool(re.search(r"lstm|(?:^|_)rnn(?:_|$)", base)) and not _AROUND_CELLS.fullmatch(parts[-1])
    if not (telling or inside) or _DENSE.fullmatch(base.lower()):
        return None
    return _with_name(_joined_kind(base, shapes), parts[-1])


def driver_of(scope: str) -> str | None:
    """The scope of the unroll, direction or stack place in which a scope lies directly; it holds one cell."""
    around = scope.rpartition("/")[0]
    return around if _AROUND_CELLS.fullmatch(around.rpartition("/")[2]) else None


def _with_name(kind: Kind | None, name: str) -> Kind | None:
    """The kind with `name=`, for a scope that is not its class's own."""
    return None if kind is None else replace(kind, options={**kind.options, "name": repr(name)}, certain=False)


def _keras_kind(base: str, shapes: Shapes, objects: bool) -> Kind | None:
    kernel, recurrent = shapes.get("kernel"), shapes.get("recurrent_kernel")
    if kernel is None or recurrent is None or len(kernel) != 2 or len(recurrent) != 2 or base.startswith("nas"):
        return None
    units, gates = recurrent[0], gates_of(recurrent)
    if gates not in _KERAS or kernel[1] != recurrent[1]:
        return None
    bias, suffixes = shapes.get("bias"), ("kernel", "recurrent_kernel", "bias")
    if bias is not None and is_keras_cudnn(recurrent, bias):
        return Kind(_KERAS[gates], units, kernel[0], {}, suffixes)  # whose activations are cuDNN's, the defaults
    if bias not in (None, recurrent[1:], (2, recurrent[1])):
        return None
    options = {} if bias is not None else {"use_bias": "False"}
    unknown = dict(_ACTIVATION)
    if gates == 3:
        options["reset_after"] = str(bias is not None and len(bias) == 2)
    if gates != 1:
        # TF1's layers have another default than TF2's; a GRU that resets after the product is cuDNN's or TF2's.
        later = objects or options.get("reset_after") == "True"
        unknown["recurrent_activation"] = "'sigmoid'" if later else "'hard_sigmoid'"
        if not later:
            options["recurrent_activation"] = "'hard_sigmoid'"
    return Kind(_KERAS[gates], units, kernel[0], options, suffixes, unknown)


def _gru_kind(shapes: Shapes) -> Kind | None:
    if not all(suffix in shapes for suffix in _GATES):
        return None
    units = shapes["candidate/bias"][0] if len(shapes["candidate/bias"]) == 1 else 0
    rows = shapes["candidate/kernel"][0]
    wanted = [(rows, 2 * units), (2 * units,), (rows, units), (units,)]
    if units <= 0 or rows <= units or [shapes[suffix] for suffix in _GATES] != wanted:
        return None
    return Kind("GRUCell", units, rows - units, {}, _GATES, _ACTIVATION)


def _cudnn_gru_kind(shapes: Shapes) -> Kind | None:
    if not all(suffix in shapes for suffix in _CUDNN_GRU):
        return None
    kernel = shapes["candidate/input_projection/kernel"]
    if len(kernel) != 2 or shapes["gates/kernel"] != (sum(kernel), 2 * kernel[1]):
        return None
    return Kind("CudnnCompatibleGRUCell", kernel[1], kernel[0], {}, _CUDNN_GRU)


def _indy_kind(base: str, shapes: Shapes) -> Kind | None:
    """Cells whose units see only their own state: a row of recurrent weights."""
    gru = all(suffix in shapes for suffix in _INDY_GRU)
    if not gru and not all(suffix in shapes for suffix in _INDY):
        return None
    kernel, row = (
        (shapes["candidate/kernel"], shapes["candidate/kernel_u"]) if gru else (shapes["kernel_w"], shapes["kernel_u"])
    )
    gates = 4 if base == "indy_lstm_cell" else 1
    if len(kernel) != 2 or row != (1, kernel[1]) or kernel[1] % gates:
        return None
    cls = "IndyGRUCell" if gru else "IndyLSTMCell" if gates == 4 else "IndRNNCell"
    unknown = _FORGET if gates == 4 else _ACTIVATION
    return Kind(f"contrib.{cls}", kernel[1] // gates, kernel[0], {}, _INDY_GRU if gru else _INDY, unknown)


def _joined_kind(base: str, shapes: Shapes) -> Kind | None:
    kernel = shapes.get("kernel")
    if kernel is None or len(kernel) != 2:
        return None
    lstm = kernel[1] % 4 == 0 and ("lstm" in base or "rnn" not in base)
    cls, gates = _BY_SCOPE.get(base, ("BasicLSTMCell", 4) if lstm else ("BasicRNNCell", 1))
    if cls == "BasicLSTMCell" and any(suffix in shapes for suffix in _LSTM_EXTRAS):
        cls = "LSTMCell"
    return _of_class(cls, gates, shapes)


def _of_class(cls: str, gates: int, shapes: Shapes) -> Kind | None:
    kernel = shapes.get("kernel")
    if kernel is None or len(kernel) != 2:
        return None
    units, rest = divmod(kernel[1], gates)
    return None if rest or units == 0 else _sized(cls, units, kernel, shapes)


def _sized(cls: str, units: int, kernel: tuple[int, ...], shapes: Shapes) -> Kind | None:
    if cls not in _NORMED and any(suffix in shapes for suffix in _NORMS):
        return None
    options: dict[str, str] = {}
    projection = shapes.get("projection/kernel", shapes.get("projection_weights"))
    hidden = units if projection is None else projection[1]
    if projection is not None:
        options["num_proj"] = str(hidden)
    bias = shapes.get("bias", shapes.get("bias_cudnn_0"))
    separate = cls in ("contrib.SRUCell", "contrib.NASCell")
    depth = kernel[0] if separate else kernel[0] - hidden
    wanted = 2 * units if cls == "contrib.SRUCell" else kernel[1]
    if "in_projection/kernel" in shapes:
        options["num_in_proj"], depth = str(depth), shapes["in_projection/kernel"][0]
    elif cls == "contrib.IntersectionRNNCell":
        return None  # takes inputs of one width only: no such cell can be loaded before its first call
    if depth <= 0 or (bias is not None and bias != (wanted,)):
        return None
    if bias is None and cls not in (*_NORMED, "contrib.NASCell"):
        return None
    if "w_f_diag" in shapes:
        options["use_peephole" if "Block" in cls else "use_peepholes"] = "True"
    if cls == "contrib.NASCell" and bias is not None:
        options["use_bias"] = "True"
    if cls == "contrib.LayerNormBasicLSTMCell" and "input/gamma" not in shapes:
        options["layer_norm"] = "False"
    if cls == "contrib.CoupledInputForgetGateLSTMCell" and "forget/gamma" in shapes:
        options["layer_norm"] = "True"
    own = tuple(suffix for suffix in CELL_SUFFIXES if suffix in shapes)
    return Kind(cls, units, depth, options, own, _unknown(cls, projection is not None))


def _unknown(cls: str, projected: bool) -> dict[str, str]:
    if cls in ("BasicRNNCell", "contrib.SRUCell"):
        return dict(_ACTIVATION)
    if cls in ("BasicLSTMCell", "contrib.UGRNNCell"):
        return dict(_FORGET)
    if cls in ("LSTMCell", "contrib.CoupledInputForgetGateLSTMCell"):
        clips = _CLIPS if cls == "LSTMCell" else {}
        return {**_FORGET, **clips, **({"proj_clip": "None"} if projected else {})}
    if "LSTMBlock" in cls:
        return {"forget_bias": "1.0", **_CLIPS}
    if cls == "contrib.IntersectionRNNCell":
        return {"forget_bias": "1.0", "y_activation": "'relu'"}
    if cls == "contrib.LayerNormBasicLSTMCell":
        return {**_FORGET, "dropout_keep_prob": "1.0"}
    return {}
