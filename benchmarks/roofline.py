"""Roofline of a training step of stage I: closed-form FLOPs and bytes over measured rates.

``benchmarks/speed.py`` prints it. For every part of a step that can be timed apart (encoder, layers
of F_geo and F_app, Adam) it gives the seconds, the FLOPs and bytes counted from the settings, and
which share of the measured matmul rate and of the measured copy bandwidth they reach. The greater
of the two is how near a part is to its roofline (Williams et al. 2009), and says whether arithmetic
or memory bounds it.

Assumptions:

* float32; a multiply-add is two FLOPs; comparisons, integer hashing and index arithmetic are none.
* Backward costs a layer two more products of the same size (gradients of input and weights), so
  training costs three. F_geo's normal is a chain of products back through its hidden layers, which
  are trained as well: three more for each of them (``GeometryField.evaluate``).
* Operators are not fused: every product reads its operands and writes its result to memory, and
  element-wise operators do so with the arrays that ``RELU_ARRAYS`` and its like count.
* The grid reads all eight corners of a cell anew for every point and level (no reuse), adds to the
  same eight when backward (read and written), reads or writes features and Jacobian once a
  direction, and clears its gradient table. The hashing's cost is in the time, not in the count.
* Adam reads parameter, gradient and two moments and writes back all but the gradient, for every
  entry of the table whether a point touched it or not (it is not sparse).
* Bandwidth is that of copying 128 MiB, that is of memory. The tables and most activations of a step
  fit into the L2 and L3 caches, whose rate is higher: **shares of the copy bandwidth above 1 are
  possible and mean that caches serve**.
* ``rest`` is the step less its timed parts: drawing rays, the guide, sampling, accumulating,
  losses. Its work is not counted. On a GPU the whole step is a recorded graph and colours every
  sample, its parts are not, so that the rest says little there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.snr.encoding import Encoding, HashEncoding
from toonify3d.snr.fields import FieldSettings, SurfaceSample
from toonify3d.snr.prior import Prior
from toonify3d.training.schedule import sharpness
from toonify3d.training.settings import PriorSettings
from toonify3d.training.stage1 import PriorTrainer
from toonify3d.training.stage1_step import free_points

FLOAT = 4
"""Bytes of a number."""
# Arrays (points x width) that a ReLU reads and writes: input and output forward; gradient, output
# and result backward.
RELU_ARRAYS = 5
# The same for the factor "slope of the ReLU" in the chain that makes the normal: output read, slope
# written, read, product written; backward gradient and slope read, product written and summed.
SLOPE_ARRAYS = 8
# Arrays (points x features x 3) of the chain's last link, the grid's Jacobian: forward Jacobian
# read, product written and summed; backward Jacobian read, product written and summed, gradient of
# the Jacobian written.
JACOBIAN_ARRAYS = 7
# FLOPs of the kernels in snr/warp_grid.py per point, level and feature.
ENCODE_FLOPS, SCATTER_FLOPS = 36, 40
# Adam per parameter: two moving means (3 + 4), the denominator (3), the update (3).
ADAM_FLOPS, ADAM_ARRAYS = 13, 7


@dataclass(frozen=True)
class Work:
    """What something costs.

    Attributes:
        flops: Floating-point operations.
        bytes: Bytes read and written.
    """

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


class Timing(Protocol):
    """What times a function: :class:`field_speed.Meter`."""

    device: torch.device

    def add(self, name: str, work: Any, points: int) -> float:
        """Microseconds per point."""


NOTHING = Work(0.0, 0.0)


def trained_product(points: int, inputs: int, outputs: int) -> Work:
    """``(points, inputs) @ (inputs, outputs)`` and both its gradients."""
    arrays = points * (inputs + outputs) + inputs * outputs
    return Work(3 * 2.0 * points * inputs * outputs, 3.0 * FLOAT * arrays)


def geometry_work(fields: FieldSettings, encoded: int, points: int) -> Work:
    """F_geo's layers (without its encoding) with normals, forward and backward.

    Args:
        fields: Architecture: a grid, one or more ReLU layers, no skip connection.
        encoded: Features of the encoding; the position's three numbers come on top.
        points: How many.
    """
    width, hidden = fields.geometry_width, fields.geometry_layers
    sizes = [encoded + 3, *[width] * hidden, 1 + fields.features]
    pairs = list(itertools.pairwise(sizes))
    work = sum((trained_product(points, *pair) for pair in pairs), NOTHING)
    work += sum((trained_product(points, b, a) for a, b in pairs[:-1]), NOTHING)
    arrays = hidden * width * (RELU_ARRAYS + SLOPE_ARRAYS) + JACOBIAN_ARRAYS * 3 * encoded
    flops = hidden * width * 4 + 6 * 3 * encoded
    return work + Work(float(points * flops), float(FLOAT * points * arrays))


def appearance_work(sizes: list[int], points: int) -> Work:
    """F_app's layers ``sizes`` (input, hidden, 3) with ReLU between, forward and backward."""
    work = sum((trained_product(points, a, b) for a, b in itertools.pairwise(sizes)), NOTHING)
    hidden = sum(sizes[1:-1])
    return work + Work(2.0 * points * hidden, float(FLOAT * points * hidden * RELU_ARRAYS))


