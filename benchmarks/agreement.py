"""Does a contestant compute what it is timed for? Its results at a small size, against the float64 truth.

With random masks, and for what only cellweave.nn has, there is no common truth: those that draw the same streams are
compared with the stepwise cells, of the others the outputs must show about the right share of zeros.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from processes import ContestantError, Workers
from registry import ADDITIONS, BY_NAME, HALF, KEEP, OURS, OWN_BARE, Case, small

#: Largest difference, relative to the largest true value (at least one). Right ones show about 1e-6, wrong gates 1e-1.
TOLERANCE = 2e-5
#: Where inputs and weights are rounded to eight bits, and perhaps every sum.
HALF_TOLERANCE = 2e-2
#: TF1 draws the masks of several steps at once, in no fixed order, unless they are variational.
_SAME_STREAMS = {"variational": (OURS, "stepwise", "tf1"), "per-step": (OURS, "stepwise")}
_SAME_STREAMS |= dict.fromkeys(ADDITIONS, (OURS, "stepwise", "torch.nn"))
#: A layer that torch does not have is timed beside its nearest one, which computes something else.
STAND_INS = {("torch.nn", "gru_before"): "torch.nn.GRU, which resets after the product"}


class Agreement:
    """Checks each contestant once for each kind, mode and variation; what it found stays."""

    def __init__(self, workers: Workers, folder: Path) -> None:
        self._workers, self._folder = workers, folder
        self._truths: dict[Case, dict[str, Any]] = {}
        self._found: dict[tuple[str, Case], str | float] = {}

    def of(self, name: str, case: Case) -> float | None:
        """The largest relative difference; None where nothing can be compared.

        Raises:
            ContestantError: it failed, or its results are wrong.
        """
        if name in ("sgemm", "own products") or (name, case.kind) in STAND_INS:
            return None
        key = name, small(case)
        if key not in self._found:
            try:
                self._found[key] = self._check(*key)
            except ContestantError as error:
                self._found[key] = str(error)
        found = self._found[key]
        if isinstance(found, str):
            raise ContestantError(found)
        return found

    def _check(self, name: str, case: Case) -> float:
        results = self._results(name, case)
        if case.variation in _SAME_STREAMS and name != OWN_BARE:
            if name not in _SAME_STREAMS[case.variation]:
                return _share_of_zeros(name, results["outputs"])
            return worst_difference(name, results, self._results("stepwise", case))
        plain = replace(case, variation="bare") if name == OWN_BARE or case.variation == HALF else case
        if plain not in self._truths:
            file = self._file("truth")
            self._workers.ask("torch", do="truth", case=plain.as_dict(), file=str(file))
            self._truths[plain] = dict(np.load(file))
        return worst_difference(
            name, results, self._truths[plain], HALF_TOLERANCE if case.variation == HALF else TOLERANCE
        )

    def _results(self, name: str, case: Case) -> dict[str, Any]:
        contestant, file = BY_NAME[name], self._file("results")
        self._workers.ask(
            contestant.process, contestant.seconds_to_build,
            do="check", contestant=name, case=case.as_dict(), file=str(file),
        )  # fmt: skip
        return dict(np.load(file))

    def _file(self, what: str) -> Path:
        return self._folder / f"{what}.npz"


def worst_difference(name: str, results: dict[str, Any], truth: dict[str, Any], tolerance: float = TOLERANCE) -> float:
    """Over outputs and whatever gradients the results hold, relative to the truth's largest value or one.

    Raises:
        ContestantError: above the tolerance, not a number, or of another shape.
    """
    worst = 0.0
    for what, found in results.items():
        wanted = truth[what]
        if found.size != wanted.size:
            raise ContestantError(f"{name}: expected {what} {list(wanted.shape)}, got {list(found.shape)}.")
        difference = np.abs(found.reshape(wanted.shape).astype(np.float64) - wanted)
        relative = float(difference.max() / max(1.0, np.abs(wanted).max()))
        if not relative <= tolerance:  # NaN fails
            at = np.unravel_index(np.argmax(difference), difference.shape)
            raise ContestantError(
                f"{name}: expected {what} {list(map(int, at))} = {wanted[at]:.7g}, "
                f"got {found.reshape(wanted.shape)[at]:.7g}. It computes something else."
            )
        worst = max(worst, relative)
    return worst


def _share_of_zeros(name: str, outputs: Any) -> float:
    share = float((outputs == 0).mean())
    if not 0.02 <= share <= 0.6:  # 1 - KEEP, of few draws
        raise ContestantError(f"{name}: expected about {1 - KEEP:.0%} of zeros among masked outputs, got {share:.0%}.")
    return 0.0
