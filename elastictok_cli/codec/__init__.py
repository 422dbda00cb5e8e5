"""Frames to blocks to the fewest tokens that meet the target, as a stream of events; and back."""
