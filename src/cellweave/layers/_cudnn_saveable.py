"""What TF1 saved of a cuDNN layer in place of its opaque kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from cellweave.layers._cudnn_conversions import CudnnConversions


class CudnnSaveable:
    """A layer's weights under the names and in the layout of a TF1 checkpoint.

    Attributes:
        name: `<opaque kernel's name>_saveable`.
    """

    def __init__(self, layer: CudnnConversions, name: str) -> None:
        self.name = name
        self._layer = layer

    @property
    def names(self) -> list[str]:
        """Names of its tensors, kernels first, without `:0`."""
        return list(self.tensors())

    def tensors(self) -> dict[str, torch.Tensor]:
        """As the layer's `tf_canonical_tensors`."""
        return self._layer.tf_canonical_tensors()

    def restore(self, tensors: Mapping[str, Any]) -> None:
        """As the layer's `load_tf_canonical`."""
        self._layer.load_tf_canonical(tensors)
