"""One cycle: fit, test, query; fresh Trainers, checkpoints, and what a run began with."""
