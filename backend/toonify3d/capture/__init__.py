"""From a video to cameras, masks and depth in an aligned world."""
