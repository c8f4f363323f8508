"""Names of recurrent variables in the three ways that TF1 spelled them, brought to the last one.

| releases | a BasicLSTMCell's kernel |
|---|---|
| TF 0.x | `RNN/MultiRNNCell/Cell0/BasicLSTMCell/Linear/Matrix` |
| TF 1.0, 1.1 | `rnn/multi_rnn_cell/cell_0/basic_lstm_cell/weights` |
| from TF 1.2 | `rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel` |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass

from cellweave.scopes import snake_case

#: Names of the eras, oldest first; "" is said of names that no era changed.
ERAS = ("TF 0.x", "TF 1.0-1.1", "TF 1.2+")

_CLASSES = (
    "MultiRNNCell|BasicRNNCell|GRUCell|BasicLSTMCell|LSTMCell|LSTMBlockCell|GRUBlockCell|LayerNormBasicLSTMCell|UGRNNCell|"
    "NASCell|IntersectionRNNCell|CoupledInputForgetGateLSTMCell|TimeFreqLSTMCell|GridLSTMCell|PhasedLSTMCell|ConvLSTMCell|"
    "AttentionCellWrapper|InputProjectionWrapper|OutputProjectionWrapper|EmbeddingWrapper|HighwayWrapper"
)
_CLASS = re.compile(rf"({_CLASSES})(_\d+)?")
_NUMBERED_CELL = re.compile(r"Cell(\d+)")
_DRIVERS = {"RNN": "rnn", "BiRNN": "bidirectional_rnn", "FW": "fw", "BW": "bw"}
_DRIVER = re.compile(r"(RNN|BiRNN|FW|BW)(_\d+)?")
_BOTH_WAYS = re.compile(r"BiRNN_(FW|BW)")
_CELL_SCOPE = re.compile(r"(?:\w+_)?(?:cell|wrapper|rnn)(?:_\d+)?")
#: Cells whose variables later releases, too, call `biases`, `W_0`, `B`.
_STAYED = re.compile(r"(?:conv(?:_\dd)?|coupled_input_forget_gate|time_freq|\w*grid)_lstm_cell(?:_\d+)?")
_PIECE = re.compile(r"part_(\d+)")

_LSTM_TAILS = {
    "B": "bias", "W": "kernel", "b": "bias",
    "W_F_diag": "w_f_diag", "W_I_diag": "w_i_diag", "W_O_diag": "w_o_diag",
    "wcf": "w_f_diag", "wci": "w_i_diag", "wco": "w_o_diag",
}  # fmt: skip
_LSTM_PIECES = ((re.compile(r"W_(\d+)"), "kernel"), (re.compile(r"W_P_(\d+)"), "projection/kernel"))
_GRU_TAILS = {"w_ru": "gates/kernel", "b_ru": "gates/bias", "w_c": "candidate/kernel", "b_c": "candidate/bias"}
_OLD_WORDS = {"weights": "kernel", "biases": "bias", "recurrent_weights": "recurrent_kernel"}


@dataclass(frozen=True)
class ModernName:
    """A variable's name as TF 1.2 and later spell it.

    Attributes:
        name: The name.
        era: The era that its spelling tells, or "".
        piece: Which slice along an axis it is, where slices are stored as variables of their own.
    """

    name: str
    era: str = ""
    piece: int | None = None


def modern_name(name: str) -> ModernName:
    """Translate a name without `:0`; one that is modern already, or not recurrent, comes back as it is."""
    parts, oldest = _modern_scopes(name.split("/"))
    piece = None
    if len(parts) > 1 and (match := _PIECE.fullmatch(parts[-1])):
        piece, parts = int(match[1]), parts[:-1]
    head, tail = _split_at_cell(parts)
    new_tail, era, old_piece = _modern_tail(head[-1] if head else "", tail)
    in_cell = bool(head) and "_cell" in head[-1]
    if not oldest and head and _STAYED.fullmatch(head[-1]):
        era = ""
    elif oldest:
        era = ERAS[0]
    elif not in_cell and era == ERAS[1]:
        era = ""  # layers outside of cells were called so in every era
    elif not era and in_cell and new_tail[-1:] in (["kernel"], ["bias"]):
        era = ERAS[2]
    if era == ERAS[0]:
        head = [_modern_driver(part) for part in head]
    return ModernName("/".join([*head, *new_tail]), era, old_piece if piece is None else piece)


def collapsed(name: str, kept: Set[str] = frozenset()) -> str:
    """The form in which names are compared: drivers in their later spelling, doubled scopes (`rnn/rnn`) once.

    Args:
        name: The name.
        kept: Scopes whose last part stays as it is, because something else has the name without; see `altered_scopes`.
    """
    altered = set(altered_scopes(name)) - kept
    parts = [part for part in name.split("/") if part]
    found: list[str] = []
    for index, part in enumerate(parts):
        if "/".join(parts[: index + 1]) not in altered:
            found.append(part)
        elif not index or _modern_driver(part) != _modern_driver(parts[index - 1]):
            found.append(_modern_driver(part))
    return "/".join(found)


def altered_scopes(name: str) -> Iterator[str]:
    """The path up to each part that comparing leaves out or respells: `a/rnn/rnn` of `a/rnn/rnn/kernel`."""
    parts = [part for part in name.split("/") if part]
    modern = [_modern_driver(part) for part in parts]
    for index, part in enumerate(parts):
        if modern[index] != part or (index and modern[index] == modern[index - 1]):
            yield "/".join(parts[: index + 1])


def _modern_driver(part: str) -> str:
    """`RNN` as `rnn`, and so on. Users wrote `scope="RNN"` in every era, so this alone tells no era."""
    match = _DRIVER.fullmatch(part)
    return part if match is None else _DRIVERS[match[1]] + (match[2] or "")


def _modern_scopes(parts: list[str]) -> tuple[list[str], bool]:
    """Scopes of classes and drivers in their later spelling, and whether one was spelled as TF 0.x did."""
    found: list[str] = []
    oldest = False
    for part in parts:
        if match := _CLASS.fullmatch(part):
            found.append(snake_case(match[1]) + (match[2] or ""))
        elif (match := _NUMBERED_CELL.fullmatch(part)) and found and found[-1].startswith("multi_rnn_cell"):
            found.append(f"cell_{match[1]}")
        elif match := _BOTH_WAYS.fullmatch(part):
            found += ["bidirectional_rnn", match[1].lower()]
        else:
            found.append(part)
            continue
        oldest = True
    return found, oldest


def _split_at_cell(parts: list[str]) -> tuple[list[str], list[str]]:
    """The path up to the innermost scope that a cell or wrapper opened, and the rest."""
    for index in range(len(parts) - 2, -1, -1):
        if _CELL_SCOPE.fullmatch(parts[index]) and not re.fullmatch(r"rnn(_\d+)?|cell_\d+", parts[index]):
            return parts[: index + 1], parts[index + 1 :]
    cut = max(len(parts) - 1, 0)
    while cut > 1 and parts[cut - 1] in ("Linear", "Gates", "Candidate", "gates", "candidate", "projection"):
        cut -= 1
    return parts[:cut], parts[cut:]


def _modern_tail(cell: str, tail: list[str]) -> tuple[list[str], str, int | None]:
    """A variable's own part of its name, the era that it shows, and which slice it is."""
    if len(tail) >= 2 and tail[-2] == "Linear" and tail[-1] in ("Matrix", "Bias"):
        gates = [part.lower() if part in ("Gates", "Candidate") else part for part in tail[:-2]]
        return [*gates, "kernel" if tail[-1] == "Matrix" else "bias"], ERAS[0], None
    if len(tail) == 1 and "lstm" in cell:
        if tail[0] in _LSTM_TAILS:
            return [_LSTM_TAILS[tail[0]]], ERAS[0], None
        for pattern, name in _LSTM_PIECES:
            if match := pattern.fullmatch(tail[0]):
                return name.split("/"), ERAS[0], int(match[1])
    if len(tail) == 1 and "gru" in cell and tail[0] in _GRU_TAILS:
        return _GRU_TAILS[tail[0]].split("/"), "", None
    if tail and tail[-1] in _OLD_WORDS:
        return [*tail[:-1], _OLD_WORDS[tail[-1]]], ERAS[1], None
    return tail, "", None
