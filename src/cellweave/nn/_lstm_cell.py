"""LSTMCell."""

from __future__ import annotations

import torch

from cellweave.nn._single_step import SingleStep


class LSTMCell(SingleStep, torch.nn.LSTMCell):
    """LONGDOC"""

    mode = "LSTM"
