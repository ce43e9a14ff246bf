"""The spatial neural representation: encodings, F_geo, F_app, F_tex, volume rendering."""
