"""Marks that one frame has and others take over along the surface."""

from __future__ import annotations

import cv2
import numpy as np

from toonify3d.portrait2d.colorspace import sample, smoothstep
from toonify3d.portrait2d.strokeframes import BentFrame, _carry
from toonify3d.scene import Camera

RADIUS, AWAY, SIDE = 0.5, 3.0, 200


def _frame_of_a_ball(yaw: float) -> BentFrame:
    """A ball at the origin, seen from the side ``yaw``."""
    back = np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    down = np.array([0.0, -1.0, 0.0])
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([np.cross(down, -back), down, -back], 1)
    c2w[:3, 3] = AWAY * back
    K = np.array([[500.0, 0, SIDE / 2], [0, 500.0, SIDE / 2], [0, 0, 1]])
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    local = np.stack([(columns - SIDE / 2) / 500, (rows - SIDE / 2) / 500, np.ones_like(rows)], 2)
    rays = (local / np.linalg.norm(local, axis=2, keepdims=True)) @ c2w[:3, :3].T
    middle = rays @ -c2w[:3, 3]
    inside = middle**2 - (AWAY**2 - RADIUS**2)
    hit = inside > 0
    world = c2w[:3, 3] + rays * (middle - np.sqrt(np.maximum(inside, 0)))[..., None]
    return BentFrame(
        camera=Camera(K, c2w, SIDE, SIDE),
        yaw=yaw,
        world=world.astype(np.float32),
        hit=hit,
        labels=np.zeros((SIDE, SIDE, 3), np.float32),
        place=world[..., :2].astype(np.float32),
        lab=np.zeros((SIDE, SIDE, 3), np.float32),
        cover=hit.astype(np.float32),
        grain=np.zeros((SIDE, SIDE), np.float32),
        ahead=smoothstep(world[..., 2], -0.05, 0.05),
    )


def test_a_frame_takes_marks_over_but_no_smears_of_what_the_other_saw_at_a_grazing_angle():
    front, side = _frame_of_a_ball(0.0), _frame_of_a_ball(1.0)
    marks = np.repeat(front.world[..., 1:2], 3, axis=2)
    known, fixed = _carry(side, [(front, marks)], 0.1)
    ray = side.world - front.camera.center
    facing = -(side.world * ray).sum(2) / (RADIUS * np.linalg.norm(ray, axis=2))
    inner = cv2.erode(side.hit.astype(np.uint8), np.ones((5, 5))) > 0
    assert fixed[inner & (facing > 0.55)].min() > 0.99
    assert fixed[inner & (facing < 0.25)].max() < 0.01
    sure = inner & (facing > 0.55)
    assert np.abs(known[..., 1] - side.world[..., 1])[sure].max() < 0.01


def _disagreement(one: BentFrame, two: BentFrame, marks: dict[float, np.ndarray]) -> float:
    """Share of the surface that two frames see well where their marks are not the same."""
    points = one.world[one.hit].astype(np.float64)
    rays = points - two.camera.center
    facing = -(points * rays).sum(1) / (RADIUS * np.linalg.norm(rays, axis=1))
    both = (facing > 0.6) & ((points * one.camera.center).sum(1) > 0.6 * RADIUS * AWAY)
    other = sample(marks[two.yaw], two.camera.project(points[both])[0])
    return float((np.abs(marks[one.yaw][one.hit][both] - other)[:, 0] > 0.2).mean())


def test_the_seam_between_front_and_back_is_no_one_pairs_alone():
    """Taken by one frame whole, its neighbour differed by 1.6 times what the photos do."""
    order = [0.0, np.pi, np.pi / 4, 3 * np.pi / 4, np.pi / 2]
    frames = {yaw: _frame_of_a_ball(yaw) for yaw in order}
    marks: dict[float, np.ndarray] = {}
    for number, yaw in enumerate(order):
        laid = [(frames[other], marks[other]) for other in marks]
        known, fixed = _carry(frames[yaw], laid, 0.1)
        own = np.full((SIDE, SIDE, 3), float(number), np.float32)
        marks[yaw] = known * fixed[..., None] + own * (1 - fixed[..., None])
    side = frames[np.pi / 2]
    seams = [_disagreement(side, frames[yaw], marks) for yaw in (np.pi / 4, 3 * np.pi / 4)]
    assert max(seams) < 0.15
