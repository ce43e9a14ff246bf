"""Other people's programs and models that can take the place of a built-in part, when asked for.

Nothing here is needed for the main job, and nothing is used unless a setting names it.
"""
