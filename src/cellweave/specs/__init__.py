"""What a cell is, as frozen data. No tensors of a running model."""

from cellweave.specs._cells import NORM_NAMES as NORM_NAMES
from cellweave.specs._cells import CellSpec as CellSpec
from cellweave.specs._cells import GRUSpec as GRUSpec
from cellweave.specs._cells import LSTMSpec as LSTMSpec
from cellweave.specs._cells import RNNSpec as RNNSpec
from cellweave.specs._cells import WeightSpec as WeightSpec
from cellweave.specs._description import describe as describe
from cellweave.specs._nodes import DeviceSpec as DeviceSpec
from cellweave.specs._nodes import DropoutSpec as DropoutSpec
from cellweave.specs._nodes import MapSpec as MapSpec
from cellweave.specs._nodes import NodeSpec as NodeSpec
from cellweave.specs._nodes import ResidualSpec as ResidualSpec
from cellweave.specs._nodes import StackSpec as StackSpec
from cellweave.specs._runs import MaskPlace as MaskPlace
from cellweave.specs._runs import MaskSpec as MaskSpec
from cellweave.specs._runs import RunSpec as RunSpec
from cellweave.specs._states import LSTMStateTuple as LSTMStateTuple
from cellweave.specs._stepped import IndRNNSpec as IndRNNSpec
from cellweave.specs._stepped import IndyGRUSpec as IndyGRUSpec
from cellweave.specs._stepped import IndyLSTMSpec as IndyLSTMSpec
from cellweave.specs._stepped import IntersectionSpec as IntersectionSpec
from cellweave.specs._stepped import NASSpec as NASSpec
from cellweave.specs._stepped import PhasedLSTMSpec as PhasedLSTMSpec
from cellweave.specs._stepped import SRUSpec as SRUSpec
from cellweave.specs._stepped import SteppedSpec as SteppedSpec
from cellweave.specs._stepped import UGRNNSpec as UGRNNSpec
