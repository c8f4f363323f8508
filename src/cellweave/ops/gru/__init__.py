"""The gated recurrent unit."""

from cellweave.ops.gru._backends import BACKENDS as BACKENDS
from cellweave.ops.gru._reference import gru_split_step as gru_split_step
from cellweave.ops.gru._reference import gru_split_weights as gru_split_weights
from cellweave.ops.gru._reference import gru_step as gru_step
