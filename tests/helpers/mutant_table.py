"""Faults that the tests must see: where, what to replace by what, and which tests fail of it."""

from __future__ import annotations

from dataclasses import dataclass

GOLDEN = "tests/golden/test_golden_cases.py"
CONTRIB = "tests/golden/test_contrib_cases.py"
CONTRIB_CELLS = "tests/unit/cells/test_contrib_cells.py"
NUMERICS = "tests/numerics/test_recurrences.py"
LAYERS = "tests/numerics/test_layers.py"
SEQUENCES = "tests/unit/ops/common/test_sequence.py"
BINDER = "tests/unit/weave/test_binder.py"
PLANNER = "tests/unit/weave/test_planner.py"
BITS = "tests/numerics/test_philox_bits.py"
ERRORS = "tests/golden/test_golden_errors.py"


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        name: What is wrong.
        file: Below `src/cellweave`.
        old, new: Text that occurs once, and what takes its place.
        tests: pytest arguments of the tests that must fail: a file, `-k` and an expression.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, str, str]


def _golden(*ids: str) -> tuple[str, str, str]:
    return (GOLDEN, "-k", " or ".join(f"[{i}]" for i in ids))


def _numerics(*words: str) -> tuple[str, str, str]:
    return (NUMERICS, "-k", f"oracle and float64 and T7-B3 and ({' or '.join(words)})")


def _torch_layers(word: str) -> tuple[str, str, str]:
    return (LAYERS, "-k", f"torch_layers_against and {word} and full-forwards")


LSTM = "ops/lstm/_reference.py"
GRU = "ops/gru/_reference.py"
STREAMS = "ops/common/_streams.py"
SEQUENCE = "ops/common/_sequence.py"
MASKS = "wrappers/_mask_streams.py"
FILTER = "wrappers/_state_filter.py"
DROPOUT = "wrappers/_dropout_base.py"
STEPS = "layers/_cell_step.py"

