"""How many scenes are encoded, and segments decoded, at the same time, and what they may hold."""

from __future__ import annotations

import torch

from elastictok_cli.codec.parallel import Limits
from elastictok_cli.machine import free_memory
from elastictok_cli.models.interface import Loaded

# Of the free memory, so much is for the encoder.
SHARE_OF_FREE_MEMORY = 0.5
# A worker's memory: torch and the model, and the tensors of a block. Measured with benchmarks/memory.py, rounded.
BYTES_OF_WORKER = 400 << 20
BYTES_OF_WORKER_A_PIXEL = 1000
# Frames that wait for each worker beside the first: two workers in step need half a scene of 5 seconds at 30 frames/s
# (`parallel`), as long as that is no more than this.
FRAMES_AHEAD = 75
MAX_BYTES_AHEAD = 512 << 20
# Where nobody asks for a number of jobs, workers start only for so many bytes of frames: 160 frames of 256 x 256. Less
# is coded before they have loaded torch and the model.
LEAST_BYTES = 160 * 256 * 256 * 3
LEAST_BYTES_TO_DECODE = 8 * LEAST_BYTES  # decoding is so much faster


def why_one_job(loaded: Loaded, device: torch.device) -> str | None:
    """Why this model on this device codes one scene after another, as a sentence; None where it need not."""
    if device.type != "cpu":
        return f"several jobs run on the CPU only, not on {device.type}"
    if not loaded.tokenizer.spec.nested:
        return f"{loaded.tokenizer.spec.name} takes one job: it uses all cores already"
    if loaded.load is None:
        return "several jobs need a model that was loaded from a file"
    return None


def limits(jobs: int | None, height: int, width: int) -> Limits:
    """For frames of this size (pixels). jobs: None chooses by the threads that torch uses and by the free memory."""
    frame = height * width * 3
    ahead = max(frame, min(FRAMES_AHEAD * frame, MAX_BYTES_AHEAD))
    if jobs is not None:
        return Limits(jobs, ahead * max(1, jobs - 1))
    jobs = torch.get_num_threads()
    if (free := free_memory()) is not None:
        each = BYTES_OF_WORKER + BYTES_OF_WORKER_A_PIXEL * height * width + ahead
        jobs = min(jobs, int(SHARE_OF_FREE_MEMORY * free) // each)
    return Limits(max(1, jobs), ahead * max(1, jobs - 1), LEAST_BYTES)


def limits_for(loaded: Loaded, device: torch.device, jobs: int | None, height: int, width: int) -> Limits:
    """`limits` of an encode with this model on this device."""
    return Limits(1, 0) if why_one_job(loaded, device) else limits(jobs, height, width)


def decode_limits(jobs: int | None, height: int, width: int, loaded: Loaded, device: torch.device) -> Limits:
    """For decoding frames of this size (pixels); the blocks that wait count as what they decode to."""
    if why_one_job(loaded, device):
        return Limits(1, 0)
    chosen = limits(jobs, height, width)
    results = max(1, chosen.ahead // max(1, chosen.jobs - 1) // (height * width * 3))
    least = 0 if jobs is not None else LEAST_BYTES_TO_DECODE
    return chosen._replace(least=least, results=results)
