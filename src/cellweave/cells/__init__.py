"""Cells: one time step each."""

from cellweave.cells._basic_lstm_cell import BasicLSTMCell as BasicLSTMCell
from cellweave.cells._basic_rnn_cell import BasicRNNCell as BasicRNNCell
from cellweave.cells._cudnn_compatible_gru_cell import CudnnCompatibleGRUCell as CudnnCompatibleGRUCell
from cellweave.cells._cudnn_compatible_lstm_cell import CudnnCompatibleLSTMCell as CudnnCompatibleLSTMCell
from cellweave.cells._gru_cell import GRUCell as GRUCell
from cellweave.cells._lstm_cell import LSTMCell as LSTMCell
from cellweave.cells._registry import cell_config as cell_config
from cellweave.cells._registry import cell_from_config as cell_from_config
from cellweave.cells._registry import register as register
from cellweave.cells._rnn_cell import RNNCell as RNNCell
from cellweave.cells._rnn_cell import cell_of_number as cell_of_number
from cellweave.cells._rnn_cell import cell_zero_state as cell_zero_state
from cellweave.cells._rnn_cell import initial_state as initial_state
from cellweave.cells._rnn_cell import keras_zero_state as keras_zero_state
from cellweave.cells._rnn_cell import layer_call as layer_call
from cellweave.cells._rnn_cell import plain_zeros as plain_zeros
from cellweave.cells._rnn_cell import require_rnn_cell as require_rnn_cell
