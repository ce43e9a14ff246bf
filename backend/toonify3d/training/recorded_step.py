"""A whole stage I step as one CUDA graph: no host work and no read-back between its kernels.

On a GPU a step of the fast presets is some two hundred small kernels; launching them one by one
takes longer than running them (issue 3, "Speed"). PyTorch's whole-network capture records ray
gathering, rendering, losses, backward pass and Adam once and replays them with one call.

What may change between replays are tensors that the recording reads: the two scalars below, the
learning rates (``capturable`` Adam keeps them as tensors), parameters, guide and ray bank. What
changes the kernels themselves (see :class:`Shape`) needs a new recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from .data import RayBank
from .stage1_step import Losses, StepRenderer

Body = Callable[[], Losses]
# Takes a step's body, runs it once (that run counts as a step) and returns its losses with what
# replays it.
Recorder = Callable[[Body], tuple[Losses, Body]]


class Shape(NamedTuple):
    """What a recording is valid for.

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


class CudaRecorder:
    """Records with :class:`torch.cuda.CUDAGraph`.

    Args:
        generator: The random numbers of the step; a replay goes on where the last one ended.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def __call__(self, body: Body) -> tuple[Losses, Body]:
        """See :data:`Recorder`.

        Raises:
            torch.cuda.OutOfMemoryError: The step does not fit.
            RuntimeError: Something in the step cannot be recorded.
        """
        # A first run on a side stream: libraries make their handles, Warp loads its kernels and
        # the optimizer its moments, none of which may happen while recording.
        side = torch.cuda.Stream(self._generator.device)
        side.wait_stream(torch.cuda.current_stream(self._generator.device))
        with torch.cuda.stream(side):
            first = body()
        torch.cuda.current_stream(self._generator.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            losses = body()

        def replay() -> Losses:
            graph.replay()
            return losses

        return first, replay


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
        self._generator, self._recorder = generator, recorder
        self._inv_s = torch.ones((), device=generator.device)
        self._stereo = torch.zeros((), device=generator.device)
        self._shape: Shape | None = None
        self._replay: Body | None = None
        self.recordings = 0
        renderer.all_colors = True

    def forget(self) -> None:
        """Drop the recording: the optimizer's or the bank's tensors are other ones now."""
        self._shape = self._replay = None

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
        if self._replay is not None and shape == self._shape:
            return self._replay()
        self.forget()  # frees the old recording's memory first
        sharpness = inv_s if callable(inv_s) else lambda: self._inv_s
        losses, replay = self._recorder(lambda: self._body(shape, sharpness))
        self._shape, self._replay = shape, replay
        self.recordings += 1
        return losses

    def _body(self, shape: Shape, inv_s: Callable[[], torch.Tensor]) -> Losses:
        batch = self._bank.sample(shape.rays, self._generator)
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._renderer.losses(batch, inv_s(), self._stereo if shape.stereo else 0.0)
        losses.total.backward()
        self._optimizer.step()
        # Without the autograd graph: it would keep nodes of this stream alive into the next one.
        return Losses(*(value.detach() for value in losses))
