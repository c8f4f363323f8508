"""Names from `tf.contrib`: what stands at the top level, too, under the module that TF1 users imported it from."""

from cellweave.cells._cudnn_compatible_gru_cell import CudnnCompatibleGRUCell as CudnnCompatibleGRUCell
from cellweave.cells._cudnn_compatible_lstm_cell import CudnnCompatibleLSTMCell as CudnnCompatibleLSTMCell
from cellweave.layers._cudnn_gru import CudnnGRU as CudnnGRU
from cellweave.layers._cudnn_lstm import CudnnLSTM as CudnnLSTM
from cellweave.layers._cudnn_relu import CudnnRNNRelu as CudnnRNNRelu
from cellweave.layers._cudnn_tanh import CudnnRNNTanh as CudnnRNNTanh
