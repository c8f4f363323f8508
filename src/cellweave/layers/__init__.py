"""Whole-sequence layers: the unrolls, and TF1's cuDNN layers."""

from cellweave.layers._bidirectional_rnn import bidirectional_dynamic_rnn as bidirectional_dynamic_rnn
from cellweave.layers._bidirectional_rnn import stack_bidirectional_dynamic_rnn as stack_bidirectional_dynamic_rnn
from cellweave.layers._bidirectional_rnn import static_bidirectional_rnn as static_bidirectional_rnn
from cellweave.layers._cudnn_gru import CudnnGRU as CudnnGRU
from cellweave.layers._cudnn_lstm import CudnnLSTM as CudnnLSTM
from cellweave.layers._cudnn_relu import CudnnRNNRelu as CudnnRNNRelu
from cellweave.layers._cudnn_tanh import CudnnRNNTanh as CudnnRNNTanh
from cellweave.layers._dynamic_rnn import dynamic_rnn as dynamic_rnn
from cellweave.layers._explain import explain as explain
from cellweave.layers._fused_rnn_cell_adaptor import FusedRNNCellAdaptor as FusedRNNCellAdaptor
from cellweave.layers._lstm_block_fused_cell import LSTMBlockFusedCell as LSTMBlockFusedCell
from cellweave.layers._raw_rnn import raw_rnn as raw_rnn
from cellweave.layers._static_rnn import static_rnn as static_rnn
from cellweave.layers._stepper import Stepper as Stepper
from cellweave.layers._time_reversed_fused_rnn import TimeReversedFusedRNN as TimeReversedFusedRNN
