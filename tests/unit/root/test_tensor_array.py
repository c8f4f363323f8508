"""TensorArray."""

from __future__ import annotations

import pytest
import torch

import cellweave as cw


def test_write_returns_a_new_array() -> None:
    empty = cw.TensorArray()
    one = empty.write(0, torch.ones(2))
    two = one.write(1, torch.zeros(2))
    assert (empty.size(), one.size(), two.size()) == (0, 1, 2)
    assert torch.equal(two.read(0), torch.ones(2))
    assert torch.equal(two.stack(), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_writing_again_replaces() -> None:
    first = cw.TensorArray().write(0, torch.ones(2))
    second = first.write(0, torch.zeros(2))
    assert first.read(0).sum() == 2
    assert second.read(0).sum() == 0


def test_holes_cannot_be_read() -> None:
    array = cw.TensorArray().write(2, torch.ones(1))
    assert array.size() == 3
    for act in (lambda: array.read(0), array.stack):
        with pytest.raises(cw.ArgumentError, match=r"TensorArray\..*expected .*got "):
            act()
    full = array.write(0, torch.zeros(1)).write(1, torch.zeros(1))
    assert full.stack().tolist() == [[0.0], [0.0], [1.0]]


def test_a_fixed_size_stays() -> None:
    array = cw.TensorArray("float32", size=2, dynamic_size=False)
    assert array.size() == 2
    with pytest.raises(cw.ArgumentError, match=r"0\.\.1, got 2"):
        array.write(2, torch.ones(1))
    with pytest.raises(cw.ArgumentError, match="got 2"):
        array.write(0, torch.ones(1)).write(2, torch.ones(1))  # its copies are fixed, too


def test_other_arguments_of_tf1_change_nothing() -> None:
    plain = cw.TensorArray("float32", 2, False, False, "steps")
    named = cw.TensorArray(
        dtype="float32", size=2, dynamic_size=False, clear_after_read=True, infer_shape=False, element_shape=[1],
        colocate_with_first_write_call=False, name="steps",
    )  # fmt: skip
    for array in (plain, named):
        both = array.write(0, torch.ones(1)).write(1, torch.zeros(1))
        assert both.read(0) == both.read(0) and both.stack().tolist() == [[1.0], [0.0]]
    assert cw.TensorArray(size=None).size() == 0


@pytest.mark.parametrize("index", [-1, 3])
def test_indices_outside(index: int) -> None:
    array = cw.TensorArray().unstack(torch.ones(3, 2))
    with pytest.raises(cw.ArgumentError, match=rf"got {index}"):
        array.read(index)
    if index < 0:
        with pytest.raises(cw.ArgumentError, match=rf"got {index}"):
            array.write(index, torch.ones(2))


def test_unstack_and_stack_are_inverse() -> None:
    value = torch.arange(6.0).reshape(3, 2)
    array = cw.TensorArray(torch.float32).unstack(value)
    assert array.size() == 3
    assert torch.equal(array.read(1), value[1])
    assert torch.equal(array.stack(), value)
    assert array.dtype is torch.float32


def test_what_cannot_be_stacked() -> None:
    with pytest.raises(cw.ArgumentError, match="got 0"):
        cw.TensorArray().stack()
    with pytest.raises(cw.ShapeError, match="scalar"):
        cw.TensorArray().unstack(torch.tensor(1.0))
    with pytest.raises(cw.ShapeError, match=r"stack: expected entries of one shape, got \[2\] and \[3\]"):
        cw.TensorArray().write(0, torch.ones(2)).write(1, torch.ones(3)).stack()
    with pytest.raises(cw.ArgumentError, match="got -1"):
        cw.TensorArray(size=-1)


def test_gradients_flow_through_entries() -> None:
    leaf = torch.ones(2, requires_grad=True)
    array = cw.TensorArray().write(0, leaf * 2).write(1, leaf * 3)
    array.stack().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [5.0, 5.0]
