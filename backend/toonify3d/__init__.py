"""3DToonify: from a phone video and one stylized portrait to a stylized 3D head.

The method is *3DToonify* (CVPR 2024). The package never imports ``bpy``; the Blender add-on
starts it as its own process (see ``service/``).
"""

__version__ = "0.1.0"
