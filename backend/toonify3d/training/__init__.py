"""The three training stages, their losses, schedules and checkpoints."""
