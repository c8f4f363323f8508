"""The convolutional long short-term memory."""

from cellweave.ops.convlstm._reference import conv_lstm_step as conv_lstm_step