def encoder_work(levels: int, features: int, entries: int, points: int) -> Work:
    """The grid's features and Jacobian, and the scatter into its gradient table.

    Args:
        levels: Active levels.
        features: Per level.
        entries: Rows of the table.
        points: How many.
    """
    cells = points * levels * features
    corners = FLOAT * 8 * cells
    outputs = FLOAT * 4 * cells  # a feature and its three derivatives
    position = 2 * FLOAT * 3 * points * levels
    total = corners + 2 * corners + 2 * outputs + position + FLOAT * entries * features
    return Work(float(cells * (ENCODE_FLOPS + SCATTER_FLOPS)), float(total))


def adam_work(parameters: int) -> Work:
    """One step of Adam."""
    return Work(float(ADAM_FLOPS * parameters), float(FLOAT * ADAM_ARRAYS * parameters))


class FixedEncoding(Encoding):
    """Answers always the same, so that the layers behind it can be timed alone."""

    def __init__(self, features: Tensor, jacobian: Tensor) -> None:
        super().__init__()
        self.width = features.shape[1]
        self._given = (features, jacobian)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._given


@dataclass
class Batch:
    """One step's points.

    Attributes:
        points: All that F_geo is asked for, ``(N, 3)``.
        colored: Rows of those whose weight earns them a colour.
        directions: Of the latter ``(M, 3)``.
    """

    points: Tensor
    colored: Tensor
    directions: Tensor


def draw(trainer: PriorTrainer) -> Batch:
    """The points of one step without stereo (as after its fade)."""
    settings, renderer = trainer.settings, trainer.renderer
    batch = trainer.bank.sample(settings.rays, trainer.generator)
    inv_s = sharpness(trainer.step, settings)
    with torch.no_grad():
        samples = renderer._samples(batch.origins, batch.directions, inv_s)
        points = batch.origins[:, None] + batch.directions[:, None] * samples.distance[..., None]
        flat = points.reshape(-1, 3)
        surface = trainer.prior.evaluate(flat)
        weights = renderer._render(points, batch.directions, surface, samples, inv_s).weights
    colored = (weights.reshape(-1) > settings.color_threshold).nonzero()[:, 0]
    free = free_points(settings.free_points, flat.device, trainer.generator)
    along = batch.directions.repeat_interleave(settings.samples, dim=0)[colored]
    return Batch(torch.cat([flat, free]), colored, along)


def time_encoder(meter: Timing, encoding: HashEncoding, x: Tensor) -> float:
    """Seconds of features, Jacobian and scatter."""
    features, jacobian = encoding(x)
    gradients = [torch.rand_like(features), torch.rand_like(jacobian)]

    def work() -> None:
        encoding.table.grad = None
        torch.autograd.backward(list(encoding(x)), gradients)

    return 1e-6 * len(x) * meter.add("step: encoder, forward and backward", work, len(x))


def time_geometry(meter: Timing, prior: Prior, x: Tensor) -> float:
    """Seconds of F_geo's layers."""
    own = prior.geometry.encoding
    with torch.no_grad():
        answers = own(x)
    given = [answer.clone().requires_grad_(True) for answer in answers]
    prior.geometry.encoding = FixedEncoding(given[0], given[1])
    gradients = [torch.rand_like(value) for value in prior.evaluate(x)]

    def work() -> None:
        prior.zero_grad(set_to_none=True)
        given[0].grad = given[1].grad = None
        torch.autograd.backward(list(prior.evaluate(x)), gradients)

    try:
        name = "step: layers of F_geo, forward and backward"
        return 1e-6 * len(x) * meter.add(name, work, len(x))
    finally:
        prior.geometry.encoding = own


def time_appearance(meter: Timing, prior: Prior, batch: Batch) -> float:
    """Seconds of F_app where samples are coloured."""
    x = batch.points[batch.colored]
    with torch.no_grad():
        surface = prior.evaluate(x)
    given = SurfaceSample(*(value.clone().requires_grad_(True) for value in surface))
    gradient = torch.rand((len(x), 3), device=x.device)

    def work() -> None:
        prior.zero_grad(set_to_none=True)
        for value in given:
            value.grad = None
        prior.radiance(x, given, batch.directions).backward(gradient)

    name = "step: layers of F_app, forward and backward"
    return 1e-6 * len(x) * meter.add(name, work, len(x))


