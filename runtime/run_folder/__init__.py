"""What a run keeps in its folder: checkpoints, log, owner."""
