"""docs/paper.md, held against the code that it points at."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.tiles import PaperTokenizer
from elastictok_cli.models.paper.transformer import PaperModel

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "elastictok_cli"
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
MODEL = (
    PACKAGE / "models" / "paper" / "transformer.py"
)  # where a name is looked for that stands without a file


def names(path: Path) -> set[str]:
    """Classes, functions, methods ("Class.method") and constants of a file."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def load_benchmark() -> ModuleType:
    """benchmarks/paper.py as a module."""
    spec = importlib.util.spec_from_file_location("paper_benchmark", ROOT / "benchmarks" / "paper.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's first table, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("idea", rows("Each idea, and where it is"), ids=lambda row: row[0][:40])
def test_each_idea_is_where_the_page_says(idea: list[str]) -> None:
    _, where = idea
    quoted = re.findall(r"`([^`]+)`", where)
    files = [PACKAGE / text for text in quoted if text.endswith(".py")]
    assert all(file.is_file() for file in files), where
    known = set().union(*(names(file) for file in [*files, MODEL]))
    for text in quoted:
        assert text.endswith(".py") or " " in text or text in known, f"{text} is in none of {files}"
    assert quoted


def test_files_named_anywhere_exist() -> None:
    named = re.findall(r"`(?:python )?([\w/]+\.py)`", PAGE)
    assert named
    for text in named:
        assert (ROOT / text).is_file() or (PACKAGE / text).is_file(), text
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_benchmarks_beside_the_numbers_can_be_run() -> None:
    """Every `pass --config ...` of the page is something that benchmarks/paper.py takes."""
    quoted = re.findall(r"`((?:pass|search|probes|clip|memory) --[^`]+)`", PAGE)
    assert quoted
    benchmark = load_benchmark()
    for command in quoted:
        benchmark.parse(shlex.split(command))  # argparse leaves with an error where it does not


def test_the_timed_search_is_a_search() -> None:
    """On a small model: it asserts itself that it ends at the shortest length that passes."""
    benchmark = load_benchmark()
    config = PaperConfig(
        bottleneck="vae", patch=(2, 16, 16), min_tokens=32, hidden=32, mlp=32, heads=2,
        encoder_layers=1, decoder_layers=1,
    )  # fmt: skip
    tokenizer = PaperTokenizer(PaperModel(config).requires_grad_(False))
    facts = list(benchmark.whole_search(tokenizer, benchmark.parse(["search", "--blocks", "2"])))
    assert [fact["kept"] for fact in facts] == [154, 154]
    assert facts[0]["probes"] <= 6
