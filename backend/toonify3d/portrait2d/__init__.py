"""2D portrait stylization: the capture's frontal and back frames in the exemplar's style."""
