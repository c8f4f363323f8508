"""Windows: rows side by side, each on from where it stopped."""

from __future__ import annotations

import pytest
import torch

from cellweave.training._windows import TextWindows


def test_rows_are_contiguous_and_targets_are_one_ahead():
    windows = TextWindows(torch.arange(25, dtype=torch.int32), rows=2, time=5)
    assert (windows.rows, windows.full_windows, windows.all_windows) == (2, 2, 3)
    inputs, targets = windows.window(0)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.t().tolist() == [[0, 1, 2, 3, 4], [12, 13, 14, 15, 16]]
    assert torch.equal(targets, inputs + 1)


@pytest.mark.parametrize("count, rows, time", [(25, 2, 5), (26, 2, 5), (31, 3, 5), (100, 7, 3), (8, 7, 3), (2, 1, 9)])
def test_all_windows_together_give_each_row_once(count, rows, time):
    windows = TextWindows(torch.arange(count), rows, time)
    pairs = [windows.window(index) for index in range(windows.all_windows)]
    inputs, targets = (torch.cat(part).t() for part in zip(*pairs, strict=True))
    length = (count - 1) // rows
    assert inputs.tolist() == [list(range(row * length, (row + 1) * length)) for row in range(rows)]
    assert torch.equal(targets, inputs + 1)


def test_a_short_text_gets_fewer_rows():
    assert TextWindows(torch.arange(4), rows=8, time=2).rows == 3
