"""The paper's Table 3 on a style whose deformation is known (``captures/lps/known_style``).

    python benchmarks/ablations.py --data ../shared/data --out /tmp/ablations            # all rows
    python benchmarks/ablations.py --data ../shared/data --out /tmp/ablations --row full no_ga
    python benchmarks/ablations.py --out /tmp/ablations --table                          # print it

True cameras and masks, so that only the fields are judged. Every row keeps its folder and its
figures under ``--out``; a finished row is not run again, a stopped one goes on. ``--share 0.3``
runs every stage with 0.3 of its steps; ``--disagree 0.1`` lets every portrait's colours drift by
10 %, as those of translators do that know nothing of the other frames. Instead of the paper's FID
(which needs downloaded weights and thousands of pictures) a row is judged by the truth itself:
distance of the surface to the known deformed mesh, in percent of its box diagonal, over what a
camera sees and over the sides no portrait shows; and foreground PSNR of ten views none of which was
trained on. Rows of the scheme as published (``finetune ...``) use the fast networks with guided
samples.

``--prior`` saves training one; the row without MVS trains its own all the same, with the settings
that the given one was trained with (``--preset`` and ``--share`` must say them).

Cost, measured with ``--share 0.4`` on one core of a busy AMD EPYC, in CPU seconds: full 38, without
geometry adaption 27, finetune 20, joint 30, 4 portraits 28, 8 portraits 33; older: without prior
108, fine residual 59. A whole run takes about 2.3 times that, and 150 for each of the two priors.

The views have the room's light in them. ``PSNR`` renders as the paper does: reflection times albedo
(eq. 10), and without texture adaption the appearance field along the ray (eq. 8), which is what is
left when F_tex is taken away. ``albedo`` renders the view-independent colours alone (without
texture adaption: the appearance field's mean over directions); ``volume`` keeps no reflection, so
both are alike there. PSNR counts the true foreground, where our surface is missing against white: a
rim of one missing pixel is most of the error. ``colour`` leaves these pixels out and so judges the
colours. What sticks out shows in ``ours`` (our surface to the truth), which the other distances
(truth to ours) do not see.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from toonify3d.asset.pipeline import extract_mesh
from toonify3d.asset.settings import AssetSettings
from toonify3d.capture.depth import compute_depth
from toonify3d.capture.settings import DepthSettings
from toonify3d.evaluation.ground_truth import scene_from_ground_truth
from toonify3d.evaluation.images import foreground_psnr
from toonify3d.evaluation.surface import evaluate_surface, load_true_mesh
from toonify3d.files import read_image, write_image, write_json
from toonify3d.portrait2d.folder import load_folder_views
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery
from toonify3d.scene import ByteImage, Camera, Scene, StylizedView
from toonify3d.settings import preset_settings
from toonify3d.snr.avatar import StylizedAvatar
from toonify3d.snr.prior import Prior
from toonify3d.snr.rendering import View, render_view
from toonify3d.training.adaption_settings import GeometryAdaptionSettings, TextureAdaptionSettings
from toonify3d.training.checkpoint import load_checkpoint
from toonify3d.training.joint_colors import JointTexture
from toonify3d.training.settings import PriorSettings
from toonify3d.training.stage1 import load_prior, train_prior
from toonify3d.training.stage2 import adapt_geometry
from toonify3d.training.stage3 import adapt_texture

DRIFTS = 5
"""Places a side between which a portrait's colours drift."""
CELLS = AssetSettings(resolution=192, faces=0, face_detail=1.0)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        title: As it is printed.
        settings: What a user would type after ``--set`` (geometry and texture settings).
        prior: Which prior it starts from.
        portraits: Most stylized frames, 0 for all.
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    prior: str = "prior"
    portraits: int = 0


PUBLISHED = {
    "geometry.method": "finetune",
    "geometry.samples": 14,
    "texture.rendering": "volume",
}
ROWS = {
    "full": Row("full"),
    "no_mvs": Row("without MVS guidance", prior="prior_no_mvs"),
    "no_ga": Row("without geometry adaption", {"geometry.adapt": False}),
    "no_ta": Row("without texture adaption", {"texture.adapt": False}),
    "no_prior": Row("without prior", {"geometry.from_prior": False}),
    "finetune": Row("finetune (scheme as published)", PUBLISHED),
    "joint": Row("finetune, without PSA (joint)", PUBLISHED | {"geometry.joint": True}),
    "finetune_no_ta": Row("finetune, without TA", PUBLISHED | {"texture.adapt": False}),
    "frames_4": Row("4 stylized frames", portraits=4),
    "frames_8": Row("8 stylized frames", portraits=8),
    "fine": Row("full + fine residual", {"geometry.fine_residual": True}),
}
PRIORS = {"prior": {}, "prior_no_mvs": {"weight_mvs": 0.0}}


