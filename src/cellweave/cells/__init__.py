"""Cells: one time step each."""

from cellweave.cells._basic_lstm_cell import BasicLSTMCell as BasicLSTMCell
from cellweave.cells._basic_rnn_cell import BasicRNNCell as BasicRNNCell
from cellweave.cells._conv1d_lstm_cell import Conv1DLSTMCell as Conv1DLSTMCell
from cellweave.cells._conv2d_lstm_cell import Conv2DLSTMCell as Conv2DLSTMCell
from cellweave.cells._conv3d_lstm_cell import Conv3DLSTMCell as Conv3DLSTMCell
from cellweave.cells._conv_lstm_cell import ConvLSTMCell as ConvLSTMCell
from cellweave.cells._coupled_input_forget_gate_lstm_cell import (
    CoupledInputForgetGateLSTMCell as CoupledInputForgetGateLSTMCell,
)
from cellweave.cells._cudnn_compatible_gru_cell import CudnnCompatibleGRUCell as CudnnCompatibleGRUCell
from cellweave.cells._cudnn_compatible_lstm_cell import CudnnCompatibleLSTMCell as CudnnCompatibleLSTMCell
from cellweave.cells._gru_block_cell import GRUBlockCell as GRUBlockCell
from cellweave.cells._gru_block_cell_v2 import GRUBlockCellV2 as GRUBlockCellV2
from cellweave.cells._gru_cell import GRUCell as GRUCell
from cellweave.cells._ind_rnn_cell import IndRNNCell as IndRNNCell
from cellweave.cells._indy_gru_cell import IndyGRUCell as IndyGRUCell
from cellweave.cells._indy_lstm_cell import IndyLSTMCell as IndyLSTMCell
from cellweave.cells._intersection_rnn_cell import IntersectionRNNCell as IntersectionRNNCell
from cellweave.cells._layer_norm_basic_lstm_cell import LayerNormBasicLSTMCell as LayerNormBasicLSTMCell
from cellweave.cells._lstm_block_cell import LSTMBlockCell as LSTMBlockCell
from cellweave.cells._lstm_cell import LSTMCell as LSTMCell
from cellweave.cells._nas_cell import NASCell as NASCell
from cellweave.cells._phased_lstm_cell import PhasedLSTMCell as PhasedLSTMCell
from cellweave.cells._registry import cell_config as cell_config
from cellweave.cells._registry import cell_from_config as cell_from_config
from cellweave.cells._registry import register as register
from cellweave.cells._rnn_cell import RNNCell as RNNCell
from cellweave.cells._rnn_cell import cell_of_number as cell_of_number
from cellweave.cells._rnn_cell import cell_zero_state as cell_zero_state
from cellweave.cells._rnn_cell import initial_state as initial_state
from cellweave.cells._rnn_cell import layer_call as layer_call
from cellweave.cells._rnn_cell import plain_zeros as plain_zeros
from cellweave.cells._rnn_cell import require_rnn_cell as require_rnn_cell
from cellweave.cells._sru_cell import SRUCell as SRUCell
from cellweave.cells._ugrnn_cell import UGRNNCell as UGRNNCell
