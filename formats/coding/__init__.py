"""Entropy coders of keep maps and tokens (SPEC.md, 5.2 and 6)."""
