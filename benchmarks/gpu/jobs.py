"""The process that does the work: a line of JSON asks for one result, a line of JSON answers.

`python -m gpu.jobs cuda` is started by run_gpu.py, which ends it when an answer does not come, and starts it anew.
"""

from __future__ import annotations

import gc
import importlib
import platform
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from worker import serve

import cellweave as cw
from cellweave.ops.common._triton_backend import missing_reason
from gpu import loops
from gpu.calibration import calibrate
from gpu.clock import Clock
from gpu.correctness import check
from gpu.layers import Work, dtype_of, layer, set_precision, work_of
from gpu.plan import COMPILED_LOOP, CUDNN, EAGER_LOOP, PLANS, TRITON, GpuCase
from gpu.timing import attempt, compare

_WARM_STEPS = 2
#: Whose kernels are looked at: it takes as long as timing them.
_PROFILED = (CUDNN, TRITON)


class Jobs:
    """Answers requests on one device."""

    def __init__(self, device: str) -> None:
        self._clock, self._plan = Clock(device), PLANS[device]
        gc.freeze()  # what libraries made is looked at no more: collecting would take a tenth of a second each time

    def hello(self) -> dict[str, Any]:
        """Device and versions."""
        on_cuda = self._clock.device == "cuda"
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if on_cuda else "none: the processor, as a trial",
            "versions": {
                "python": platform.python_version(), "cellweave": cw.__version__, "torch": torch.__version__,
                "triton": None if missing_reason() else importlib.import_module("triton").__version__,
                "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if on_cuda else None,
            },
        }  # fmt: skip
        if on_cuda:
            device: Any = torch.cuda.get_device_properties(0)
            found["processors"], found["gib"] = device.multi_processor_count, device.total_memory / 2**30
            found["capability"] = f"{device.major}.{device.minor}"
        return found

    def warm(self, name: str, case: dict[str, Any]) -> dict[str, Any]:
        """Compile what a contestant runs, by two steps of it; later processes find it on the disk."""
        short = GpuCase(**case).of_steps(_WARM_STEPS)
        set_precision(short.dtype)
        if name == COMPILED_LOOP:
            loops.compiled_loop(short, self._clock.device)
        else:
            self._work(name, short).call(0)
        self._clock.synchronize()
        return {}

    def calibrate(self, what: str) -> dict[str, Any]:
        return calibrate(what, self._clock, self._plan.scale)

    def check(self, name: str, case: dict[str, Any], seed: int) -> dict[str, Any]:
        """Whether a kernel of ours is right."""
        return check(GpuCase(**case), name, self._clock, self._plan, seed)

    def time(self, names: list[str], case: dict[str, Any]) -> dict[str, Any]:
        """Times of contestants that take turns."""
        given = GpuCase(**case)
        set_precision(given.dtype)
        makers: dict[str, Callable[[], Work]] = {name: partial(self._work, name, given) for name in names}
        found = compare(makers, self._clock, self._plan, _PROFILED)
        if EAGER_LOOP in names:
            found[EAGER_LOOP]["steps"] = loops.eager_steps(given)
        return {"contestants": found}

    def _work(self, name: str, case: GpuCase) -> Work:
        device = self._clock.device
        if name == EAGER_LOOP:
            return loops.eager_loop(case, device)
        if name == COMPILED_LOOP:
            return loops.compiled_loop(case, device)
        return work_of(layer(name, case, device, dtype_of(case)), case, device)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request, or its error; an error that the device does not survive ends the process."""
        act: Callable[..., dict[str, Any]] = getattr(self, request.pop("do"))
        found, error = attempt(lambda: act(**request))
        gc.collect()
        _, lost = attempt(self._clock.synchronize)
        if lost is not None:
            raise SystemExit(f"the device does not answer any more: {error or lost}")
        return {"error": error} if error is not None else found


if __name__ == "__main__":
    serve(Jobs(sys.argv[1]).answer)
