"""Compiling kernels for a GPU that is not there, and what can be read off the result."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cellweave.ops.common import BoundMask, LayerCall
from cellweave.ops.common._triton_autograd import with_products
from cellweave.ops.common._triton_launch import Launch
from cellweave.ops.common._triton_steps import Step
from cellweave.specs import MaskSpec, RunSpec

#: NVIDIA Hopper: H100, H200.
HOPPER = GPUTarget("cuda", 90, 32)
_TYPES = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32",
    torch.int64: "*i64", torch.uint8: "*u8",
}  # fmt: skip
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Compiled:
    """A kernel for sm_90.

    Attributes:
        shared: Bytes of shared memory of a program.
        registers, spilled: Registers of a thread, and bytes that it keeps in memory for want of more.
        ttgir: Triton's last own form, where loops and shared memory can be told apart.
        ptx: What the assembler was given.
        cubin: What it made of it.
    """

    shared: int
    registers: int
    spilled: int
    ttgir: str
    ptx: str
    cubin: bytes

    @functools.cached_property
    def sass(self) -> str:
        """The machine code as text, which takes most of a second."""
        return _tool("cuobjdump", self.cubin, "-sass")

    def weights_stay(self) -> bool:
        """All that is loaded before the time loop into shared memory is read in it, and nothing of that size is again.

        Shared memory is told apart by its shapes: a weight's tile is allocated before the loop only.
        """
        before, loop = self.ttgir.split("scf.for", 1)
        allocated = re.compile(r"ttg\.local_alloc .*-> !ttg\.memdesc<([0-9x]+)x\w+, (#\w+)")
        used = re.compile(r"(?:local_load|warp_group_dot|memdesc_trans|tt\.dot) .*memdesc<([0-9x]+)x\w+, (#\w+)")
        weights = set(allocated.findall(before))
        return bool(weights) and not weights & set(allocated.findall(loop)) and weights <= set(used.findall(loop))

    def narrow_offsets(self) -> list[str]:
        """What is added to pointers in 32 bits and is neither a constant nor a number of the tile's columns."""
        made = dict(re.findall(r"(%\w+) = (.*)", self.ttgir))
        added = re.findall(r"tt\.addptr %\w+, (%\w+) : [^:]*?, (?:tensor<\d+x\d+xi32|i32)", self.ttgir)
        known = re.compile(r"arith\.constant|tt\.(broadcast|expand_dims) .*tensor<1x\d+xi32")
        return [made.get(offset, offset) for offset in added if not known.match(made.get(offset, ""))]

    def bounds_lose_nan(self) -> bool:
        """It has one of the GPU's plain minimums and maximums, which give the other number where one is NaN."""
        return re.search(r"\b(min|max)\.(ftz\.)?(f32|f16|bf16)", self.ptx) is not None

    def reads_before_it_overwrites(self, read: str, overwritten: str) -> bool:
        """All warps of a program have met between its last load by one parameter and its first store by another."""
        names, steps = {name: name for name in (read, overwritten)}, []
        for line in self.ttgir.splitlines():
            made = re.match(r"\s*(%\w+) = tt\.(?:splat|addptr|broadcast) %(\w+)", line)
            if made and made[2] in names:
                names[made[1][1:]] = names[made[2]]
            found = re.search(r"tt\.(load|store) %(\w+)", line)
            if found and names.get(found[2]) == {"load": read, "store": overwritten}[found[1]]:
                steps.append(found[1])
            elif "ttg.barrier" in line or "gpu.barrier" in line:
                steps.append("meet")
        first = steps.index("store")
        return "load" not in steps[first:] and "meet" in steps[first - steps[:first][::-1].index("load") : first]

    def count(self, instruction: str) -> int:
        """How often an instruction stands in the machine code."""
        return len(re.findall(rf"\b{instruction}\b", self.sass))


def compile_launch(launch: Launch) -> Compiled:
    """Compile what a launch would run."""
    function = launch.function()
    signature, constants, attributes = {}, {}, {}
    for number, (parameter, value) in enumerate(zip(function.params, launch.values(), strict=True)):
        value = 0 if parameter.name == "SPINS" else value  # as on a device
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[(number,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = _TYPES[value.dtype]
            # torch's memory starts at such addresses, and the launcher tells the compiler so
            attributes[(number,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(function, signature, constants, attributes)
    found = triton.compile(source, target=HOPPER, options=launch.options)
    usage = _tool("cuobjdump", found.asm["cubin"], "--dump-resource-usage")
    numbers = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    spilled, asm = max(numbers["STACK"], numbers["LOCAL"]), found.asm
    return Compiled(found.metadata.shared, numbers["REG"], spilled, asm["ttgir"], asm["ptx"], asm["cubin"])


def _tool(name: str, cubin: bytes, *arguments: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_TOOLS / name), *arguments, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


#: Bytes of shared memory that a program on Hopper may use.
SHARED = 227 << 10


def plain_call(
    spec: Any, steps: int, rows: int, dtype: torch.dtype, *, masks: str = "", lengths: bool = False,
    resets: bool = False, reverse: bool = False, states: bool = False,
) -> LayerCall:  # fmt: skip
    """A call of some sizes whose numbers nobody reads; masks such as "h:rows c:step h:gates"."""
    depth, kinds = 16, [word.split(":") for word in masks.split()]
    specs = tuple(
        MaskSpec(place, kind == "step", kind in ("rows", "gates"), per_gate=kind == "gates")  # type: ignore[arg-type]
        for place, kind in kinds
    )
    size = spec.state_size
    state = tuple(torch.zeros(rows, n, dtype=dtype) for n in ((size,) if isinstance(size, int) else size))
    return LayerCall(
        RunSpec(spec, specs, lengths=lengths, resets=resets, reverse=reverse, all_states=states),
        torch.zeros(steps, rows, depth, dtype=dtype), state,
        {weight.name: torch.zeros(weight.shape, dtype=dtype) for weight in spec.weights(depth)},
        tuple(BoundMask(mask, 0.5, True, 1, 2, 3, 4 if mask.per_step else 0) for mask in specs),
        torch.full((rows,), steps, dtype=torch.int32) if lengths else None,
        torch.zeros(steps, rows, dtype=torch.bool) if resets else None, state if resets else None,
    )  # fmt: skip


def compiled_pair(loop: Any, tensors: list[Any]) -> list[tuple[Compiled, Any]]:
    """A loop's forward and backward kernels with their schedules."""
    dense = with_products(loop, [None if tensor is None else tensor.contiguous() for tensor in tensors])
    forward, results, saved = loop.forward_launch(dense, save=True)
    backward, _ = loop.backward_launch(dense, saved, results)
    return [(compile_launch(forward), loop.schedules[0]), (compile_launch(backward), loop.schedules[1])]


def compiled_steps(loop: Any, tensors: list[Any], *, gates: bool) -> list[tuple[str, Compiled]]:
    """The kernels that a loop launches at its steps, forward and backward, with their names; keeping gates, or not."""
    dense = with_products(loop, [None if tensor is None else tensor.contiguous() for tensor in tensors])
    launches: dict[Any, Launch] = {}

    def note(kernel: Step, number: int = 0) -> None:
        launches[kernel.launch.kernel, kernel.launch.arguments.get("WIDTH")] = kernel.launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", note)
        results, saved = loop.forward(dense, save=True, gates=gates)
        loop.backward(dense, saved, [result.contiguous() for result in results])
    return [(name, compile_launch(launch)) for (name, _), launch in launches.items()]
