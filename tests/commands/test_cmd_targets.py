"""Where output goes: through links, with the permissions a file had, and under the name the user gave it."""

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_samples import frame_count, make_clip, run, start

from elastictok_cli.files import Part, Unwritable, replacing, writing
from elastictok_cli.models import checkpoint

# Every command that writes, with the name of what it writes.
_WRITERS = {
    "encode": ("out.etk", lambda clip, etk, out: ("encode", clip, out, "--tokens", 1)),
    "decode": ("out.mp4", lambda clip, etk, out: ("decode", etk, out)),
    "decode y4m": ("out.y4m", lambda clip, etk, out: ("decode", etk, out)),
    "decode png": ("out.png", lambda clip, etk, out: ("decode", etk, out, "--duration", 0.01)),
    "thin": ("out.etk", lambda clip, etk, out: ("thin", etk, out, "--keep", 0.5)),
    "stats csv": ("out.csv", lambda clip, etk, out: ("stats", etk, "--csv", out)),
    "stats plot": ("out.png", lambda clip, etk, out: ("stats", etk, "--plot", out)),
    "report": ("out.html", lambda clip, etk, out: ("report", etk, out, "--pictures", 0)),
    "compare": ("out.mp4", lambda clip, etk, out: ("compare", clip, etk, "-o", out, "--no-ssim")),
    "train": (
        "out.safetensors",
        lambda clip, etk, out: (
            *("train", "--data", clip.parent, "--out", out, "--steps", 0, "--init", checkpoint.shipped()),
            *("--batch", 1, "--blocks", 2, "--crop", 32, "--cache-gb", 0.1),
        ),
    ),
}
_each_writer = pytest.mark.parametrize(("name", "command"), _WRITERS.values(), ids=_WRITERS)
_Command = Callable[[Path, Path, Path], tuple[object, ...]]


def _left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@_each_writer
def test_a_link_is_written_through_and_permissions_stay(
    name: str, command: _Command, clip: Path, etk: Path, tmp_path: Path
) -> None:
    real, links = tmp_path / "real", tmp_path / "links"
    real.mkdir()
    links.mkdir()
    old, link = real / "old", links / name
    old.write_bytes(b"old")
    old.chmod(0o600)
    link.symlink_to(Path("..") / "real" / "old")
    done = run(*command(clip, etk, link), "-y")
    assert done.exit_code == 0, done.stderr
    assert link.is_symlink()
    assert old.read_bytes() not in (b"old", b"")
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert _left(real) == {"old"}
    assert {path for path in _left(links) if ".part" in path} == set()


