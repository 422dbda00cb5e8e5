"""Training the paper's model."""
