"""The published model: transformer, tiles, caches, conversion of official checkpoints."""
