"""Pictures of where the tokens went. Knows nothing of torch or files: numbers and pixels in, pixels out."""
