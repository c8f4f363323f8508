"""The long short-term memory."""

from cellweave.ops.lstm._reference import lstm_step as lstm_step
