"""How good it is: tokens and bytes at a target, beside classical codecs."""
