"""Frames to blocks to the least tokens that meet the target, as a stream of events; and back."""
