"""The phased long short-term memory."""

from cellweave.ops.phased._reference import phased_lstm_step as phased_lstm_step
