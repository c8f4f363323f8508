"""torch.nn's recurrent modules with what people add to them, run on the weave's plans."""

from cellweave.nn._convert import ConvertedModule as ConvertedModule
from cellweave.nn._convert import ModelConversion as ModelConversion
from cellweave.nn._convert import convert as convert
from cellweave.nn._convert import convert_back as convert_back
from cellweave.nn._gru import GRU as GRU
from cellweave.nn._gru_cell import GRUCell as GRUCell
from cellweave.nn._lstm import LSTM as LSTM
from cellweave.nn._lstm_cell import LSTMCell as LSTMCell
from cellweave.nn._rnn import RNN as RNN
from cellweave.nn._rnn_cell import RNNCell as RNNCell
from cellweave.nn._stream import Stream as Stream
