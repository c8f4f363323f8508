"""torch.nn's recurrent modules with what people add to them, run on the weave's plans."""

from cellweave.nn._gru import GRU as GRU
from cellweave.nn._lstm import LSTM as LSTM
from cellweave.nn._rnn import RNN as RNN
