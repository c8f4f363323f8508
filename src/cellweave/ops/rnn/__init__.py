"""The plain recurrent network."""

from cellweave.ops.rnn._backends import BACKENDS as BACKENDS
from cellweave.ops.rnn._reference import rnn_step as rnn_step
