"""The long short-term memory."""

from cellweave.ops.lstm._backends import BACKENDS as BACKENDS
from cellweave.ops.lstm._reference import lstm_step as lstm_step
