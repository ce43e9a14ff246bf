"""From fields to files: mesh, UV atlas, baked textures, GLB, OBJ, previews."""
