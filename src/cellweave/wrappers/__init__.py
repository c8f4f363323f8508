"""Cells made of cells."""

from cellweave.wrappers._base import CellWrapper as CellWrapper
from cellweave.wrappers._base import KerasCellWrapper as KerasCellWrapper
from cellweave.wrappers._device_wrapper import DeviceWrapper as DeviceWrapper
from cellweave.wrappers._dropout_wrapper import DropoutWrapper as DropoutWrapper
from cellweave.wrappers._mask_streams import preparing_streams as preparing_streams
from cellweave.wrappers._multi_rnn_cell import MultiRNNCell as MultiRNNCell
from cellweave.wrappers._residual_wrapper import ResidualWrapper as ResidualWrapper
from cellweave.wrappers._rnn_cell_dropout_wrapper import RNNCellDropoutWrapper as RNNCellDropoutWrapper
from cellweave.wrappers._rnn_cell_wrappers import RNNCellDeviceWrapper as RNNCellDeviceWrapper
from cellweave.wrappers._rnn_cell_wrappers import RNNCellResidualWrapper as RNNCellResidualWrapper
