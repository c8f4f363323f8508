"""TF1's `tf.contrib.rnn` and `tf.contrib.cudnn_rnn`: cells, wrappers and whole-sequence layers."""

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
from cellweave.cells._ind_rnn_cell import IndRNNCell as IndRNNCell
from cellweave.cells._indy_gru_cell import IndyGRUCell as IndyGRUCell
from cellweave.cells._indy_lstm_cell import IndyLSTMCell as IndyLSTMCell
from cellweave.cells._intersection_rnn_cell import IntersectionRNNCell as IntersectionRNNCell
from cellweave.cells._layer_norm_basic_lstm_cell import LayerNormBasicLSTMCell as LayerNormBasicLSTMCell
from cellweave.cells._lstm_block_cell import LSTMBlockCell as LSTMBlockCell
from cellweave.cells._nas_cell import NASCell as NASCell
from cellweave.cells._phased_lstm_cell import PhasedLSTMCell as PhasedLSTMCell
from cellweave.cells._sru_cell import SRUCell as SRUCell
from cellweave.cells._ugrnn_cell import UGRNNCell as UGRNNCell
from cellweave.layers._cudnn_gru import CudnnGRU as CudnnGRU
from cellweave.layers._cudnn_lstm import CudnnLSTM as CudnnLSTM
from cellweave.layers._cudnn_relu import CudnnRNNRelu as CudnnRNNRelu
from cellweave.layers._cudnn_tanh import CudnnRNNTanh as CudnnRNNTanh
from cellweave.layers._fused_rnn_cell_adaptor import FusedRNNCellAdaptor as FusedRNNCellAdaptor
from cellweave.layers._lstm_block_fused_cell import LSTMBlockFusedCell as LSTMBlockFusedCell
from cellweave.layers._time_reversed_fused_rnn import TimeReversedFusedRNN as TimeReversedFusedRNN
from cellweave.wrappers._embedding_wrapper import EmbeddingWrapper as EmbeddingWrapper
from cellweave.wrappers._highway_wrapper import HighwayWrapper as HighwayWrapper
from cellweave.wrappers._input_projection_wrapper import InputProjectionWrapper as InputProjectionWrapper
from cellweave.wrappers._output_projection_wrapper import OutputProjectionWrapper as OutputProjectionWrapper
