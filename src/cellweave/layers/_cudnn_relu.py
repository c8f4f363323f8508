"""CudnnRNNRelu."""

from __future__ import annotations

from cellweave.layers._cudnn_rnn import CudnnRNN


class CudnnRNNRelu(CudnnRNN):
    """Plain recurrent layers with a rectifier over a sequence, as cuDNN has them: `outputs, (h,) = layer(inputs)`.

        h' = max(0, W x + R h + b + b')

    States are `(h,)`.
    Weights are ordinary parameters with torch's names and shapes; `tf_canonical_tensors`, `opaque_kernel`,
    `canonical_weights`, `to_torch` and their counterparts give and take other layouts. The arguments of a call,
    `layer(inputs, initial_state, sequence_lengths, time_major, training)`, are documented at `call`.

    Args:
        num_layers, num_units: Layers L, and units H of each direction.
        input_mode: "linear_input"; "skip_input": the lowest layer adds its inputs to every gate, which needs I = H;
            "auto_select": skips them where I = H.
        direction: "unidirectional" or "bidirectional"; each layer reads both directions' outputs of the one below.
        dropout: Probability of dropping an element between layers; masks are drawn per step. Only in training.
        seed: Of the masks, and of the default kernel initializer: equally shaped matrices then start alike.
        dtype: float16, float32 (default) or float64.
        kernel_initializer: Called for each matrix `[H, ...]` of each gate; default Glorot uniform.
        bias_initializer: Called for each bias `[H]`; default zeros.
        name: Name of the layer and its scope.
    Shapes: inputs `[T, B, I]`, outputs `[T, B, D * H]`, states `[L * D, B, H]` (D directions). Per layer and direction
        `weight_ih_l0` `[H, I]`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`; `..._l0_reverse`.
    Raises:
        ArgumentError: a direction, input mode, dtype, dropout or size that is not allowed.
    Numerics: woven onto the kernels that run cells (see `explain`). On a CPU float16 runs on torch's own layers where
        no gradient is asked for and they have all that acts, else step by step.
    Source: TF1 `tf.contrib.cudnn_rnn.CudnnRNNRelu`.
    """

    _rnn_mode = "rnn_relu"
