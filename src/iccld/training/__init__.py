"""Training: the loop, one update, checkpoints, tracking and stages.  It knows methods by their protocol only."""
