"""cellweave.nn's modules row by row and step by step, in float64 torch operations written from the equations.

Knows nothing of cellweave: masks come from the NumPy Philox of the oracles, seeds from torch's generator in the order
that the documentation gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from oracles.layer import mask_values

STRIDE = 1 << 32
Rows = list[torch.Tensor]


def norm(value: torch.Tensor, w: dict[str, torch.Tensor], part: str, gate: int = 0) -> torch.Tensor:
    """A row with mean 0 and variance 1, times gamma plus beta, where there are some."""
    if f"gamma{part}" not in w:
        return value
    unit = (value - value.mean()) / torch.sqrt(value.var(unbiased=False) + 1e-5)
    n = len(value)
    return unit * w[f"gamma{part}"][gate * n : (gate + 1) * n] + w[f"beta{part}"][gate * n : (gate + 1) * n]


Masked = Callable[[torch.Tensor, int], torch.Tensor]


def lstm(x: Masked, state: Rows, w: dict[str, torch.Tensor], module: Any, on_h: Masked) -> Rows:
    """h and c after a step; `x` and `on_h` give what a gate sees of inputs and of a state."""
    h, c = state
    rows = zip(w["ih"].chunk(4), w["hh"].chunk(4), (w["bih"] + w["bhh"]).chunk(4), strict=True)
    sums = [wx @ x(k) + wh @ on_h(h, k) + b for k, (wx, wh, b) in enumerate(rows)]
    i, f, g, o = (norm(part, w, "", k) for k, part in enumerate(sums))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    c = norm(c, w, "_c")
    h = torch.sigmoid(o) * torch.tanh(c)
    return [w["hr"] @ h if module.proj_size else h, c]


def gru(x: Masked, state: Rows, w: dict[str, torch.Tensor], module: Any, on_h: Masked) -> Rows:
    """h after a step."""
    h = state[0]
    rows = zip(w["ih"].chunk(3), w["bih"].chunk(3), strict=True)
    xr, xz, xn = (wx @ x(k) + b for k, (wx, b) in enumerate(rows))
    wr, wz, wn = w["hh"].chunk(3)
    br, bz, bn = w["bhh"].chunk(3)
    r = torch.sigmoid(norm(xr + wr @ on_h(h, 0) + br, w, "", 0))
    z = torch.sigmoid(norm(xz + wz @ on_h(h, 1) + bz, w, "", 1))
    if module.reset_after:
        n = norm(xn, w, "", 2) + r * norm(wn @ on_h(h, 2) + bn, w, "_h")
    else:
        n = norm(xn + wn @ on_h(r * h, 2) + bn, w, "", 2)
    return [(1 - z) * torch.tanh(n) + z * h]


def rnn(x: Masked, state: Rows, w: dict[str, torch.Tensor], module: Any, on_h: Masked) -> Rows:
    """h after a step."""
    total = norm(w["ih"] @ x(0) + w["hh"] @ on_h(state[0], 0) + w["bih"] + w["bhh"], w, "")
    return [torch.relu(total) if module.nonlinearity == "relu" else torch.tanh(total)]


#: Which of a row's numbers belong to torch's gates, of masks that each gate has for itself.
GATES = {"LSTM": (0, 2, 1, 3), "GRU": (0, 1, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}
CELLS = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn, "RNN_RELU": rnn}


def weights_of(module: Any, place: str, dropout: float) -> dict[str, torch.Tensor]:
    """The weights of one layer and direction; the recurrent ones dropped."""
    width = module.weight_hh_l0.shape[0]
    zeros = torch.zeros(width, dtype=torch.float64)
    found = {"ih": getattr(module, f"weight_ih{place}"), "hh": getattr(module, f"weight_hh{place}")}
    if dropout:
        found["hh"] = F.dropout(found["hh"], dropout)
    for name in ("bih", "bhh"):
        found[name] = getattr(module, f"bias_{name[1:]}{place}") if module.bias else zeros
    if module.proj_size:
        found["hr"] = getattr(module, f"weight_hr{place}")
    for part in ("", "_c", "_h") if module.layer_norm else ():
        for mine, theirs in (("gamma", "norm_weight"), ("beta", "norm_bias")):
            if hasattr(module, f"{theirs}{part}{place}"):
                found[mine + part] = getattr(module, f"{theirs}{part}{place}")
    return found


def masks_of(module: Any, seeds: list[int], steps: int, rows: int, depth: int) -> dict[str, torch.Tensor]:
    """What acts at each place, `[T, B, N]`, with the first seeds of the list, which are taken from it."""
    width = module.proj_size or module.hidden_size
    gates = len(GATES[module.mode]) if module.mask_per_gate and module.training else 1
    sizes = {"input": depth, "output": width, "h": width, "zone_h": width, "zone_c": module.hidden_size}
    found = {name: torch.ones(steps, rows, n, dtype=torch.float64) for name, n in sizes.items()}
    for place, rate in zip(("zone_h", "zone_c"), zones_of(module), strict=True):
        values = torch.full_like(found[place], 1 - rate)
        if rate and module.training:
            shape, stream = (rows, found[place].shape[2]), (seeds.pop(0) & (2**64 - 1), 0, 0)
            drawn = mask_values(steps, shape, "float64", 1 - rate, by_floor=False, stream=stream, stride=STRIDE)
            values = torch.from_numpy((drawn > 0).astype("float64"))
        found[place] = values
    rates = (("input", module.input_dropout), ("output", module.output_dropout), ("h", module.state_dropout))
    for place, rate in rates if module.training else ():
        if rate:
            draws = 1 if module.variational else steps
            own = gates if place != "output" else 1
            shape = (1 if not module.mask_per_row else rows, found[place].shape[2] * own)
            stream = (seeds.pop(0) & (2**64 - 1), 0, 0)
            values = mask_values(draws, shape, "float64", 1.0 - rate, by_floor=False, stream=stream, stride=STRIDE)
            values = torch.from_numpy(values)
            if module.mask_per_gate and place != "output":
                found[f"{place} of gates"] = values.expand(steps, rows, -1)
            else:
                found[place] = found[place] * values
    return found


def zones_of(module: Any) -> tuple[float, float]:
    """Rates of zoneout on h and c."""
    h, c = module.zoneout if isinstance(module.zoneout, tuple) else (module.zoneout, module.zoneout)
    return h, c if module.mode == "LSTM" else 0.0


def loop(
    module: Any,
    x: torch.Tensor,
    state: Rows,
    *,
    lengths: list[int] | None = None,
    resets: torch.Tensor | None = None,
    fresh: Rows | None = None,
) -> tuple[torch.Tensor, Rows, Rows]:
    """Outputs `[T, B, D * P]`, last states `[L * D, B, size]`, all states `[L * D, T, B, size]`, for `[T, B, I]`."""
    steps, rows, _ = x.shape
    ends = [steps] * rows if lengths is None else lengths
    directions = 2 if module.bidirectional else 1
    dropping = module.weight_dropout if module.training else 0.0
    places = [(n, d) for n in range(module.num_layers) for d in range(directions)]
    weights = {p: weights_of(module, f"_l{p[0]}" + ("_reverse" if p[1] else ""), dropping) for p in places}
    rates = (module.input_dropout, module.output_dropout, module.state_dropout, *zones_of(module))
    count = sum(bool(rate) for rate in rates)
    count *= len(places) if module.training else 0
    seeds = torch.randint(-(2**63), 2**63 - 1, (count,)).tolist() if count else []
    there = torch.tensor([[t < end for end in ends] for t in range(steps)])[:, :, None]
    last: list[Rows] = []
    every: list[Rows] = []
    for number in range(module.num_layers):
        sides = []
        for direction in range(directions):
            place = number * directions + direction
            masks = masks_of(module, seeds, steps, rows, x.shape[2])
            start = [leaf[place] for leaf in state]
            again = [torch.zeros_like(leaf) for leaf in start] if fresh is None else [leaf[place] for leaf in fresh]
            cell, w = CELLS[module.mode], weights[(number, direction)]
            out, end, states = _rows(cell, w, module, x, start, again, ends, resets, masks, bool(direction))
            sides.append(out)
            last.append(end)
            every.append(states)
        y = torch.cat(sides, dim=2)
        if module.residual and x.shape == y.shape:
            y = torch.where(there, x, torch.zeros((), dtype=x.dtype)) + y
        if module.training and module.dropout and number < module.num_layers - 1:
            y = F.dropout(y, module.dropout)
        x = y
    leaves = range(len(state))
    joined = [[torch.stack([states[k] for states in found]) for k in leaves] for found in (last, every)]
    return x, joined[0], joined[1]


def _seen(module: Any, masks: dict[str, torch.Tensor], place: str, value: torch.Tensor, s: int, b: int) -> Any:
    """What each gate sees of a value."""
    parts = masks.get(f"{place} of gates")
    if parts is None:
        return lambda _: value * masks[place][s, b] if place == "input" else value
    order = GATES[module.mode]
    return lambda gate: value * parts[s, b].chunk(len(order))[order[gate]]


def _seen_h(module: Any, masks: dict[str, torch.Tensor], s: int, b: int) -> Any:
    return lambda value, gate: _seen(module, masks, "h", value, s, b)(gate)


def _rows(
    cell: Any, w: Any, module: Any, x: torch.Tensor, start: Rows, again: Rows, ends: list[int],
    resets: torch.Tensor | None, masks: dict[str, torch.Tensor], backwards: bool,
) -> tuple[torch.Tensor, Rows, Rows]:  # fmt: skip
    steps, rows, _ = x.shape
    width = masks["output"].shape[2]
    columns, finals, histories = [], [], []
    for b in range(rows):
        state, outputs, history = [leaf[b] for leaf in start], {}, {}
        for s in range(ends[b]):
            t = ends[b] - 1 - s if backwards else s
            border = t + 1 if backwards else t  # a piece starts at a reset; backwards it is entered at its end
            if resets is not None and border < ends[b] and resets[border, b]:
                state = [leaf[b] for leaf in again]
            new = cell(_seen(module, masks, "input", x[t, b], s, b), state, w, module, _seen_h(module, masks, s, b))
            zones = (masks["zone_h"][s, b], masks["zone_c"][s, b])
            new = [zone * a + (1 - zone) * old for zone, a, old in zip(zones, new, state, strict=False)]
            outputs[t] = new[0] * masks["output"][s, b]
            state = [new[0] * masks["h"][s, b], *new[1:]]
            history[t] = state
        zeros = torch.zeros(width, dtype=torch.float64)
        columns.append(torch.stack([outputs.get(t, zeros) for t in range(steps)]))
        finals.append(state)
        histories.append([history.get(t, state) for t in range(steps)])
    leaves = range(len(start))
    last = [torch.stack([state[k] for state in finals]) for k in leaves]
    states = [torch.stack([torch.stack([at[k] for at in row]) for row in histories], dim=1) for k in leaves]
    return torch.stack(columns, dim=1), last, states
