"""Independently recurrent networks."""

from cellweave.ops.indrnn._reference import indrnn_step as indrnn_step
from cellweave.ops.indrnn._reference import indy_gru_step as indy_gru_step
from cellweave.ops.indrnn._reference import indy_lstm_step as indy_lstm_step
