"""Motion of the default model: vectors, block matching, camera pan, camera shake."""
