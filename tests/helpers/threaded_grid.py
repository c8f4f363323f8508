"""Triton's interpreter with a thread for each program, so that programs can wait for each other.

The interpreter runs the programs of a launch one after another: one that waits for a later one would wait forever. This
file knows private parts of Triton (3.7 and 3.9 have them) and stands alone for that.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import triton.language as tl
from triton.runtime import interpreter

#: Seconds between two looks at a counter.
_PAUSE = 0.002


class _ProgramIndex(threading.local):
    """The program that a thread is."""

    value: tuple[int, int, int] | None = None


class _Kept:
    """What was patched stays until the end of the block."""

    def restore(self) -> None:
        """Nothing yet."""


@contextmanager
def programs_at_once() -> Iterator[None]:
    """Inside the block all programs of an interpreted launch run at once."""
    index = _ProgramIndex()
    builder = type(interpreter.interpreter_builder)

    def of_thread(self: Any) -> Any:
        return index.value

    def set_index(self: Any, value: Any) -> None:
        index.value = value

    def launch(self: Any, *given: Any, **named: Any) -> None:
        known = inspect.getfullargspec(self.fn)
        named = {k: v for k, v in named.items() if k in known.args or k in known.kwonlyargs}
        given, named = self._init_args_hst(given, named)
        interpreter._patch_lang(self.fn)
        arguments = inspect.getcallargs(self.fn, *given, **named)
        arguments = {
            name: value if name in self.constexprs else interpreter._implicit_cvt(value)
            for name, value in arguments.items()
        }
        _run_programs(self.fn, arguments, *self.grid)

    def _run_programs(function: Any, arguments: dict[str, Any], count: int) -> None:
        errors: list[Exception] = []
        interpreter.interpreter_builder.set_grid_dim(count, 1, 1)
        index.value = (0, 0, 0)

        def program(number: int) -> None:
            index.value = (number, 0, 0)
            try:
                function(**arguments)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is raised again below)
                errors.append(error)

        if count == 1:  # nobody to wait for
            function(**arguments)
            return
        threads = [threading.Thread(target=program, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    scopes: dict[str, Any] = {}
    lock, patch_language = threading.Lock(), interpreter._patch_lang

    def patch_once(function: Any) -> _Kept:
        # The interpreter does it anew at each call of a device function, which takes a quarter of its time.
        with lock:
            module = function.__globals__["__name__"]
            if module not in scopes:
                scopes[module] = patch_language(function)
        return _Kept()

    atomic = builder.create_atomic_rmw

    def patient_atomic(self: Any, *given: Any) -> Any:
        found = atomic(self, *given)
        time.sleep(_PAUSE)  # a program that waits lets the others run
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", patch_once)
        patch.setattr(builder, "create_atomic_rmw", patient_atomic)
        patch.setattr(builder, "grid_idx", property(of_thread, set_index), raising=False)
        patch.setattr(interpreter.GridExecutor, "__call__", launch)
        _remember_types(patch)
        try:
            yield
        finally:
            for scope in reversed(scopes.values()):
                scope.restore()


def _remember_types(patch: pytest.MonkeyPatch) -> None:
    """Describe a type of tiles once: doing so for every value takes a third of the interpreter's time."""
    new_tensor, new_block, find_dtype = tl.tensor.__init__, tl.block_type.__init__, interpreter._get_np_dtype
    shapes: dict[str, tuple[Any, Any]] = {}
    blocks: dict[tuple[Any, ...], dict[str, Any]] = {}
    dtypes: dict[str, Any] = {}

    def tensor(self: Any, handle: Any, type: Any) -> None:  # noqa: A002 (Triton's name)
        if type.name not in shapes:
            new_tensor(self, handle, type)
            shapes[type.name] = self.numel, self.shape
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.numel, self.shape = shapes[type.name]

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = (element_ty.name, *[getattr(size, "value", size) for size in shape])
        if key not in blocks:
            new_block(self, element_ty, shape)
            blocks[key] = dict(self.__dict__)
        self.__dict__.update(blocks[key])

    def get_np_dtype(tt_dtype: Any) -> Any:
        if tt_dtype.name not in dtypes:
            dtypes[tt_dtype.name] = find_dtype(tt_dtype)
        return dtypes[tt_dtype.name]

    patch.setattr(tl.tensor, "__init__", tensor)
    patch.setattr(tl.block_type, "__init__", block_type)
    patch.setattr(interpreter, "_get_np_dtype", get_np_dtype)
