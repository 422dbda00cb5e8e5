"""The models: one interface, the default model, checkpoints."""
