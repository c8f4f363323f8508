"""What a cell is, as frozen data. No tensors of a running model."""

from cellweave.specs._cells import CellSpec as CellSpec
from cellweave.specs._cells import GRUSpec as GRUSpec
from cellweave.specs._cells import LSTMSpec as LSTMSpec
from cellweave.specs._cells import RNNSpec as RNNSpec
from cellweave.specs._cells import WeightSpec as WeightSpec
from cellweave.specs._states import LSTMStateTuple as LSTMStateTuple
