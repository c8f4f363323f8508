"""ONNX files of models with recurrences: one standard operator for each layer."""

from cellweave.onnx._export import export as export
from cellweave.onnx._translations import translations as translations