@_each_writer
def test_a_link_to_nothing_makes_the_file_it_names(
    name: str, command: _Command, clip: Path, etk: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / name
    link.symlink_to(tmp_path / "real" / "new")
    mask = os.umask(0o027)
    try:
        done = run(*command(clip, etk, link))
    finally:
        os.umask(mask)
    assert done.exit_code == 0, done.stderr
    assert link.is_symlink()
    assert (tmp_path / "real" / "new").stat().st_size > 0
    assert stat.S_IMODE((tmp_path / "real" / "new").stat().st_mode) == 0o640
    assert _left(tmp_path / "real") == {"new"}


@_each_writer
def test_a_link_that_leads_nowhere_is_one_sentence(
    name: str, command: _Command, clip: Path, etk: Path, tmp_path: Path
) -> None:
    circle, lost = tmp_path / "circle", tmp_path / "lost"
    circle.mkdir()
    lost.mkdir()
    (circle / name).symlink_to(circle / "other")
    (circle / "other").symlink_to(circle / name)
    (lost / name).symlink_to(tmp_path / "none" / name)
    for folder, code, said in (
        (circle, 3, f"elastictok: {circle / name} cannot be written: Too many levels of symbolic links\n"),
        (lost, 2, f"elastictok: the folder {tmp_path / 'none'} does not exist\n"),
    ):
        done = run(*command(clip, etk, folder / name), "-y")
        assert (done.exit_code, done.stderr) == (code, said)
    assert _left(circle) == {name, "other"}


@_each_writer
def test_a_folder_that_is_read_only_is_told_before_any_work(
    name: str, command: _Command, clip: Path, etk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("elastictok_cli.models.checkpoint.load", work)
    monkeypatch.setattr("elastictok_cli.video.reader.VideoReader.__init__", work)
    for folder in ("/proc", "/sys"):  # where root cannot write either
        target = Path(folder) / name
        done = run(*command(clip, etk, target))
        assert done.exit_code == 3
        assert done.stderr.startswith(f"elastictok: {target} cannot be written: ")
        assert done.stderr.count("\n") == 1


@_each_writer
def test_a_file_that_is_read_only_stays(
    name: str, command: _Command, clip: Path, etk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / name
    target.write_bytes(b"old")
    target.chmod(0o400)
    access = os.access  # root may write all the same
    monkeypatch.setattr(
        "os.access", lambda path, mode: (path != target or mode != os.W_OK) and access(path, mode)
    )
    done = run(*command(clip, etk, target), "-y")
    assert (done.exit_code, done.stderr) == (
        3,
        f"elastictok: {target} cannot be written: Permission denied\n",
    )
    assert target.read_bytes() == b"old"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A clip in a folder of its own, and an .etk file of it, so large that every output of it is."""
    folder = tmp_path_factory.mktemp("film")
    clip = make_clip(folder / "film.mp4", count=60)
    assert run("encode", clip, folder / "film.etk", "--tokens", 60, "-q").exit_code == 0
    return clip, folder / "film.etk"


@_each_writer
def test_a_full_disk_names_the_file_that_was_asked_for(
    name: str, command: _Command, film: tuple[Path, Path], tmp_path: Path
) -> None:
    """A limit of the size of files stands for the disk: in Python, in FFmpeg, in safetensors."""
    target = tmp_path / name
    target.write_bytes(b"old")
    target.chmod(0o640)
    process = start(
        *command(*film, target),
        "-y",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
    )
    _, said = process.communicate()
    *_, last = said.decode().splitlines()
    assert process.returncode == 3, said.decode()
    assert last.startswith(f"elastictok: {target} cannot be written: ")
    assert "File too large" in last
    assert ".part" not in last
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"old", 0o640)
    assert _left(tmp_path) == {name}


@pytest.mark.parametrize(
    "arguments",
    [
        ("decode", "ETK", "-"),
        ("decode", "ETK", "-", "--raw"),
        ("thin", "ETK", "-", "--keep", 0.5),
        ("stats", "ETK"),
        ("stats", "ETK", "--json"),
        ("stats", "ETK", "--csv", "-"),
        ("report", "ETK", "-", "--pictures", 0),
        ("models",),
    ],
)
def test_a_full_standard_output_is_named(arguments: tuple[object, ...], film: tuple[Path, Path]) -> None:
    given = [film[1] if word == "ETK" else word for word in arguments]
    with Path("/dev/full").open("wb") as full:
        process = start(*given, stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate()
    *_, last = said.decode().splitlines()
    assert process.returncode == 3
    assert last == "elastictok: standard output cannot be written: No space left on device"


def test_a_full_device_is_named(etk: Path) -> None:
    done = run("thin", etk, "/dev/full", "--keep", 0.5, "-q")
    assert (done.exit_code, done.stderr) == (
        3,
        "elastictok: /dev/full cannot be written: No space left on device\n",
    )


def test_a_folder_of_pictures_is_written_through_a_link(etk: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "frames"
    real.mkdir()
    link.symlink_to(real)
    assert run("decode", etk, link).exit_code == 0
    (real / "frame-000001.png").chmod(0o600)
    assert run("decode", etk, f"{link}/", "-y", "--duration", 0.1).exit_code == 0
    assert link.is_symlink()
    assert _left(real) == {f"frame-00000{number}.png" for number in range(3)}
    modes = [stat.S_IMODE((real / f"frame-00000{number}.png").stat().st_mode) for number in range(3)]
    assert modes == [0o644 & ~_umask(), 0o600, 0o644 & ~_umask()]
    assert _left(tmp_path) == {"real", "frames"}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_written_is_as_private_as_what_it_replaces(tmp_path: Path) -> None:
    """Also before it is complete."""
    target = tmp_path / "a"
    target.write_bytes(b"old")
    for mode in (0o600, 0o664, 0o755):
        target.chmod(mode)
        with replacing(target) as part:
            assert stat.S_IMODE(part.stat().st_mode) == mode
            part.write_bytes(b"new")
        assert stat.S_IMODE(target.stat().st_mode) == mode


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    for opened in (replacing, writing):
        with pytest.raises(RuntimeError), opened(target):
            raise RuntimeError
        assert (target.read_bytes(), _left(tmp_path)) == (b"old", {"a"})


def test_the_systems_error_is_named_whatever_becomes_of_it(tmp_path: Path) -> None:
    """torch, for one, makes a RuntimeError of it."""
    target = tmp_path / "full"
    target.symlink_to("/dev/full")

    def write() -> None:
        with writing(target) as stream:
            try:
                stream.write(bytes(1 << 20))
            except OSError:
                raise RuntimeError("unexpected pos 64 vs 0") from None

    with pytest.raises(Unwritable, match=f"^{target} cannot be written: No space left on device$"):
        write()
    assert target.is_symlink()


def test_what_was_forgotten_is_removed_at_the_end(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from elastictok_cli.files import Part\n"
        "Part(Path(sys.argv[1])).create()\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a"], check=True)
    assert _left(tmp_path) == set()
    part = Part(tmp_path / "a").create()
    assert len(_left(tmp_path)) == 1
    part.discard()


def test_standard_output_by_its_device_goes_to_the_file_it_leads_to(etk: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.etk"
    with target.open("wb") as stream:
        process = start("thin", etk, "/dev/stdout", "--keep", 0.5, "-y", "-q", stdout=stream)
        process.communicate()
    assert process.returncode == 0
    assert frame_count(target) == frame_count(etk)
    assert Path("/dev/stdout").is_symlink()
