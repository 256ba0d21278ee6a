"""Models: building, the flat parameter layout, checkpoints, the pool."""
