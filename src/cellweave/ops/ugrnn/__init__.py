"""The update gate RNN."""

from cellweave.ops.ugrnn._reference import ugrnn_step as ugrnn_step