MUTANTS = (
    # gates and formulas
    Mutant("lstm: input gate and candidate swapped", "specs/_cells.py", '"ijfo"', '"jifo"', _golden("step_lstm")),
    Mutant("lstm: forget and output gates swapped", "specs/_cells.py", '"ijfo"', '"ijof"', _numerics("-lstm-")),
    Mutant("lstm: no forget bias", LSTM, 'gate["f"] + spec.forget_bias', 'gate["f"]', _golden("step_basiclstm_fb03")),
    Mutant(
        "lstm: no bias",
        LSTM,
        "total if bias is None else total + bias",
        "total",
        _golden("dyn_lstm_zero_len", "step_lstm"),
    ),
    Mutant(
        "lstm: output peephole sees the old c", LSTM, '"w_o_diag"] * new_c', '"w_o_diag"] * c', _numerics("peephole")
    ),
    Mutant(
        "lstm: peephole of f on i",
        LSTM,
        'weights["w_i_diag"] * c if',
        'weights["w_f_diag"] * c if',
        _golden("step_lstm_peephole"),
    ),
    Mutant(
        "lstm: c is not clipped",
        LSTM,
        "    return torch.clamp(c, -bound, bound)\n",
        "    return c\n",
        _golden("step_lstm_clip"),
    ),
    Mutant(
        "lstm: a block cell's clip stops gradients",
        LSTM,
        " + (c - c.detach())",
        "",
        (CONTRIB, "-k", "test_values and block_lstm_clip"),
    ),
    Mutant(
        "lstm: coupled gates are the same gate",
        LSTM,
        "return 1 - f",
        "return f",
        (CONTRIB_CELLS, "-k", "one_step and coupled"),
    ),
    Mutant(
        "lstm: c is not normalized",
        LSTM,
        'normalized(new_c, NORM_NAMES["c"], weights, spec.norm_epsilon)',
        "new_c",
        (CONTRIB_CELLS, "-k", "one_step and layer-norm"),
    ),
    Mutant(
        "nas: products for sums",
        "ops/nas/_reference.py",
        "x[3] * s[3]",
        "x[3] + s[3]",
        (CONTRIB_CELLS, "-k", "one_step and nas"),
    ),
    Mutant(
        "weave: a map's bias stands past a row's end",
        "weave/_execute.py",
        "return without_padding(y, feed.lengths)",
        "return y",
        ("tests/unit/wrappers/test_contrib_wrappers.py", "-k", "oracle and output and woven"),
    ),
    Mutant(
        "fused: rows are turned as a whole",
        "layers/_time_reversed_fused_rnn.py",
        "reverse_sequence(values, lengths)",
        "reverse_sequence(values, None)",
        (CONTRIB, "-k", "test_values and fused_lstm_reversed_clip_seqlen"),
    ),
    Mutant(
        "lstm: the projection is not clipped",
        LSTM,
        "torch.clamp(new_h, -spec.proj_clip, spec.proj_clip)",
        "new_h",
        _numerics("projclip"),
    ),
    Mutant(
        "gru: reset and update swapped",
        GRU,
        "r, u = (_joined_product",
        "u, r = (_joined_product",
        _golden("step_gru"),
    ),
    Mutant(
        "gru: reset behind the product",
        GRU,
        "_joined_product(inputs, r * h, candidate_kernel, (2,), masks)",
        "(inputs @ candidate_kernel[: inputs.shape[1]] + r * (h @ candidate_kernel[inputs.shape[1] :]))",
        _golden("step_gru"),
    ),
    Mutant(
        "gru: update takes the new state",
        GRU,
        'c = activation_function(spec.activation)(norm(total, "c"))\n    return u * h + (1 - u) * c',
        'c = activation_function(spec.activation)(norm(total, "c"))\n    return u * c + (1 - u) * h',
        _numerics("-gru-"),
    ),
    Mutant(
        "keras gru: reset before the product",
        GRU,
        '+ r * norm(s["c"], "h")',
        '+ norm(s["c"], "h")',
        _golden("v2_gru_step"),
    ),
    Mutant(
        "rnn: no bias",
        "ops/rnn/_reference.py",
        "    total = torch.cat([inputs, h], dim=1) @ kernel\n        total = total if bias is None else total + bias",
        "    total = torch.cat([inputs, h], dim=1) @ kernel",
        _golden("step_basicrnn"),
    ),
    # time
    Mutant(
        "lengths ignored",
        STEPS,
        "    if active is None:\n        return output, new_state",
        "    return output, new_state",
        _golden("dyn_gru_tm_seqlen_init"),
    ),
    Mutant(
        "rows past their end keep running",
        STEPS,
        "torch.where(rows_mask(active, new), new, old)",
        "new",
        _golden("dyn_lstm_f64_seqlen"),
    ),
    Mutant(
        "the last step is skipped",
        "layers/_stepping.py",
        "for step in range(ran):",
        "for step in range(max(0, ran - 1)):",
        _golden("dyn_gru"),
    ),
    Mutant(
        "one step more than the longest row",
        "layers/_sequence.py",
        "return min(steps, max(at_least, int(lengths.max())))",
        "return min(steps, 1 + int(lengths.max()))",
        _golden("drop_lstm_all_seqlen"),
    ),
    Mutant(
        "backward outputs are not aligned",
        "layers/_unroll.py",
        "return reverse_sequence(outputs, task.lengths), state",
        "return outputs, state",
        _golden("bi_gru"),
    ),
    Mutant(
        "the whole row is reversed",
        "layers/_sequence.py",
        "    if lengths is None:\n            return leaf.flip(0)",
        "    return leaf.flip(0)",
        _golden("bi_lstm_seqlen_init"),
    ),
    # masks and streams
    Mutant("mask index shifted", MASKS, "{seed}{kind}_{index}", "{seed}{kind}_{index + 1}", _golden("drop_gru_input")),
    Mutant(
        "a pruned sublevel counts its leaves",
        DROPOUT,
        "index = place.leaf if self._variational else place.pruned",
        "index = place.leaf",
        _golden("drop_around_multi_visit"),
    ),
    Mutant(
        "variational indices are pruned",
        DROPOUT,
        "[(place.leaf, place.leaf if self._variational else place.pruned)",
        "[(place.leaf, place.pruned)",
        _golden("var_around_multi_visit"),
    ),
    Mutant(
        "c of an LSTM is dropped",
        FILTER,
        "LSTMStateTuple(c=False, h=True)",
        "LSTMStateTuple(c=True, h=True)",
        _golden("drop_lstm_state_default"),
    ),
    Mutant(
        "a stream advances by the blocks used",
        STREAMS,
        "BLOCKS_PER_ELEMENT * elements * draws",
        "-(-elements // 4) * draws",
        _golden("drop_step_runs3"),
    ),
    Mutant(
        "a stream does not advance", STREAMS, "BLOCKS_PER_ELEMENT * elements * draws", "0", _golden("drop_gru_state")
    ),
    Mutant(
        "noise of a run drawn at every step",
        MASKS,
        "found: RunDraw | None = run.memo.get(key)",
        "found: RunDraw | None = None",
        _golden("var_gru_all"),
    ),
    # whole sequences
    Mutant(
        "a reset past a row's end", SEQUENCE, "resets & active", "resets", (SEQUENCES, "-k", "resets_by_memory_index")
    ),
    Mutant(
        "read forwards", SEQUENCE, "return forwards.flip(0)", "return forwards", (SEQUENCES, "-k", "backwards_from")
    ),
    Mutant(
        "masks of the run's steps, not the row's",
        SEQUENCE,
        "masks.on_inputs(read_in_order(x, order))",
        "read_in_order(masks.on_inputs(x), order)",
        (LAYERS, "-k", "oracle and reference and T7 and ragged and backwards and steps"),
    ),
    Mutant(
        "mask: threshold off by one",
        "ops/common/_masks.py",
        "    return low\n",
        "    return low + 1\n",
        ("tests/unit/ops/common/test_masks.py", "-k", "all_mantissas"),
    ),
    Mutant(
        "torch: no forget bias", "ops/lstm/_torch.py", "return found + shift", "return found", _torch_layers("lstm")
    ),
    Mutant(
        "torch: gates not permuted", "ops/lstm/_torch.py", '_ORDER = "ifjo"', '_ORDER = "ijfo"', _torch_layers("lstm")
    ),
    Mutant(
        "torch: gates of the GRU swapped", "ops/gru/_torch.py", '_ORDER = "ruc"', '_ORDER = "urc"', _torch_layers("gru")
    ),
    Mutant("nine rounds", "ops/common/_philox.py", "_ROUNDS = 10", "_ROUNDS = 9", _golden("rng_float32")),
    Mutant(
        "key words swapped",
        "ops/common/_philox.py",
        "seed & _MASK32, (seed >> 32) & _MASK32\n    for",
        "(seed >> 32) & _MASK32, seed & _MASK32\n    for",
        (BITS, "-k", "test_words"),
    ),
    Mutant(
        "no default graph seed",
        "scopes/_seeds.py",
        "_DEFAULT_GRAPH_SEED if state.graph_seed is None",
        "0 if state.graph_seed is None",
        _golden("rng_float64"),
    ),
    Mutant(
        "kept values are not scaled",
        "ops/common/_dropout.py",
        "value * (1.0 / keep)",
        "value",
        _golden("drop_gru_output"),
    ),
    Mutant(
        "state dropped before the output is taken",
        DROPOUT,
        "output, new_state = self._step(inputs, state, **kwargs)\n        if",
        "output, new_state = self._step(inputs, state, **kwargs)\n"
        "        output = self._drop_state(output, run, op)\n        if",
        _golden("drop_gru_state"),
    ),
    # composition and names
    Mutant(
        "residual adds the output twice",
        "wrappers/_residual.py",
        "return x + y",
        "return y + y",
        _golden("multi_residual_lstm3"),
    ),
    Mutant(
        "all layers in one scope",
        "wrappers/_multi_rnn_cell.py",
        'else variable_scope(f"cell_{index}")',
        'else variable_scope("cell_0")',
        _golden("multi_gru_lstm"),
    ),
    Mutant(
        "states joined in reverse",
        "wrappers/_multi_rnn_cell.py",
        "torch.cat(new_states, dim=1)",
        "torch.cat(new_states[::-1], dim=1)",
        _golden("multi_concat_f64"),
    ),
    Mutant(
        "keep probabilities unchecked",
        DROPOUT,
        "    if not 0.0 <= number <= 1.0:",
        "    if False:",
        (ERRORS, "-k", "dropout_keep_above_1"),
    ),
    Mutant(
        "finished rows of a raw loop go on",
        "layers/_raw_rnn.py",
        "return torch.where(rows_mask(finished, otherwise), if_finished, otherwise)",
        "return otherwise",
        _golden("raw_lstm"),
    ),
    Mutant(
        "a fed keep probability of one draws nothing",
        DROPOUT,
        "if isinstance(keep, float) else True",
        "if isinstance(keep, float) else bool(keep != 1.0)",
        _golden("drop_keep_placeholder"),
    ),
    Mutant(
        "keep probabilities are not rounded",
        DROPOUT,
        "number = float(np.float32(value))",
        "number = float(value)",
        _golden("drop_lstm_all_f64_tm"),
    ),
    Mutant(
        "the seed pair (0, 0) stays",
        "scopes/_seeds.py",
        "pair if pair != (0, 0) else (0, _PRIME)",
        "pair",
        _golden("rng_float16"),
    ),
    Mutant(
        "a stack returns a list of states",
        "wrappers/_multi_rnn_cell.py",
        "tuple(new_states) if self",
        "new_states if self",
        _golden("step_multi_concat_gru", "multi_gru_lstm"),
    ),
    Mutant(
        "steps of a static unroll are one op",
        "scopes/_run.py",
        "return self._calls[key] - 1",
        "return 0",
        _golden("drop_static_same_mask"),
    ),
    Mutant(
        "eager streams start anew at every draw",
        MASKS,
        "blocks[key] = (blocks.get(key, 0) + BLOCKS_PER_ELEMENT * math.prod(shape)) % 2**64",
        "pass",
        _golden("v2_lstm_step"),
    ),
    Mutant(
        "the gates' bias starts at zero",
        "specs/_cells.py",
        '"gates/bias", (2 * n,), "bias", 1.0',
        '"gates/bias", (2 * n,), "bias", 0.0',
        _golden("dyn_gru"),
    ),
    # the weave and the native core's other half
    Mutant(
        "native: the first step's operand has no part in the weights' gradient",
        "ops/common/_native_backward.py",
        "if T == 1 or not are_zeros(start):",
        "if False:",
        _numerics("-lstm-"),
    ),
    Mutant(
        "native: a part of a sequence draws the first part's masks",
        "ops/common/_native_call.py",
        "mask.block + stride * steps_before",
        "mask.block",
        ("tests/numerics/test_layer_modes.py", "-k", "parts_of_the_sequence"),
    ),
    Mutant(
        "native: masks are not drawn again on the gradient of the inputs",
        "ops/common/_native_backward.py",
        "call.mask_inputs(d_x, d_x, 0, call.input_masks, zero_padding=False)",
        "pass",
        _golden("drop_gru_input"),
    ),
    Mutant(
        "native: all gates have the first one's mask",
        "ops/common/_native_call.py",
        "self.first, self.width = number * width, gates * width",
        "self.first, self.width = 0, gates * width",
        ("tests/numerics/test_gate_masks.py", "-k", "native"),
    ),
    Mutant(
        "native: the candidate's two biases of a GRU are one",
        "ops/common/_native_forward.py",
        "from_x + c * block",
        "from_both + c * block",
        ("tests/numerics/test_layers.py", "-k", "against_the_oracle and native and gru-after"),
    ),
    Mutant(
        "a subclass with its own call still weaves",
        "specs/_description.py",
        '("call", "forward", "__call__", "state_size", "output_size")',
        '("forward", "__call__", "state_size", "output_size")',
        ("tests/unit/weave/test_planner.py", "-k", "reason"),
    ),
    # weave
    Mutant(
        "weave: masks of one stream at one place",
        "weave/_binder.py",
        "counter = (counter + draws.blocks) % 2**128",
        "pass",
        (BINDER, "-k", "tf2_masks_of_one_seed"),
    ),
    Mutant(
        "weave: streams moved by one step",
        "weave/_binder.py",
        "take(per_step, self._steps)",
        "take(per_step, 1)",
        (BINDER, "-k", "streams_of_their_own"),
    ),
    Mutant(
        "weave: an output mask joins a residual run",
        "weave/_planner.py",
        "            return _Sequence(run.target)\n        stage = Adding",
        "            return _Sequence(run.target, run=run)\n        stage = Adding",
        (PLANNER, "-k", "test_stages"),
    ),
    Mutant(
        "weave: the sum takes inputs that are still to be dropped",
        "weave/_planner.py",
        "kept = self._stored(source)\n        result",
        "kept = source.number\n        result",
        (PLANNER, "-k", "test_stages"),
    ),
    Mutant(
        "weave: c and h swapped",
        "weave/_state_parts.py",
        'c, h = leaves if order == "ch" else reversed(leaves)',
        "c, h = leaves",
        (PLANNER, "-k", "keras_lstm"),
    ),
    Mutant(
        "weave: a stale program",
        "weave/_programs.py",
        "if module.acting() != node.acting:",
        "if False:",
        ("tests/unit/weave/test_programs.py", "-k", "makes_a_new_one"),
    ),
    Mutant(
        "weave: streams start in another order",
        "layers/_weaving.py",
        "with preparing_streams():\n                run_for",
        "if True:\n                run_for",
        ("tests/unit/layers/test_weaving.py", "-k", "unbuilt_composition"),
    ),
    Mutant(
        "cudnn: gates in TF1's order",
        "specs/_cudnn.py",
        '"lstm": "ifjo", "gru"',
        '"lstm": "ijfo", "gru"',
        _golden("cudnn_lstm_2l_bi"),
    ),
    Mutant(
        "cudnn: a saved sum becomes both biases whole",
        "layers/_cudnn_layout.py",
        "halves = [columns / len(rows)]",
        "halves = [columns]",
        _golden("cudnn_tanh_2l"),
    ),
    Mutant(
        "cudnn: the state's bias left out",
        "layers/_cudnn_rnn.py",
        "else b_w + b_r",
        "else b_w",
        _golden("cudnn_relu_2l_bi"),
    ),
    Mutant(
        "cudnn: both directions read forwards",
        "layers/_cudnn_runs.py",
        "reverse=bool(place % layer.num_dirs)",
        "reverse=False",
        _golden("cudnn_gru_2l_bi_f64"),
    ),
    Mutant(
        "cudnn: dropout on the last layer, too",
        "layers/_cudnn_rnn.py",
        "below_another = place < self._spec.places - self._spec.directions",
        "below_another = True",
        ("tests/unit/layers/test_cudnn_dropout.py", "-k", "not_on_first_inputs"),
    ),
    Mutant(
        "cudnn: a gradient through a call without training",
        "layers/_cudnn_runs.py",
        "if not wanting or torch.compiler.is_compiling():",
        "if True:",
        ("tests/unit/layers/test_cudnn_layers.py", "-k", "no_gradient_through"),
    ),
    # torch.nn's interface
    Mutant(
        "nn: gates in another order than torch.nn's",
        "nn/_plans.py",
        'gate_order="ifjo"',
        'gate_order="fijo"',
        ("tests/unit/nn/test_torch_pairs.py", "-k", "test_same_numbers and LSTM"),
    ),
    Mutant(
        "nn: the reverse direction is reset where the forward one is",
        "nn/_run.py",
        "return F.pad(resets.to(torch.uint8), (0, 0, 0, 1))[1:].to(torch.bool)",
        "return resets",
        ("tests/unit/nn/test_additions.py", "-k", "pieces_between_resets"),
    ),
    Mutant(
        "nn: left padding turned back the wrong way",
        "nn/_lengths.py",
        "_wrapped(t + lengths, steps)",
        "_wrapped(t + steps - lengths, steps)",
        ("tests/unit/nn/test_additions.py", "-k", "test_as_the_loop_has_it and True-never-left"),
    ),
    Mutant(
        "nn: dropout between layers of packed rows drawn for their padding, too",
        "nn/_run.py",
        "_dropped(y, module.dropout, feed.lengths if feed.packed else None)",
        "_dropped(y, module.dropout, None)",
        ("tests/unit/nn/test_torch_pairs.py", "-k", "test_same_numbers and packed and 0.4"),
    ),
)
