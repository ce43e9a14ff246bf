"""Stage I, prior learning (paper section 3.2): photographs to F_geo and F_app."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..errors import CancelledError, InputError, TrainingError
from ..files import write_json
from ..progress import Progress
from ..scene import Scene
from ..snr.encoding import HashEncoding
from ..snr.prior import Prior
from .checkpoint import (
    StepWatch,
    Timer,
    check_optimizer_state,
    cloned,
    load_checkpoint,
    load_optimizer,
    save_checkpoint,
)
from .corrections import FrameCorrections
from .data import RayBank, split_frames
from .ray_focus import INTERVAL, RayFocus
from .recorded_step import CudaRecorder, RecordedStep, Shape, set_rate
from .refined_cameras import FILE as REFINED
from .refined_cameras import save_refined_cameras
from .schedule import active_levels, learning_rate_factor, sharpness, stereo_weight, view_strength
from .settings import PriorSettings
from .stage1_heldout import fitted_poses, with_cameras
from .stage1_hull import fit_hull, start_guide
from .stage1_preview import mean_psnr, preview_image
from .stage1_step import Losses, StepRenderer

MOST_RETRIES = 3
SNAPSHOT_STEPS = 250
RARELY = 10  # of the guide's updates one looks at all that was carved
FORMAT = 1


def train_prior(
    scene: Scene, folder: Path, settings: PriorSettings, device: str, progress: Progress
) -> Prior:
    """Learn the prior of a captured person; resumes when ``folder`` holds a checkpoint.

    Args:
        scene: The capture.
        folder: Gets ``checkpoint.pt``, ``metrics.json`` and, if cameras are refined,
            ``cameras.json`` (:mod:`.refined_cameras`).
        settings: Stage I settings.
        device: Torch device.
        progress: Receives steps, losses and preview pictures.

    Raises:
        CancelledError: ``progress`` asked to stop; the checkpoint has been written.
        TrainingError: The loss diverged three times over.
        InputError: The masks show no person, or contradict the cameras.
    """
    if len(scene.frames) < 3:
        raise InputError("Stage I needs at least three registered frames.", code="few_frames")
    state = load_checkpoint(folder, device)
    if state is not None and not _same_run(state, settings):
        state = None
    if state is not None and state["done"]:
        try:
            return _finished(state, device)
        except _FOREIGN:
            progress.warn(_ANEW)
            state = None
    trainer = PriorTrainer(scene, folder, settings, torch.device(device), progress)
    if state is not None:
        try:
            check_optimizer_state(trainer.optimizer, state["optimizer"])
            trainer.restore(state)
        except _FOREIGN:
            # A module takes what fits before it complains about the rest: begin with a new one.
            progress.warn(_ANEW)
            trainer = PriorTrainer(scene, folder, settings, torch.device(device), progress)
    return trainer.run()


# What reading a checkpoint of other code can raise.
_FOREIGN = (KeyError, ValueError, TypeError, RuntimeError, AttributeError)
_ANEW = "Stage I: the checkpoint was written by another version; training starts anew."


def load_prior(folder: Path, device: str) -> Prior:
    """The prior that :func:`train_prior` left in ``folder`` (also an unfinished one).

    Raises:
        InputError: There is no readable checkpoint (``code="no_prior"``).
    """
    state = load_checkpoint(folder, device)
    try:
        if state is not None:
            return _finished(state, device)
    except _FOREIGN:
        pass
    raise InputError(f"No trained prior in {folder}; run stage I first.", code="no_prior")


def _finished(state: dict[str, Any], device: str) -> Prior:
    prior = Prior.from_state(state["prior"], device)
    prior.eval().requires_grad_(False)
    return prior


def _comparable(settings: PriorSettings) -> dict[str, Any]:
    document = asdict(settings)
    for name in ("checkpoint_seconds", "preview_seconds", "cuda_graph"):
        document.pop(name)
    return document


def _same_run(state: dict[str, Any], settings: PriorSettings) -> bool:
    return bool(
        state.get("format") == FORMAT
        and isinstance(state.get("done"), bool)
        and state.get("settings") == _comparable(settings)
    )


class PriorTrainer:
    """State and loop of stage I; :func:`train_prior` is the entrance."""

    def __init__(
        self,
        scene: Scene,
        folder: Path,
        settings: PriorSettings,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.scene, self.folder, self.settings = scene, folder, settings
        self.device, self.progress = device, progress
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator(device=device).manual_seed(settings.seed)
        self.training, self.heldout = split_frames(scene, settings.holdout_frames)
        band, binary = settings.silhouette_band, settings.binary_masks
        self.bank = RayBank.from_scene(scene, self.training, band, device, binary)
        self.guide = start_guide(scene, self.training, settings, device)
        self.bank.drop_unreachable(self.guide)
        self.prior = Prior(settings.fields, scene.normalization).to(device)
        self.corrections = FrameCorrections(
            len(self.training),
            settings.refine_cameras,
            settings.refine_exposure,
            settings.refine_focal,
            [frame.camera for frame in self.training],
            scene.normalization,
        ).to(device)
        self.optimizer = self._make_optimizer()
        self.focus: RayFocus | None = None
        if settings.error_guided > 0.0 and settings.sampler == "guided":
            self.focus = RayFocus(self.bank, self.guide, settings.error_guided)
        self.renderer = StepRenderer(
            self.prior, self.guide, settings, self.corrections, self.generator, self.focus
        )
        self.recorded = self._recorded_step() if self.capturable else None
        self.step, self.retries, self.lr_scale = 0, 0, 1.0
        self.rays = settings.rays
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self._smooth: float | None = None
        self._snapshot: dict[str, Any] | None = None
        self._watch = StepWatch(self.optimizer)

    @property
    def capturable(self) -> bool:
        """Whether steps are to run as a CUDA graph."""
        return self.settings.cuda_graph and self.device.type == "cuda"

    def _recorded_step(self) -> RecordedStep:
        return RecordedStep(
            self.bank,
            self.renderer,
            self.optimizer,
            self.generator,
            CudaRecorder(self.device, [self.generator]),
        )

    def _make_optimizer(self) -> torch.optim.Adam:
        settings = self.settings
        encoding = self.prior.geometry.encoding
        table = [encoding.table] if isinstance(encoding, HashEncoding) else []
        special = {id(parameter) for parameter in table} | {id(self.prior.variance)}
        network = [p for p in self.prior.parameters() if id(p) not in special]
        groups: list[dict[str, Any]] = [
            {"params": table, "base": settings.lr_table},
            {"params": network, "base": settings.lr_network},
            {
                "params": [
                    self.corrections.rotation,
                    self.corrections.translation,
                    self.corrections.focal_raw,
                ],
                "base": settings.lr_cameras,
            },
            {"params": [self.corrections.log_gain], "base": 1e-3},
        ]
        if settings.learn_inv_s:
            groups.append({"params": [self.prior.variance], "base": settings.lr_network})
        groups = [
            {
                **group,
                "params": [p for p in group["params"] if p.requires_grad],
                "lr": self._rate(0.0),
            }
            for group in groups
        ]
        return torch.optim.Adam(
            [group for group in groups if group["params"]],
            betas=(0.9, settings.adam_beta2),
            eps=settings.adam_epsilon,
            fused=self.device.type in ("cpu", "cuda"),
            capturable=self.capturable,
        )

    def _rate(self, value: float) -> float | torch.Tensor:
        """A learning rate as the optimizer wants it: a recorded step reads it from a tensor."""
        return torch.tensor(value, device=self.device) if self.capturable else value

    def _set_rates(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            set_rate(group, group["base"] * factor)

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> Prior:
        """Train to the end (from wherever :meth:`restore` put the state)."""
        started = time.monotonic() - self.seconds
        checkpoint = Timer(self.settings.checkpoint_seconds)
        preview = Timer(self.settings.preview_seconds)
        if self.step == 0 and self.settings.hull_steps:
            fit_hull(self.prior, self.guide, self.settings, self.generator)
        try:
            while self.step < self.settings.steps:
                losses = self._train_step()
                self.seconds = time.monotonic() - started
                self._report(losses)
                if checkpoint.due():
                    self.save()
                if preview.due():
                    self.progress.preview(self._preview())
                if self.step == self.settings.steps and not self._is_sound():
                    self._step_back()
        except CancelledError:
            self.save()
            raise
        return self._finish()

    def _train_step(self) -> Losses | None:
        """One step; None when it had to be given up."""
        self._watch.began = False
        try:
            return self._try_step()
        except torch.cuda.OutOfMemoryError:
            pass  # handled below: here the error still holds the step's tensors
        self._halve_rays()
        return None

    def _try_step(self) -> Losses | None:
        self._prepare_step()
        weight = stereo_weight(self.step, self.settings) if self.bank.has_depth else 0.0
        recorded = self._replayed(weight)
        losses = self._gradients(weight) if recorded is None else recorded
        if not self._healthy(losses):
            self._step_back()
            return None
        if recorded is None:
            self.optimizer.step()
        self.step += 1
        return losses

    def _gradients(self, stereo: float) -> Losses:
        """Losses of a random batch, and their gradients in the parameters."""
        settings = self.settings
        batch = self.bank.sample(self.rays, self.generator)
        inv_s = self.prior.inv_s if settings.learn_inv_s else sharpness(self.step, settings)
        losses = self.renderer.losses(batch, inv_s, stereo)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        # Without the autograd graph: a recording must find no node of an older step alive.
        return Losses(*(value.detach() for value in losses))

    def _replayed(self, stereo: float) -> Losses | None:
        """The whole step (optimizer included) from a recording; None when steps are not recorded.

        An exploding loss is noticed after its step then, which the step back undoes as well.
        """
        settings, encoding = self.settings, self.prior.geometry.encoding
        view = float(self.prior.appearance.view_strength)
        if self.recorded is None or 0.0 < view < 1.0:  # would be recorded anew at every step
            return None
        levels = encoding.active if isinstance(encoding, HashEncoding) else 0
        scheduled = sharpness(self.step, settings)
        inv_s = (lambda: self.prior.inv_s) if settings.learn_inv_s else scheduled
        try:
            return self.recorded.run(Shape(self.rays, levels, view, stereo > 0), inv_s, stereo)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.recorded = None
            reason = str(error).splitlines()[0]
            self.progress.warn(f"Stage I: steps run without a CUDA graph, hence slower ({reason}).")
            return None

    def _prepare_step(self) -> None:
        settings, step = self.settings, self.step
        encoding = self.prior.geometry.encoding
        if isinstance(encoding, HashEncoding):
            encoding.active = active_levels(step, settings)
        self.prior.appearance.view_strength = view_strength(step, settings)
        self._set_rates(learning_rate_factor(step, settings) * self.lr_scale)
        if step % SNAPSHOT_STEPS == 0 and self._is_sound():
            self._snapshot = self._state(done=False)
        if step and step % settings.guide_interval == 0:
            rarely = step % (RARELY * settings.guide_interval) == 0
            self.guide.refresh(self.prior.sdf, everything=rarely)
        if step and step % INTERVAL == 0 and self.focus is not None:
            self.focus.refresh()

    def _healthy(self, losses: Losses) -> bool:
        """False when the loss is not finite or far above its running mean."""
        every = 1 if self.device.type == "cpu" else 20
        if self.step % every:
            return True  # reading a loss back would stall the GPU at every step
        value = float(losses.total.detach())
        if not math.isfinite(value):
            return False
        if self._smooth is not None and self.step > 100 and value > 20.0 * self._smooth + 1.0:
            return False
        self._smooth = value if self._smooth is None else 0.98 * self._smooth + 0.02 * value
        return True

    def _is_sound(self) -> bool:
        """Whether all parameters are finite (a finite loss may have infinite gradients)."""
        learned = chain(self.prior.parameters(), self.corrections.parameters())
        return all(bool(torch.isfinite(p).all()) for p in learned)

    def _step_back(self) -> None:
        self.retries += 1
        if self.retries > MOST_RETRIES or self._snapshot is None:
            raise TrainingError(
                f"Stage I diverged {self.retries} times (step {self.step}); try another preset "
                "or check cameras and masks."
            )
        failed = self.step
        self.lr_scale *= 0.5
        self._rewind(self._snapshot)
        # Other random rays than those that led here.
        self.generator.manual_seed(self.settings.seed + 1000 * self.retries)
        self.progress.warn(
            f"Stage I: the loss exploded at step {failed}; back to step {self.step} with half "
            "the learning rate."
        )

    def _rewind(self, snapshot: dict[str, Any]) -> None:
        """Back to ``snapshot``, keeping what has been learned about the rate."""
        kept = self.retries, self.lr_scale
        self.restore(snapshot)
        self.retries, self.lr_scale = kept

    def _halve_rays(self) -> None:
        if self.rays <= 64:
            raise TrainingError("Stage I does not fit into the GPU's memory even with 64 rays.")
        self.rays //= 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.recorded is not None:
            self.recorded.recordings.forget()
        torch.cuda.empty_cache()
        if self._watch.began and self._snapshot is not None:
            self._rewind(self._snapshot)
        self.progress.warn(f"Stage I: out of GPU memory; going on with {self.rays} rays a step.")

    def _report(self, losses: Losses | None) -> None:
        if losses is None:
            return
        every = 1 if self.device.type == "cpu" else 20
        if self.step % every == 0:
            message = (
                f"step {self.step}/{self.settings.steps}, loss {float(losses.total.detach()):.4f}"
            )
            self.progress.update(self.step / self.settings.steps, message)
        if self.step % 100 == 0 or self.step == self.settings.steps:
            record = {name: float(value.detach()) for name, value in losses._asdict().items()}
            self.history.append({"step": float(self.step), **record})

    def _preview(self) -> Any:
        frame = min(self.scene.frames, key=lambda item: abs(item.yaw))
        return preview_image(self.prior, self.guide, frame.camera, self.scene.normalization)

    def _finish(self) -> Prior:
        self.prior.requires_grad_(False)
        self.guide.refresh(self.prior.sdf, everything=True)
        final = self._state(done=True)
        self._save_cameras()
        psnr = mean_psnr(self.prior, self.guide, self.scene, self.heldout)
        write_json(
            self.folder / "metrics.json",
            {
                "steps": self.step,
                "seconds": round(self.seconds, 2),
                "rays": self.rays,
                "retries": self.retries,
                "inv_s": float(self.prior.inv_s),
                "training_frames": len(self.training),
                "heldout_frames": [frame.name for frame in self.heldout],
                "heldout_psnr": psnr,
                "camera_corrections": self.corrections.figures(),
                "losses": self.history[-1] if self.history else {},
                "history": self.history,
            },
        )
        save_checkpoint(self.folder, final)
        self.progress.preview(self._preview())
        return self.prior.eval()

    def _save_cameras(self) -> None:
        """Leave corrected cameras to the later steps."""
        learned, given = self.corrections, [frame.camera for frame in self.training]
        if not (learned.poses or learned.focal):
            (self.folder / REFINED).unlink(missing_ok=True)
            return
        trained = with_cameras(self.training, learned.corrected(given, self.scene.normalization))
        unseen = [frame.camera for frame in self.heldout]
        unseen = learned.for_others(unseen, given, self.scene.normalization)
        self.heldout = with_cameras(self.heldout, unseen)
        if learned.poses and self.heldout:
            fitting = replace(self.settings, rays=self.rays)  # as many as memory allows
            self.heldout = fitted_poses(
                self.prior, self.guide, self.scene, self.heldout, fitting, self.generator
            )
        save_refined_cameras(self.folder, trained + self.heldout)

    # -- state ------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint (not one with broken parameters: the older one stays)."""
        if self._is_sound():
            save_checkpoint(self.folder, self._state(done=False))

    def _state(self, done: bool) -> dict[str, Any]:
        if not self.settings.learn_inv_s:
            # The scheduled sharpness belongs to the prior: stage II renders with it.
            with torch.no_grad():
                self.prior.variance.fill_(math.log(sharpness(self.step, self.settings)) / 10.0)
        state: dict[str, Any] = {
            "format": FORMAT,
            "done": done,
            "settings": _comparable(self.settings),
            "prior": cloned(self.prior.export_state()),
            "corrections": cloned(self.corrections.state_dict()),
            "step": self.step,
            "seconds": self.seconds,
            "history": list(self.history),
            "retries": self.retries,
            "lr_scale": self.lr_scale,
            "rays": self.rays,
        }
        if not done:
            state["optimizer"] = cloned(self.optimizer.state_dict())
            state["generator"] = self.generator.get_state().clone()
            state["guide"] = self.guide.values.clone()
            state["focus"] = None if self.focus is None else self.focus.state()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`save` wrote."""
        self.prior.load_state_dict(state["prior"]["parameters"])
        self.corrections.load_state_dict(state["corrections"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.recorded is not None:
            self.recorded.recordings.forget()  # the moments are other tensors now
        self.generator.set_state(state["generator"].cpu())
        self.guide.values.copy_(state["guide"])
        if self.focus is not None:
            self.focus.restore(state["focus"])
        self.step = int(state["step"])
        self.seconds = float(state["seconds"])
        self.history = list(state["history"])
        self.retries = int(state["retries"])
        self.lr_scale = float(state["lr_scale"])
        self.rays = min(self.rays, int(state["rays"]))  # memory has not grown
        self._snapshot = state
