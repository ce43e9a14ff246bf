"""Metrics against ground truth and between images."""
