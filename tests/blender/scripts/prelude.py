"""Shared by the scripts that run inside bpy, each in a process of its own."""

import json
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

ARGS = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
REPORT = Path(sys.argv[2])


def finish(**result):
    """Write the report and leave without bpy's exit (it hangs or crashes in some versions)."""
    REPORT.write_text(json.dumps(result), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)


def _crashed(kind, error, trace):
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(1)


sys.excepthook = _crashed

import bpy  # noqa: E402

MODULE = "bl_ext.user_default.toonify3d"


def install(path=None):
    """Install the built extension into the clean user folder, enabled."""
    bpy.ops.extensions.package_install_files(
        filepath=path or ARGS["zip"], repo="user_default", enable_on_install=True
    )
    assert MODULE in bpy.context.preferences.addons, list(bpy.context.preferences.addons.keys())
    return sys.modules[MODULE]


def part(name):
    """A module of the installed add-on."""
    import importlib

    return importlib.import_module(f"{MODULE}.{name}")


class _OperatorButton:
    """Takes the properties of an operator, and only those that it has."""

    def __init__(self, kind):
        object.__setattr__(self, "kind", kind)

    def __setattr__(self, name, value):
        assert name in self.kind.properties, (self.kind.identifier, name)


class FakeLayout:
    """Records what a panel draws and fails on what Blender would refuse."""

    ALLOWED = frozenset({
        "row", "column", "box", "label", "prop", "operator", "progress", "template_icon",
        "separator", "split", "panel", "grid_flow",
    })  # fmt: skip

    def __init__(self, log):
        object.__setattr__(self, "log", log)

    def __getattr__(self, name):
        if name not in self.ALLOWED:
            raise AttributeError(name)

        def call(*args, **kwargs):
            self.log.append(
                (name, [repr(a) for a in args], {k: repr(v) for k, v in kwargs.items()})
            )
            if name == "prop":
                owner, key = args[:2]
                if not key.startswith("["):
                    assert key in owner.bl_rna.properties, key
            if name == "operator":
                area, _, op = args[0].partition(".")
                assert op in dir(getattr(bpy.ops, area)), args[0]
                kind = getattr(getattr(bpy.ops, area), op).get_rna_type()
                return _OperatorButton(kind)
            if name == "panel":  # closed ones are drawn as well
                return FakeLayout(self.log), FakeLayout(self.log)
            if "icon" in kwargs:
                icon = bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"]
                icons = icon.enum_items.keys()
                assert kwargs["icon"] in icons, kwargs["icon"]
            return FakeLayout(self.log)

        return call

    def __setattr__(self, name, value):
        assert name in {
            "use_property_split", "use_property_decorate", "scale_y", "alert", "enabled", "active",
            "operator_context", "alignment"
        }, name  # fmt: skip


def draw(cls):
    """Draw a panel class; the recorded calls."""
    log = []
    cls.draw(SimpleNamespace(layout=FakeLayout(log)), bpy.context)
    return log


def texts(log):
    """The sentences of a drawn panel as one text, and its operators."""
    shown = [k["text"].strip("'\"") for n, _, k in log if n == "label" and "text" in k]
    return " ".join(shown), [a[0].strip("'") for n, a, _ in log if n == "operator"]
