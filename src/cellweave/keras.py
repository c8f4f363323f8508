"""Keras-style cells: separate input and recurrent kernels, states as lists."""

from cellweave.cells._keras_gru_cell import GRUCell as GRUCell
from cellweave.cells._keras_lstm_cell import LSTMCell as LSTMCell
from cellweave.cells._keras_simple_rnn_cell import SimpleRNNCell as SimpleRNNCell
