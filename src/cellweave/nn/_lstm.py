"""LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cellweave.nn._additions import Arguments
from cellweave.nn._base import RecurrentModule

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LSTM(RecurrentModule):
    """`torch.nn.LSTM` with additions: the same arguments, parameters, start values, results and errors.

        i, f, o = sigmoid(x W + b + h R + b'), each with its rows of the weights, in the order i, f, g, o
        g = tanh(x W + b + h R + b');  c' = f*c + i*g;  h' = o*tanh(c'), projected

    It is a `torch.nn.RNNBase`, but no `torch.nn.LSTM`, every instance of which `torch.compile` refuses.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype: As of
            `torch.nn.LSTM`. The others by keyword only:
        input_dropout, state_dropout, output_dropout: Probability of dropping, in [0, 1), an element of each layer's
            inputs, of the h that a step hands to the next (as TF1's `DropoutWrapper`: the last state is masked too, a
            given one is not), of each layer's outputs. What is kept is divided by its probability. In training mode
            only. Drawn in the dtype of the inputs: bfloat16 and float16 drop with the next multiple of 1/128, 1/1024.
            Default 0.
        variational: One mask for all steps of a call (Gal & Ghahramani 2016); False: a new one at every step. Default
            True.
        mask_per_row: Each row of the batch has a mask of its own; False: all rows share one, which needs `variational`.
            Default True.
        mask_per_gate: Each gate multiplies inputs and h by masks of its own before its weights (Gal & Ghahramani's
            untied form); on h they act inside every step, the first one too, and leave the state as it is. Default
            False.
        weight_dropout: Probability of dropping an element of each recurrent matrix, one mask for a whole call
            (DropConnect, Wan et al. 2013; Merity et al. 2018). In training mode only. Default 0.
        zoneout: Probability, in [0, 1], that an element of the state stays what it was before the step: a number for h
            and c, or two. In evaluation mode the expected mixture of both (Krueger et al. 2017). Default 0.
        layer_norm: Normalize each gate's sum over its units, and the new c, each with a gamma and a beta of its own (Ba
            et al. 2016): parameters `norm_weight_l0`, `norm_bias_l0` in the order of the weights' rows, and
            `norm_weight_c_l0`, `norm_bias_c_l0`, behind the others. Default False.
        residual: Each layer whose inputs are as wide as its outputs adds them to those, after all masks but the
            `dropout` between layers. Default False.

    A call takes:

        input: `[T, B, I]`; `[B, T, I]` with `batch_first`; `[T, I]` of one sequence; or a `PackedSequence`.
        hx: `(h, c)`, each `[L * D, B, size]`; `[L * D, size]` of one sequence. Default: zeros.
        lengths: Steps of each row, `[B]` whole numbers in 0..T, a list or a tensor on any device. Outputs past them are
            zero, the state stays. Default: all T.
        padding_side: "right", or "left": rows end at the last step. Default "right".
        resets: Bool, laid out as the inputs without their last axis. True: the row's state is replaced before that
            step. The reverse direction, too, treats what lies between two resets as a sequence of its own. Default:
            none.
        reset_state: What replaces it, as `hx`. Default: zeros.
        return_all_states: Return every state as well. Default False.

    and returns:

        `(output, (h, c))`: output `[T, B, D * P]` laid out as the inputs (packed if they are), D directions; and the
        last state, as `hx`. With `return_all_states`, a third: the state after every step, h and c, each
        `[L * D, T, B, size]` (`[L * D, B, T, size]` with `batch_first`, `[L * D, T, size]` of one sequence), padded and
        in the caller's order of rows for packed inputs. Past a row's end its last state; before a row's start, under
        left padding, its first.

    Raises:
        The types of exceptions that torch.nn raises for the same mistakes: ShapeError, ArgumentError (both
        ValueErrors), MisfitError (RuntimeError), TypeError. BackendError: the backend asked for by `use_backend`
        cannot run it.
    Numerics: as torch.nn up to rounding; `explain` shows what runs. Without a backend of cellweave for the dtype or
    device, torch's own fused layer runs what it can, and single steps the rest. Masks: one seed each from torch's
    default generator of the CPU, in this order: dropped weights of all layers; for each layer and direction zoneout of
    h, of c, inputs, outputs, state; then `dropout` between layers.
    Source: Hochreiter & Schmidhuber 1997; Sak et al. 2014 (projection); `torch.nn.LSTM`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[Arguments],
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device=device, dtype=dtype, given=additions, known=Arguments,
        )  # fmt: skip

    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    check_forward_args = torch.nn.LSTM.check_forward_args  # type: ignore[assignment]  # so it is in torch.nn
    permute_hidden = torch.nn.LSTM.permute_hidden  # type: ignore[assignment]
