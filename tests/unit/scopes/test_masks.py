"""Masks through recorded layers, and compute_mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw

X = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]]])  # [1, 3, 2]: the middle step is padding


class Masking(cw.Layer):
    """Makes a mask: steps that are zero throughout do not count."""

    supports_masking = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return (inputs != 0).any(-1)


class Scale(cw.Layer):
    """Passes masks on."""

    supports_masking = True

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * 2


class Split(cw.Layer):
    """Two inputs, two outputs."""

    supports_masking = True

    def call(self, inputs: Any) -> Any:
        return [inputs[0] + 1, inputs[1] + 1]


@pytest.fixture
def graph() -> Any:
    with cw.Graph() as opened:
        yield opened


def test_a_mask_is_made_kept_and_passed_on(graph: Any) -> None:
    x = cw.Input((None, None, 2))
    masking, scale = Masking(), Scale()
    masked = masking(x)
    out = scale(masked)
    assert masking.input_mask is None
    assert masking.output_mask is masked.mask
    assert scale.input_mask is scale.output_mask is masked.mask is out.mask
    assert scale.get_input_mask_at(0) is scale.get_output_mask_at(0) is masked.mask
    assert out.mask.shape == (None, None)
    values, mask = cw.Model(x, [out, out.mask])(X)
    assert mask.tolist() == [[True, False, True]]
    assert torch.equal(values, X * 2)


def test_masks_of_several_calls(graph: Any) -> None:
    plain, masked = cw.Input((None, None, 2)), Masking()(cw.Input((None, None, 2)))
    scale = Scale()
    scale(plain)
    scale(masked)
    assert scale.input_mask is None
    assert scale.get_output_mask_at(0) is None
    assert scale.get_input_mask_at(1) is scale.get_output_mask_at(1) is masked.mask


def test_masks_of_structures(graph: Any) -> None:
    masked, plain = Masking()(cw.Input((None, None, 2))), cw.Input((None, 2))
    layer = Split()
    first, second = layer([masked, plain])
    assert layer.input_mask[0] is masked.mask and layer.input_mask[1] is None
    assert layer.output_mask[0] is masked.mask and layer.output_mask[1] is None
    assert first.mask is masked.mask
    assert second.mask is None


def test_a_layer_without_masking_refuses_a_mask(graph: Any) -> None:
    """And nothing of the refused call is left in the graph."""
    masked = Masking()(cw.Input((None, None, 2)))
    nodes = len(graph.fx_graph.nodes)
    layer = cw.Layer()
    with pytest.raises(cw.ArgumentTypeError, match=r"^Layer\.compute_mask: expected no mask"):
        layer(masked)
    assert layer.inbound_nodes == []
    assert len(graph.fx_graph.nodes) == nodes


def test_cells_refuse_a_masked_input(graph: Any) -> None:
    masked = Masking()(cw.Input((None, 4)))
    with pytest.raises(TypeError, match="does not support masking"):
        cw.GRUCell(3)(masked, cw.Input((None, 3)))


def test_symbols_without_a_layer_have_no_mask(graph: Any) -> None:
    masked = Masking()(cw.Input((None, None, 2)))
    assert (masked * 2).mask is None


@pytest.mark.parametrize("make", [cw.Layer, lambda: cw.GRUCell(3), lambda: cw.DropoutWrapper(cw.GRUCell(3))])
class TestComputeMask:
    def test_no_mask(self, make: Any) -> None:
        assert make().compute_mask(X) is None
        assert make().compute_mask(X, None) is None
        assert make().compute_mask([X, X], [None, None]) is None

    @pytest.mark.parametrize("mask", [torch.ones(1), [None, torch.ones(1)], torch.tensor(False)], ids=str)
    def test_a_mask_is_an_error(self, make: Any, mask: Any) -> None:
        with pytest.raises(cw.ArgumentTypeError, match=r"compute_mask: expected no mask .*got one"):
            make().compute_mask(X, mask)


def test_compute_mask_of_a_layer_that_supports_it() -> None:
    mask = torch.tensor([True])
    assert Scale().compute_mask(X, mask) is mask
    assert Scale().compute_mask(X) is None
