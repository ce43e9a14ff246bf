"""What a CUDA graph freezes in a training step, written down on a processor.

A recording repeats the same kernels with the same numbers, sizes and addresses. :class:`Tape` notes
all of them while a step runs, and refuses what would stall a GPU or cannot be recorded at all;
:class:`Repeater` stands in for the recorder and compares every replay with the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
import warp as wp
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

Result = TypeVar("Result")

# Operators that read a value back to the host, or whose result's size depends on values.
READING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::is_nonzero",
    "aten::equal",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::bincount",
    "aten::repeat_interleave",
    # What torch.tensor and torch.from_numpy end with: on a GPU a copy from the host.
    "aten::lift_fresh",
}
# Calls that leave the device without an operator, or that make a tensor on the default one.
LEAVING = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.item}
LEAVING |= {torch.Tensor.__float__, torch.Tensor.__bool__, torch.Tensor.__int__}
FACTORIES = {torch.rand, torch.randn, torch.randint, torch.zeros, torch.ones, torch.empty}
FACTORIES |= {torch.full, torch.arange, torch.linspace, torch.eye, torch.tensor, torch.randperm}


class OnDevice(TorchFunctionMode):
    """Fails where code leaves the device, or makes a tensor without saying on which one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func not in LEAVING, f"{func} reads back from the device"
        if func in FACTORIES:
            assert "device" in kwargs, f"{func.__name__} without a device"
        return func(*args, **kwargs)


class Tape(TorchDispatchMode):
    """Notes operators with numbers, sizes and the addresses of what was there before the step."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Any] = []
        self._made: dict[int, int] = {}
        self._kept: list[Any] = []  # an address is not used twice while its tensor lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().split(".")[0]
        if name.startswith("profiler::"):
            return func(*args, **kwargs)
        assert name not in READING, f"{name} reads back from the device"
        if name in ("aten::index", "aten::index_put_", "aten::index_put"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "a mask as an index"
        self.lines.append((func.name(), self._described(args), self._described(kwargs)))
        result = func(*args, **kwargs)
        tree_map(self._note, result)
        return result

    def launched(self, kernel: Any, dim: Any, inputs: list[Any]) -> None:
        """Note a launch of Warp."""
        described = [
            (*self._address(item.ptr), item.shape) if isinstance(item, wp.array) else item
            for item in inputs
        ]
        self.lines.append((kernel.key, dim, str(described)))

    def _described(self, value: Any) -> str:
        def one(item: Any) -> Any:
            if isinstance(item, torch.Tensor):
                place = self._address(item.untyped_storage().data_ptr())
                return (*place, tuple(item.shape), item.stride(), str(item.dtype))
            if isinstance(item, torch.Generator):
                return "generator"
            return item

        return repr(tree_map(one, value))

    def _address(self, pointer: int | None) -> tuple[str, int]:
        if pointer in self._made:
            return ("made", self._made[pointer])
        return ("given", pointer or 0)

    def _note(self, item: Any) -> None:
        if isinstance(item, torch.Tensor):
            self._kept.append(item)
            pointer = item.untyped_storage().data_ptr()
            self._made.setdefault(pointer, len(self._made))


def taped(body: Callable[[], Result]) -> tuple[Result, list[Any]]:
    """Run ``body`` and say what a recording of it would have frozen."""
    tape, launch = Tape(), wp.launch

    def noted(kernel: Any, dim: Any, inputs: Any = (), **rest: Any) -> Any:
        tape.launched(kernel, dim, list(inputs))
        return launch(kernel, dim, inputs=inputs, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wp, "launch", noted)
        with OnDevice(), tape:
            return body(), tape.lines


class Repeater:
    """Stands in for a GPU's recorder: replays by calling the body, which must not change.

    Attributes:
        replays: How many there were.
    """

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, body: Callable[[], Result]) -> tuple[Result, Callable[[], Result]]:
        frozen: list[Any] = []

        def replay() -> Result:
            self.replays += 1
            result, lines = taped(body)
            if not frozen:
                frozen.extend(lines)
            assert len(lines) == len(frozen), "another number of kernels"
            for now, then in zip(lines, frozen, strict=True):
                assert now == then, f"a replay would repeat {then} instead of {now}"
            return result

        return body(), replay
