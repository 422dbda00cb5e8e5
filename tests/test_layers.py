"""Who may know whom (docs/architecture.md): read from the imports of every file, those inside functions too."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
MAX_LINES = 400

# What each part of elastictok_cli, and `formats`, may import. Whatever is not here is forbidden.
TOOLS = {"files", "machine", "version"}
BELOW_THE_CODEC = {"formats", "models.interface", "video", *TOOLS}
ALLOWED = {
    "formats": set(),
    "files": set(),
    "machine": set(),
    "version": set(),
    "devices": set(),
    "video": {"files"},
    "models.interface": set(),
    "models": {"files"},
    "codec": BELOW_THE_CODEC,
    "analysis": {"formats"},
    "drawing": {"analysis"},
    "report": {"analysis", "drawing", "formats", "version"},
    "evaluation": {"codec", "models", *BELOW_THE_CODEC},
    "training": {"codec", "evaluation", "models", *BELOW_THE_CODEC},  # it reports tokens at a target
    "model": {"devices", "models"},
    "token_video": {"analysis", "codec", "model", *BELOW_THE_CODEC},
    "api": {"analysis", "codec", "model", "models", "token_video", *BELOW_THE_CODEC},
    "commands": {
        "analysis",
        "codec",
        "devices",
        "drawing",
        "evaluation",
        "models",
        "report",
        "training",
        *BELOW_THE_CODEC,
    },
    "main": {"commands", *TOOLS},
    "__main__": {"machine", "main"},
    "__init__": {
        "api",
        "codec",
        "formats",
        "model",
        "models",
        "token_video",
        "version",
        "video",
    },  # on first use
}


class Import(NamedTuple):
    """That `importer` imports `imported`, both modules."""

    importer: str
    imported: str
    line: int
    at_import_time: bool  # neither inside a function nor for type checkers only
    for_types: bool


def _files() -> list[Path]:
    found = [*ROOT.glob("elastictok_cli/**/*.py"), *ROOT.glob("formats/**/*.py")]
    assert len(found) > 100
    return sorted(found)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_module(path): path for path in _files()}


def _imports(module: str, path: Path) -> Iterator[Import]:
    yield from _walk(module, ast.parse(path.read_text()), at_import_time=True, for_types=False)


def _walk(module: str, node: ast.AST, *, at_import_time: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for name in _names(module, child):
                yield Import(module, name, child.lineno, at_import_time, for_types)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(module, child, at_import_time=False, for_types=for_types)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _walk(module, child, at_import_time=False, for_types=True)
        else:
            yield from _walk(module, child, at_import_time=at_import_time, for_types=for_types)


def _names(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules of this program that a statement imports; `from a import b` is a.b where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, f"{module} imports by a relative name"
    assert node.module is not None
    for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        yield whole if whole in MODULES else node.module


ALL = [found for module, path in MODULES.items() for found in _imports(module, path)]
OWN = [found for found in ALL if found.imported.split(".")[0] in ("elastictok_cli", "formats")]


def _part(module: str) -> str:
    """The key of ALLOWED that a module belongs to."""
    if module.split(".")[0] == "formats":
        return "formats"
    inside = module.split(".")[1:]
    if not inside:
        return "__init__"
    return next((key for key in (".".join(inside[:2]), inside[0]) if key in ALLOWED), inside[0])


def _may(importer: str, imported: str) -> bool:
    allowed = ALLOWED[importer]
    if imported == importer or imported in allowed or imported.split(".")[0] in allowed:
        return True
    return importer == "models" and imported.startswith("models.")


def test_every_part_is_in_the_table() -> None:
    assert {_part(module) for module in MODULES} == set(ALLOWED)


def test_no_arrow_points_the_wrong_way() -> None:
    wrong = [
        f"{found.importer}:{found.line} imports {found.imported}"
        for found in OWN
        if not _may(_part(found.importer), _part(found.imported))
    ]
    assert not wrong, "\n".join(wrong)


def test_parts_do_not_know_each_other_in_a_circle() -> None:
    """Also through functions and types: the table itself has no circle."""
    arrows = {
        part: {name for name in ALLOWED if name != part and _may(part, name)}
        for part in ALLOWED
        if not part.startswith("models")
    }
    assert not _circle(arrows)


def test_no_module_imports_itself_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in OWN:
        if found.at_import_time and found.imported != found.importer:
            arrows[found.importer].add(found.imported)
    assert not _circle(arrows)


def _circle(arrows: dict[str, set[str]]) -> list[str]:
    """The names of one circle; [] if there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := visit(name, []))), [])


def test_the_search_for_circles_finds_them() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_inside_functions_are_seen() -> None:
    tree = ast.parse("def f():\n    from formats import Block\nif TYPE_CHECKING:\n    import formats.reader")
    found = list(_walk("m", tree, at_import_time=True, for_types=False))
    assert found == [
        Import("m", "formats", 2, at_import_time=False, for_types=False),
        Import("m", "formats.reader", 4, at_import_time=False, for_types=True),
    ]


def test_no_file_is_longer_than_a_head_can_hold() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: lines for module, lines in lengths.items() if lines > MAX_LINES}


def test_without_torch() -> None:
    """What the command line imports before it knows the command, and all that shows a file without decoding it.

    That `--help` and `stats` stay without it to their end, tests/commands/test_cmd_startup.py holds.
    """
    light = ("formats", "analysis", "drawing", "report", "main", "model", "token_video", "api", "__init__")
    names = [module for module in MODULES if _part(module) in light]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_formats_and_analysis_never_import_torch() -> None:
    """Not inside functions either, nor through what those import."""
    reached = {m for m in MODULES if _part(m) in ("formats", "analysis")}
    while more := {f.imported for f in OWN if f.importer in reached and not f.for_types} - reached:
        reached |= more
    heavy = [
        f"{found.importer}:{found.line} imports {found.imported}"
        for found in ALL
        if found.importer in reached and found.imported.split(".")[0] in ("torch", "av", "safetensors")
    ]
    assert not heavy, "\n".join(heavy)


def test_the_page_of_the_architecture_names_files_that_exist() -> None:
    """Paths from elastictok_cli/ or the root; in the picture, from the folder of the frame around them."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    picture = page.split("```mermaid\n")[1].split("```")[0]
    named = {(ROOT, name) for name in re.findall(r"`([\w/]+\.(?:py|md))`", page)}
    folder = ""
    for line in picture.splitlines():
        if frame := re.search(r'subgraph \w+\["([\w/]+)/', line):
            folder = frame[1]
        inside = ROOT if folder == "formats" else ROOT / "elastictok_cli" / folder
        named |= {(inside, name) for name in re.findall(r"[\w/]+\.py", line)}
    assert len(named) > 60
    places = (ROOT, ROOT / "elastictok_cli", ROOT / "formats" / "coding")
    missing = [n for inside, n in named if not any((place / n).is_file() for place in (inside, *places))]
    assert not missing, "\n".join(sorted(missing))
