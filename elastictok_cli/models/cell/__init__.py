"""The default model: cells of 16x16 pixels x 4 frames, each with a token sequence of its own."""
