"""Whole optimizer steps as CUDA graphs: no host work and no read-back between their kernels.

On a GPU a step of the fast presets is some two hundred small kernels; launching them one by one
takes longer than running them (issue 3, "Speed"). PyTorch's whole-network capture records ray
gathering, rendering, losses, backward pass and Adam once and replays them with one call.

What may change between replays are tensors that the recording reads: scheduled scalars, the
learning rates (``capturable`` Adam keeps them as tensors), parameters, grids and ray banks; all of
them are written in place. What changes the kernels themselves needs another recording: a number in
Python, a size, a flag, a tensor that another one has taken the place of.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch

from .data import RayBank
from .stage1_step import Losses, StepRenderer

Result = TypeVar("Result")


class Recorder(Protocol):
    """Takes a step's body, runs it once (that run counts as a step) and makes it replayable."""

    def __call__(self, body: Callable[[], Result]) -> tuple[Result, Callable[[], Result]]:
        """The first run's result and what replays the body; a replay overwrites its result."""


class CudaRecorder:
    """Records with :class:`torch.cuda.CUDAGraph`.

    Args:
        device: The GPU.
        generators: Random numbers of the step; a replay goes on where the last one ended.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._device, self._generators = device, generators
        self._side: torch.cuda.Stream | None = None

    def __call__(self, body: Callable[[], Result]) -> tuple[Result, Callable[[], Result]]:
        """See :class:`Recorder`.

        Raises:
            torch.cuda.OutOfMemoryError: The step does not fit.
            RuntimeError: Something in the step cannot be recorded.
        """
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)
        side = self._side
        # A first run on a side stream: libraries make their handles, Warp loads its kernels and
        # the optimizer its moments, none of which may happen while recording. The recording uses
        # the same stream: autograd's nodes and cuBLAS's handles remember the one they were made on.
        here = torch.cuda.current_stream(self._device)
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):
                first = body()
        finally:
            here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=side):
                result = body()
        except RuntimeError as error:
            lacking = _lack_of_memory(error)
            if lacking is not None and lacking is not error:
                # Ending a broken recording raises as well and hides why it broke.
                raise lacking from error
            raise

        def replay() -> Result:
            graph.replay()
            return result

        return first, replay


def _lack_of_memory(error: BaseException | None) -> torch.cuda.OutOfMemoryError | None:
    """The lack of memory that ``error`` was, or that it was raised while handling."""
    while error is not None:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return error
        error = error.__context__
    return None


class Recordings:
    """Recordings of steps, by what their kernels depend on.

    Args:
        recorder: How to record.
        most: Recordings kept at a time; each holds the memory of a whole step.

    Attributes:
        made: How many have been made.
    """

    def __init__(self, recorder: Recorder, most: int = 1) -> None:
        self._recorder, self._most = recorder, most
        self._replays: dict[Hashable, Callable[[], object]] = {}
        self.made = 0

    def forget(self) -> None:
        """Drop all recordings: tensors that they read are other ones now, or memory is short."""
        self._replays.clear()

    def run(self, key: Hashable, body: Callable[[], Result]) -> Result:
        """One step, recorded the first time that ``key`` comes and replayed after.

        Args:
            key: Everything but tensors that the kernels depend on.
            body: The step; gradients must be made in it, and nothing it reads may be replaced.

        Returns:
            What ``body`` returned; the next step overwrites it.
        """
        replay = self._replays.get(key)
        if replay is not None:
            return replay()  # type: ignore[return-value]
        while len(self._replays) >= self._most:
            # The oldest goes, and its memory with it, before the new one needs some.
            del self._replays[next(iter(self._replays))]
        result, self._replays[key] = self._recorder(body)
        self.made += 1
        return result


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Have Adam keep its learning rates and step counts where a recording can read them."""
    for group in optimizer.param_groups:
        group["capturable"] = True
        if not isinstance(group["lr"], torch.Tensor):
            group["lr"] = torch.tensor(float(group["lr"]), device=device)


def set_rate(group: dict[str, object], rate: float) -> None:
    """Change a parameter group's learning rate, in place where a recording reads it."""
    current = group["lr"]
    if isinstance(current, torch.Tensor):
        current.fill_(rate)
    else:
        group["lr"] = rate


class Shape(NamedTuple):
    """What a recording of stage I is valid for.

    Attributes:
        rays: Rays of the batch.
        levels: Active levels of the grid.
        view_strength: How much colours depend on the view direction.
        stereo: Whether the stereo terms are computed.
    """

    rays: int
    levels: int
    view_strength: float
    stereo: bool


class RecordedStep:
    """Runs stage I steps from recordings.

    Args:
        bank: Rays.
        renderer: Losses of a batch; from now on it evaluates every sample's colour, because how
            many of them weigh something is only known on the device.
        optimizer: Steps all parameters; its learning rates must be tensors.
        generator: The step's random numbers.
        recorder: How to record.
    """

    def __init__(
        self,
        bank: RayBank,
        renderer: StepRenderer,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        recorder: Recorder,
    ) -> None:
        self._bank, self._renderer, self._optimizer = bank, renderer, optimizer
        self._generator = generator
        self._inv_s = torch.ones((), device=generator.device)
        self._stereo = torch.zeros((), device=generator.device)
        self.recordings = Recordings(recorder)
        renderer.all_colors = True

    def run(self, shape: Shape, inv_s: Callable[[], torch.Tensor] | float, stereo: float) -> Losses:
        """One optimizer step, recorded at first and replayed after.

        Args:
            shape: What the kernels depend on.
            inv_s: Sharpness: a number, or what computes it from parameters within the step.
            stereo: Weight of the stereo terms; not 0 when ``shape`` has them.

        Returns:
            The losses; the next call overwrites them.
        """
        if not callable(inv_s):
            self._inv_s.fill_(inv_s)
        self._stereo.fill_(stereo)
        sharpness = inv_s if callable(inv_s) else lambda: self._inv_s
        return self.recordings.run(shape, lambda: self._body(shape, sharpness))

    def _body(self, shape: Shape, inv_s: Callable[[], torch.Tensor]) -> Losses:
        batch = self._bank.sample(shape.rays, self._generator)
        # Replays write the gradients anew instead of adding to them, because they were recorded
        # as new ones.
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._renderer.losses(batch, inv_s(), self._stereo if shape.stereo else 0.0)
        losses.total.backward()
        self._optimizer.step()
        # Without the autograd graph: it would keep nodes of this stream alive into the next one.
        return Losses(*(value.detach() for value in losses))
