"""ONNX files of models with recurrences: one standard operator for each layer."""

from cellweave.onnx import _packages as _packages
from cellweave.onnx._export import export as export
from cellweave.onnx._translations import translations as translations
