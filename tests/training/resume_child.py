"""Short runs of stages II and III that another process can start and kill.

python resume_child.py geometry|texture FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import BallPrior, KnownBend, make_scene, portraits
from small_runs import SURFACE

from toonify3d.progress import SilentProgress
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.deformation import Deformation
from toonify3d.training import adaption_loop, bending
from toonify3d.training.adaption_settings import GeometryAdaptionSettings
from toonify3d.training.stage2 import adapt_geometry
from toonify3d.training.stage3 import adapt_texture

STEPS = 40
BEND = GeometryAdaptionSettings(
    steps=STEPS,
    rays=96,
    mask_rays=96,
    samples=6,
    coarse_resolution=40,
    search_steps=24,
    flow_weight=0.0,
    fine_residual=True,
    fine_from=0.5,
    color_warmup=0.25,
)
PAINT = replace(SURFACE, steps=STEPS, discriminator_from=0.1)


def run(stage: str, folder: Path) -> dict[str, torch.Tensor]:
    """Run (or resume) a stage in ``folder``: the tensors of its result by name."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        scene = make_scene(Path(root), size=48)
        views = portraits(scene, KnownBend(), (-0.15, 0.15))
        progress = SilentProgress()
        if stage == "geometry":
            adapt_geometry(scene, BallPrior(), views, None, folder, BEND, "cpu", progress)
            state = torch.load(folder / "geometry.pt", weights_only=True)
            return {**state["deformation"], **state["head"]}
        geometry = StylizedGeometry(BallPrior(), _still())
        adapt_texture(scene, geometry, views, views[0].image, folder, PAINT, "cpu", progress)
        state = torch.load(folder / "texture.pt", weights_only=True)
        parts = [state["global_map"], state["reflection"], state["local"]]
        return {
            f"{i}.{name}": v.float() for i, part in enumerate(parts) for name, v in part.items()
        }


def _still() -> Deformation:
    torch.manual_seed(0)
    return Deformation().requires_grad_(False)


if __name__ == "__main__":
    adaption_loop.CHECKPOINT_SECONDS = 0.02
    bending.REFRESH = 4
    run(sys.argv[1], Path(sys.argv[2]))