class Bench:
    """Data and settings that the rows share.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out
        self.share: float = options.share
        self.preset: str = options.preset
        self.given: Path | None = options.prior
        self.disagree: float = options.disagree
        self.capture = options.data / "captures" / "lps"
        self.known = self.capture / "known_style"
        root = self.out / "scene"
        done = (root / "cameras.json").exists()
        self.scene = Scene.load(root) if done else scene_from_ground_truth(self.capture, root)

    def prior_settings(self) -> PriorSettings:
        """The preset's stage I; without camera refinement, because the cameras are the truth's."""
        settings = preset_settings(self.preset)[0].prior
        return replace(settings, refine_cameras=False, steps=self._steps(settings.steps))

    def prior(self, name: str) -> Prior:
        """Stage I, trained when it is not there.

        A given prior has learned from stereo: it serves every row but the one without MVS.
        """
        settings = self.prior_settings()
        if self.given is not None and name == "prior":
            return load_prior(self.given, "cpu")
        if self.given is not None:
            _check_comparable(self.given, settings)
        settings = replace(settings, **PRIORS[name])
        if name == "prior" and not (self.scene.root / "depth").exists():
            compute_depth(self.scene, DepthSettings(), "cpu", SilentProgress())
        return train_prior(self.scene, self.out / name, settings, "cpu", SilentProgress())

    def settings(self, row: Row) -> tuple[GeometryAdaptionSettings, TextureAdaptionSettings]:
        """Stage II and III settings of a row."""
        style = preset_settings(self.preset)[1]
        groups = {"geometry": style.geometry, "texture": style.texture}
        for name, value in row.settings.items():
            group, _, item = name.partition(".")
            groups[group] = replace(groups[group], **{item: value})  # type: ignore[type-var]
        geometry, texture = groups["geometry"], groups["texture"]
        assert isinstance(geometry, GeometryAdaptionSettings)
        assert isinstance(texture, TextureAdaptionSettings)
        return (
            replace(geometry, steps=self._steps(geometry.steps)),
            replace(texture, steps=self._steps(texture.steps)),
        )

    def _steps(self, steps: int) -> int:
        return max(10, round(self.share * steps))

    def views(self, count: int) -> list[StylizedView]:
        """The known portraits; ``count`` of them, evenly over front and back (0: all)."""
        made = load_folder_views(
            self.scene, self.known / "portraits2d", None, StylizeSettings(), SilentProgress()
        ).views
        made = [disagreeing(view, self.disagree, i) for i, view in enumerate(made)]
        if not count:
            return made
        front = [view for view in made if abs(view.frame.yaw) < 1.0]
        back = [view for view in made if abs(view.frame.yaw) >= 1.0]
        return _even(front, (count + 1) // 2) + _even(back, count // 2)

    def run(self, name: str) -> dict[str, Any]:
        """One row: train (or go on, or load) and judge."""
        row, folder = ROWS[name], self.out / name
        figures = folder / "figures.json"
        if figures.exists():
            return dict(json.loads(figures.read_text(encoding="utf-8")))
        prior = self.prior(row.prior)
        views = self.views(row.portraits)
        geometry_settings, texture_settings = self.settings(row)
        palette = np.concatenate([view.image[view.mask > 200] for view in views])
        started, cpu = time.monotonic(), time.process_time()
        geometry = adapt_geometry(
            self.scene,
            prior,
            views,
            None,
            folder / "geometry",
            geometry_settings,
            "cpu",
            SilentProgress(),
            self.prior_settings(),
            JointTexture(texture_settings, palette),
        )
        avatar = adapt_texture(
            self.scene,
            geometry,
            views,
            palette,
            folder / "texture",
            texture_settings,
            "cpu",
            SilentProgress(),
        )
        result: dict[str, Any] = {
            "title": row.title,
            "share": self.share,
            "portraits": len(views),
            "wall_s": round(time.monotonic() - started, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
        }
        result |= self.judge(avatar, folder)
        write_json(figures, result)
        return result

    def judge(self, avatar: StylizedAvatar, folder: Path) -> dict[str, Any]:
        """Surface and novel views against the truth; leaves ``views.png``."""
        mesh = extract_mesh(avatar, self.scene, CELLS, SilentProgress())
        surface = evaluate_surface(mesh, self.scene, self.known / "gt", samples=20_000)
        truth = load_true_mesh(self.known / "gt")
        caster = MeshQuery(truth.vertices, truth.faces)
        frames = {frame.source_index: frame for frame in self.scene.frames}
        scores: dict[str, list[float]] = {"psnr": [], "color_psnr": [], "albedo_psnr": []}
        missing, yaws, sheet = [], [], []
        for path in sorted((self.known / "views").glob("*.png")):
            frame = frames[int(path.stem)]
            wanted: ByteImage = read_image(path, cv2.IMREAD_COLOR)[..., ::-1]
            inside = caster.depth(frame.camera) > 0
            as_paper, albedo = _render_both(avatar, frame.camera, self.scene)
            both = inside & (as_paper.mask > 0)
            scores["psnr"].append(foreground_psnr(as_paper.color, wanted, inside))
            scores["color_psnr"].append(foreground_psnr(as_paper.color, wanted, both))
            scores["albedo_psnr"].append(foreground_psnr(albedo, wanted, inside))
            missing.append(1.0 - both.sum() / inside.sum())
            yaws.append(frame.yaw)
            sheet.append(np.concatenate([wanted, albedo, as_paper.color]))
        write_image(folder / "views.png", np.ascontiguousarray(np.concatenate(sheet[::2], axis=1)))
        sides = surface["truth_to_result"]["sides"]
        seen = surface["truth_to_result"]["visible"]
        return {
            "median": seen["median"],
            "p95": seen["p95"],
            "mean": seen["mean"],
            "sides_mean": sides["mean"],
            "ours_median": surface["result_to_truth"]["visible"]["median"],
            "missing_percent": 100.0 * float(np.mean(missing)),
            **{f"{name}_mean": float(np.mean(values)) for name, values in scores.items()},
            **{f"{name}_worst": float(np.min(values)) for name, values in scores.items()},
            "yaws": yaws,
            **scores,
        }


def _check_comparable(given: Path, settings: PriorSettings) -> None:
    """Refuse a row without MVS whose own prior would differ from the given one by more than that.

    Raises:
        SystemExit: With the sentence that says what to change.
    """
    trained = (load_checkpoint(given, "cpu") or {}).get("settings", {})
    names = ("fields", "steps", "rays", "samples")
    wanted = asdict(settings)
    differing = [name for name in names if trained.get(name) != wanted[name]]
    if differing:
        raise SystemExit(
            f"Row no_mvs trains its own prior with this --preset and --share, but {given} was "
            f"trained with other {', '.join(differing)}: give those, or leave the row out."
        )


def _render_both(avatar: StylizedAvatar, camera: Camera, scene: Scene) -> tuple[View, ByteImage]:
    """Picture as the paper renders it, and the albedo alone at the same surface points."""
    colors: list[torch.Tensor] = []

    def shade(points: torch.Tensor, toward: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        colors.append(avatar.color(points))
        return avatar.shade(points, toward)

    view = render_view(avatar, camera, scene.normalization, shade)
    albedo = view.color.copy()
    # Points come row by row, as boolean indexing fills them in.
    if colors:
        albedo[view.mask > 0] = (torch.cat(colors) * 255.0).round().byte().cpu().numpy()
    return view, albedo


def disagreeing(view: StylizedView, amount: float, seed: int) -> StylizedView:
    """A portrait whose colours drift by ``amount``, smoothly and in its own way.

    Translators that know nothing of the other frames paint every frame a little differently; the
    known portraits all show one texture. The paper's argument for texture adaption is the former.
    """
    if amount <= 0:
        return view
    drift = np.random.default_rng(seed).normal(0.0, amount, (DRIFTS, DRIFTS, 3))
    height, width = view.image.shape[:2]
    gain = 1.0 + cv2.resize(
        drift.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return replace(view, image=(view.image * gain).clip(0, 255).round().astype(np.uint8))


def _even(views: list[StylizedView], count: int) -> list[StylizedView]:
    views = sorted(views, key=lambda view: view.frame.yaw)
    if len(views) <= count:
        return views
    return [views[int((i + 0.5) * len(views) / count)] for i in range(count)]


def table(out: Path) -> list[dict[str, Any]]:
    """Print and return the finished rows."""
    rows = []
    for name in ROWS:
        path = out / name / "figures.json"
        if path.exists():
            rows.append(json.loads(path.read_text(encoding="utf-8")))
    print(
        f"{'':34} {'median':>7} {'p95':>7} {'mean':>7} {'sides':>7} {'ours':>7}"
        f" {'PSNR':>6} {'worst':>6} {'colour':>6} {'worst':>6} {'albedo':>6} {'CPU s':>6}"
    )
    for row in rows:
        print(
            f"{row['title']:34} {row['median']:7.3f} {row['p95']:7.3f} {row['mean']:7.3f}"
            f" {row['sides_mean']:7.3f} {row['ours_median']:7.3f}"
            f" {row['psnr_mean']:6.2f} {row['psnr_worst']:6.2f}"
            f" {row['color_psnr_mean']:6.2f} {row['color_psnr_worst']:6.2f}"
            f" {row['albedo_psnr_mean']:6.2f} {row['cpu_s']:6.0f}"
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--row", nargs="*", choices=sorted(ROWS), default=list(ROWS))
    parser.add_argument("--share", type=float, default=1.0, help="share of the preset's steps")
    parser.add_argument(
        "--prior", type=Path, help="a finished stage I for every row but no_mvs (trains its own)"
    )
    parser.add_argument(
        "--disagree", type=float, default=0.0, help="drift of each portrait's colours (0.1: 10 %%)"
    )
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    options = parser.parse_args()
    if not options.table:
        bench = Bench(options)
        for name in options.row:
            print(name, json.dumps(bench.run(name)), flush=True)
    write_json(options.out / "ablations.json", table(options.out))


if __name__ == "__main__":
    main()
