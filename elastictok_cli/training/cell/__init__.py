"""Training the default model."""
