# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators only read the context, call a plain function and report."""

from . import bake, export, inputs, job, mark_face, portraits, result, setup, turntable

CLASSES = (
    *setup.CLASSES,
    *inputs.CLASSES,
    *mark_face.CLASSES,
    *portraits.CLASSES,
    *job.CLASSES,
    *result.CLASSES,
    *turntable.CLASSES,
    *export.CLASSES,
    *bake.CLASSES,
)
