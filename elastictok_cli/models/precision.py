"""Where float32 has to be float32.

Tokens and errors come from roundings of projected residuals, so what makes them may be computed neither in half
precision, as autocast would have it in training, nor in TF32 (10 bits of mantissa), which cuDNN uses unless told not
to. And where the number of threads may not change a sum.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_T = TypeVar("_T")


def full_precision(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Under autocast the function runs without it, and its half-precision tensors come as float32."""

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
        kind = given[0].device.type
        if not torch.is_autocast_enabled(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*map(_wide, args), **{name: _wide(x) for name, x in kwargs.items()})

    return run


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def forbid_tf32() -> None:
    """From now on convolutions and matrix products of this process are in whole float32 on CUDA devices too."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def forbid_sums_by_threads() -> None:
    """From now on MKL's matrix products on the CPU are the same with any number of threads, bit by bit.

    Otherwise it splits their sums by threads, and a file would depend on `--threads` and `--jobs`. It takes no time
    that can be measured. Of no effect where MKL was used before in this process, or where torch has another library.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