def works(trainer: PriorTrainer, batch: Batch) -> dict[str, Work]:
    """Counted work of a step by part."""
    prior, encoding = trainer.prior, trainer.prior.geometry.encoding
    assert isinstance(encoding, HashEncoding)
    points = len(batch.points)
    entries, features = encoding.table.shape
    groups = trainer.optimizer.param_groups
    layers = [layer.in_features for layer in prior.appearance.layers] + [3]
    return {
        "encoder": encoder_work(encoding.active, features, entries, points),
        "F_geo": geometry_work(trainer.settings.fields, encoding.width, points),
        "F_app": appearance_work(layers, len(batch.colored)),
        "Adam": adam_work(sum(p.numel() for group in groups for p in group["params"])),
    }


def make_trainer(
    scene: Scene, folder: Path, settings: PriorSettings, trained: Prior, device: torch.device
) -> PriorTrainer:
    """A trainer in the middle of its run, all levels active and stereo faded."""
    settings = replace(settings, weight_mvs=0.0, refine_cameras=False)
    trainer = PriorTrainer(scene, folder, settings, device, SilentProgress())
    trainer.prior.load_state_dict(trained.state_dict())
    trainer.guide.refresh(trainer.prior.sdf, everything=True)
    trainer.step = settings.steps // 2 + 1
    trainer._train_step()
    return trainer


def roofline(meter: Timing, machine: dict[str, float], trainer: PriorTrainer) -> dict[str, Any]:
    """Time, work and reached shares by part.

    Args:
        meter: Times (CPU seconds on a CPU).
        machine: ``copy_gb_s`` and ``matmul_gflop_s``, measured in the same run.
        trainer: From :func:`make_trainer`.
    """
    batch = draw(trainer)
    encoding = trainer.prior.geometry.encoding
    assert isinstance(encoding, HashEncoding)
    rays = trainer.settings.rays
    step = 1e-6 * rays * meter.add("step: whole, per ray", trainer._train_step, rays)
    seconds = {
        "encoder": time_encoder(meter, encoding, batch.points),
        "F_geo": time_geometry(meter, trainer.prior, batch.points),
        "F_app": time_appearance(meter, trainer.prior, batch),
    }
    trainer._train_step()  # gives every parameter a gradient again
    update = meter.add("step: Adam, per ray", trainer.optimizer.step, rays)
    seconds["Adam"] = 1e-6 * rays * update
    counted = works(trainer, batch)
    parts = {name: reached(counted[name], seconds[name], machine) for name in counted}
    layers = counted["F_geo"] + counted["F_app"]
    parts["F_geo + F_app"] = reached(layers, seconds["F_geo"] + seconds["F_app"], machine)
    parts["rest"] = {"ms": 1e3 * (step - sum(seconds.values()))}
    parts["whole step"] = reached(sum(counted.values(), NOTHING), step, machine)
    return {
        "rays": rays,
        "points": len(batch.points),
        "colored": len(batch.colored),
        "table_mb": encoding.table.numel() * FLOAT / 1e6,
        "parts": parts,
    }


def reached(work: Work, seconds: float, machine: dict[str, float]) -> dict[str, float]:
    """Time, work and the shares of the measured rates that it reached."""
    compute = work.flops / (1e9 * machine["matmul_gflop_s"])
    memory = work.bytes / (1e9 * machine["copy_gb_s"])
    return {
        "ms": 1e3 * seconds,
        "mflop": 1e-6 * work.flops,
        "mb": 1e-6 * work.bytes,
        "of_matmul": compute / seconds,
        "of_copy": memory / seconds,
    }


def table(result: dict[str, Any], machine: dict[str, float]) -> str:
    """Markdown."""
    lines = [
        f"Stage I step, {result['rays']} rays, {result['points']} points with normals,"
        f" {result['colored']} coloured, table {result['table_mb']:.1f} MB; copy"
        f" {machine['copy_gb_s']:.1f} GB/s, matmul {machine['matmul_gflop_s']:.0f} GFLOP/s:",
        "",
        "| part | ms | MFLOP | MB | of matmul rate | of copy bandwidth |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in result["parts"].items():
        if "mb" not in row:
            lines.append(f"| {name} | {row['ms']:.1f} | | | | |")
            continue
        lines.append(
            f"| {name} | {row['ms']:.1f} | {row['mflop']:.0f} | {row['mb']:.0f} |"
            f" {row['of_matmul']:.0%} | {row['of_copy']:.0%} |"
        )
    return "\n".join(lines)
