"""Large tensors come in large pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource
from elastictok_cli.machine import use_large_pages
use_large_pages()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(1 << 23)  # 32 MB: 8192 small pages, 16 large ones
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def said(program: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.skipif(
    not ALLOWED.is_file() or "[never]" in ALLOWED.read_text() or "[always]" in ALLOWED.read_text(),
    reason="here programs cannot choose large pages",
)
def test_large_tensors_cost_few_page_faults() -> None:
    assert int(said(FAULTS, THP_MEM_ALLOC_ENABLE="0")) > 8000
    assert int(said("import os; os.environ.pop('THP_MEM_ALLOC_ENABLE', None)\n" + FAULTS)) < 4000


def test_the_environment_has_the_last_word() -> None:
    asked = (
        "import os; from elastictok_cli.machine import use_large_pages; use_large_pages(); "
        "print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    )
    assert said("import os; os.environ.pop('THP_MEM_ALLOC_ENABLE', None); " + asked) == "1"
    assert said(asked, THP_MEM_ALLOC_ENABLE="0") == "0"
