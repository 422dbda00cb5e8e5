import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from elastictok_cli.models import checkpoint
from elastictok_cli.models.paper.config import PaperConfig
from elastictok_cli.models.paper.transformer import Output, PaperModel
from elastictok_cli.training import events
from elastictok_cli.training.paper import loop as paper
from elastictok_cli.training.paper import recipe
from elastictok_cli.training.paper.shards import Shards
from elastictok_cli.training.state import state_path
from scripts.drawing_kinds import write

CPU = torch.device("cpu")
FSQ = PaperConfig(
    name="tiny",
    patch=(1, 8, 8),
    frames=2,
    size=16,
    min_tokens=2,
    hidden=32,
    mlp=32,
    encoder_layers=1,
    decoder_layers=1,
    heads=2,
    window=2,
)
VAE = replace(FSQ, bottleneck="vae")
QUICK = recipe.Recipe(lr=3e-3, warmup=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short videos of gliding colours."""
    root = tmp_path_factory.mktemp("media")
    for n in range(4):
        rng = np.random.default_rng(n)
        small = torch.from_numpy(rng.random((1, 3, 3, 5))).float()
        large = torch.nn.functional.interpolate(small, (24, 44), mode="bicubic").clamp(0, 1)
        still = (large[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        with av.open(str(root / f"v{n}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
            for t in range(8):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(still[:, t : t + 32]), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return root


def options(folder: Path, out: Path, **changes: Any) -> paper.PaperOptions:
    base = paper.PaperOptions(data=(folder,), out=out, config=FSQ, steps=6, batch=4, shards=2, recipe=QUICK)
    return replace(base, **changes)


def ticks(run: Iterator[events.Event]) -> list[events.Tick]:
    return [event for event in run if isinstance(event, events.Tick)]


def stopped_after(step: int, run: paper.PaperOptions) -> list[events.Tick]:
    """Steps of a run that is told to stop once a step is seen; one more is then under way."""
    seen: list[events.Tick] = []
    for event in paper.train(run, CPU, lambda: bool(seen) and seen[-1].step >= step):
        if isinstance(event, events.Tick):
            seen.append(event)
    assert seen[-1].step == step + 1
    return seen


def state(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(state_path(out), weights_only=True)
    return found


def farthest(a: Path, b: Path) -> float:
    """The largest difference of any parameter."""
    one, other = state(a)["model"], state(b)["model"]
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("config", [FSQ, VAE], ids=["fsq", "vae"])
def test_the_loss_falls_and_the_result_is_a_codec(config: PaperConfig, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    run = options(folder, out, config=config, steps=60, batch=8, blocks=1, recipe=replace(QUICK, lr=1e-2))
    losses = [tick.loss for tick in ticks(paper.train(run, CPU))]
    assert np.mean(losses[-10:]) < 0.65 * np.mean(losses[:5])

    loaded = checkpoint.load(out)
    assert loaded.training["steps"] == 60
    clip = Shards(config, 1, [0], 1, seed=99)
    list(clip.load([folder], 8, 1 << 30))
    frames = clip.batch(0, 1).pictures
    tokenizer: Any = loaded.tokenizer
    errors = []
    for length in (2, config.block_tokens):
        (trial,) = tokenizer.trials(frames, tokenizer.start(16, 16), [(0, length)])
        shown, _ = tokenizer.decode(
            trial.tokens[None, :, None, None],
            torch.full((1, 1, 1), length),
            tokenizer.start(16, 16),
            count=2,
        )
        errors.append(float((shown - frames).square().mean()))
    assert errors[1] < 0.6 * float(frames.square().mean())
    assert errors[1] < errors[0]  # it has learned that tokens come and go


def test_every_length_is_dropped_to_as_often() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = recipe.kept_lengths(FSQ, 7000, generator)
    counts = Counter(lengths.tolist())
    assert sorted(counts) == list(range(FSQ.min_tokens, FSQ.block_tokens + 1))
    expected = 7000 / len(counts)
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi2 < 22.5  # 1 in 1000 for 6 degrees of freedom
    mask = recipe.keep_mask(FSQ, torch.tensor([3, 8, 2]))
    assert mask.view(3, 8).sum(1).tolist() == [3, 8, 2]
    assert mask.view(3, 8)[0].tolist() == [True] * 3 + [False] * 5
    # lengths of blocks know nothing of each other
    pairs = lengths.float().view(-1, 2).t()
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.06


def test_clips_grow_from_one_block_to_all(folder: Path, tmp_path: Path) -> None:
    assert recipe.stages(1) == [1]
    assert recipe.stages(4) == [1, 2, 4]
    assert recipe.stages(6) == [1, 2, 4, 6]
    assert [recipe.blocks_at(p, 4) for p in (0, 0.33, 0.34, 0.66, 0.67, 1)] == [1, 1, 2, 2, 4, 4]

    out = tmp_path / "m.safetensors"
    run = options(folder, out, steps=4, blocks=2)
    seen = ticks(paper.train(run, CPU))
    assert ["inter" in tick.errors for tick in seen] == [False, False, True, True]
    assert checkpoint.load(out).tokenizer.model.config.window == 2  # type: ignore[union-attr]


def test_a_checkpoint_has_the_window_it_was_trained_for(folder: Path, tmp_path: Path) -> None:
    run = options(folder, tmp_path / "m.safetensors", steps=4, blocks=2)
    stopped_after(1, run)
    assert checkpoint.load(run.out).tokenizer.model.config.window == 1  # type: ignore[union-attr]


def test_the_recipe_is_the_published_one() -> None:
    published = recipe.Recipe()
    assert [published.rate(n) for n in (0, 999, 1999, 10**6)] == pytest.approx([5e-8, 5e-5, 1e-4, 1e-4])
    model = PaperModel(FSQ)
    optimizer = published.optimizer(model)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["weight_decay"], group["eps"]) == ((0.9, 0.95), 1e-4, 1e-8)
    patches = torch.rand(2, 16, FSQ.patch_values)
    output = Output(patches + torch.tensor([0.1] * 8 + [0.2] * 8).view(1, 16, 1), patches, torch.tensor(1e6))
    terms = recipe.judge(published, FSQ, patches, output)
    assert float(terms.loss) == pytest.approx(0.025 + 0.01, rel=1e-4)
    assert float(terms.first) == pytest.approx(0.01, rel=1e-4)
    assert terms.later is not None
    assert float(terms.later) == pytest.approx(0.04, rel=1e-4)


@pytest.mark.parametrize("config", [FSQ, VAE], ids=["fsq", "vae"])
def test_a_stopped_run_goes_on_exactly(config: PaperConfig, folder: Path, tmp_path: Path) -> None:
    whole = options(folder, tmp_path / "whole.safetensors", config=config)
    list(paper.train(whole, CPU))
    part = replace(whole, out=tmp_path / "part.safetensors")
    first = stopped_after(2, part)
    assert [tick.step for tick in first] == [1, 2, 3]
    assert [tick.step for tick in ticks(paper.train(part, CPU))] == [4, 5, 6]
    assert farthest(whole.out, part.out) == 0
    one, other = (state(run.out)["optimizer"]["state"] for run in (whole, part))
    for name, values in one.items():
        for key, value in values.items():
            assert torch.equal(value, other[name][key]), (name, key)


@pytest.mark.parametrize("config", [FSQ, VAE], ids=["fsq", "vae"])
def test_parts_of_a_batch_and_recomputing_change_nothing(
    config: PaperConfig, folder: Path, tmp_path: Path
) -> None:
    plain = options(folder, tmp_path / "a.safetensors", config=config, steps=3)
    frugal = replace(plain, out=tmp_path / "b.safetensors", micro_batch=3, recompute=True)
    a, b = (ticks(paper.train(run, CPU)) for run in (plain, frugal))
    assert farthest(plain.out, frugal.out) < 1e-5
    assert [t.loss for t in a] == pytest.approx([t.loss for t in b], rel=1e-5)


def test_shards_hold_different_clips(folder: Path) -> None:
    held = []
    for place in (0, 2):
        shards = Shards(FSQ, 4, [place, place + 1], 2, seed=0)
        list(shards.load([folder], 8, 1 << 30))
        held.append({clip.name for part in shards.clips.values() for clip in part})
    assert held == [{"v0", "v2"}, {"v1", "v3"}]
    both = Shards(FSQ, 4, range(4), 2, seed=0)
    list(both.load([folder], 8, 1 << 30))
    alone = shards.batch(5, 2)
    assert torch.equal(both.batch(5, 2).pictures[2:], alone.pictures)
    assert torch.equal(both.batch(5, 2).lengths[2:], alone.lengths)
    assert not torch.equal(alone.pictures, shards.batch(6, 2).pictures)


def test_graphics_are_a_share_of_the_samples_whoever_asks(folder: Path, tmp_path: Path) -> None:
    screens = tmp_path / "screens"
    screens.mkdir()
    for n in range(2):
        write(screens / f"s{n}.mkv", [np.full((40, 48, 3), (n, t, 255), np.uint8) for t in range(8)])
    both = Shards(FSQ, 4, range(4), 2, seed=0, graphics_share=0.4)
    list(both.load([folder], 8, 1 << 30, [screens]))
    alone = Shards(FSQ, 4, [2, 3], 2, seed=0, graphics_share=0.4)
    list(alone.load([folder], 8, 1 << 30, [screens]))
    assert {clip.name for clip in alone.graphics[1]} == {"s1"}
    assert {clip.frames.shape for clip in alone.graphics[1]} == {(8, 40, 48, 3)}
    batches = [both.batch(step, 2).pictures for step in range(150)]
    assert torch.equal(batches[7][2:], alone.batch(7, 2).pictures)
    seen = float((torch.cat(batches)[:, :, 2] > 0.999).flatten(1).all(1).float().mean())
    assert abs(seen - 0.4) < 4 * (0.4 * 0.6 / 600) ** 0.5


def test_a_stopped_run_with_graphics_goes_on_exactly(folder: Path, tmp_path: Path) -> None:
    whole = options(folder, tmp_path / "whole.safetensors", graphics=(folder,), graphics_share=0.5)
    list(paper.train(whole, CPU))
    part = replace(whole, out=tmp_path / "part.safetensors")
    stopped_after(2, part)
    list(paper.train(part, CPU))
    assert farthest(whole.out, part.out) == 0
    assert checkpoint.load(whole.out).training["graphics_share"] == 0.5


def test_what_cannot_be_trained_is_said(folder: Path, tmp_path: Path) -> None:
    run = options(folder, tmp_path / "m.safetensors", steps=1)
    for changes, message in (
        ({"config": replace(FSQ, size=64, min_tokens=2)}, "at least 64 x 64"),
        ({"data": (tmp_path,)}, "no videos or photos"),
        ({"config": None}, "needs a config"),
        ({"config": None, "init": checkpoint.shipped()}, "another kind of model"),
    ):
        with pytest.raises(events.TrainingError, match=message):
            list(paper.train(replace(run, **changes), CPU))
    list(paper.train(run, CPU))
    with pytest.raises(events.TrainingError, match="another shape"):
        list(paper.train(replace(run, config=replace(FSQ, hidden=64)), CPU))
    other = replace(run, out=tmp_path / "n.safetensors", init=run.out)
    with pytest.raises(events.TrainingError, match="another config"):
        list(paper.train(replace(other, config=replace(FSQ, mlp=64)), CPU))
    list(paper.train(replace(other, config=None, steps=0), CPU))
    half = {name: value.bfloat16().float() for name, value in state(run.out)["model"].items()}
    for name, value in state(other.out)["model"].items():
        assert torch.equal(value, half[name] if value.ndim > 1 else state(run.out)["model"][name])
    state_path(run.out).write_bytes(b"nothing")
    with pytest.raises(events.TrainingError, match="cannot be read"):
        list(paper.train(run, CPU))


def torchrun(*arguments: str) -> "subprocess.Popen[str]":
    """Two processes on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), *arguments]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )


# Sums over a batch are rounded in another order: 3e-7 was seen after five steps, each of which moves parameters
# by up to 3e-3.
_TOLERANCE = 1e-5


def check_same(alone: paper.PaperOptions, together: Path) -> None:
    """The parameters of two runs from the same start are equal, and have moved far more than they differ."""
    assert farthest(alone.out, together) < _TOLERANCE
    torch.manual_seed(alone.seed)
    start, end = PaperModel(FSQ).state_dict(), state(alone.out)["model"]
    assert max(float((end[name] - value).abs().max()) for name, value in start.items()) >= QUICK.lr


def test_two_processes_do_what_one_does(folder: Path, tmp_path: Path) -> None:
    alone = options(folder, tmp_path / "alone.safetensors", steps=5)
    out, settings = tmp_path / "together.safetensors", tmp_path / "tiny.json"
    settings.write_text(json.dumps(FSQ.to_dict()))
    facts = (
        "--data",
        str(folder),
        "--out",
        str(out),
        "--config",
        str(settings),
        "--steps",
        "5",
        "--batch",
        "4",
    )
    rates = ("--lr", str(QUICK.lr), "--warmup", str(QUICK.warmup), "--device", "cpu")
    started = torchrun("-m", "elastictok_cli", "train", "--arch", "paper", *facts, *rates, "--json")
    losses = [tick.loss for tick in ticks(paper.train(alone, CPU))]
    stdout, stderr = started.communicate(timeout=400)
    assert started.returncode == 0, stderr
    lines = [json.loads(line) for line in stdout.splitlines()]  # one process speaks
    assert [line["type"] for line in lines] == ["saved", *["step"] * 5, "saved", "summary"]
    assert [line["loss"] for line in lines if line["type"] == "step"] == pytest.approx(losses, rel=1e-4)
    check_same(alone, out)
    # what two left, one takes up
    assert [tick.step for tick in ticks(paper.train(replace(alone, out=out, steps=6), CPU))] == [6]


_TOGETHER = """
import sys
from pathlib import Path
import pytest, torch
from test_train_paper import CPU, VAE, events, options, paper, replace, ticks
from elastictok_cli.training.paper import distributed

folder, out = map(Path, sys.argv[1:])
with distributed.started(CPU) as world:
    def run(name, stop=lambda: False, **changes):
        changes = {"shards": None, "steps": 5, "parallel": "fsdp"} | changes
        return ticks(paper._train(options(folder, out / f"{name}.safetensors", **changes), world, stop))

    assert (world.size, world.broadcast(world.rank), world.gather(world.rank)) == (2, 0, [0, 1])
    run("fsdp", recompute=True, micro_batch=1)

    # one is told to stop, both do; and go on
    seen = run("resumed", stop=lambda: world.rank == 1 and (out / "resumed.state.pt").exists())
    assert len(seen) == 0, seen
    assert [tick.step for tick in run("resumed")] == [1, 2, 3, 4, 5]
    run("changed", steps=3)
    assert [tick.step for tick in run("changed", parallel="ddp")] == [4, 5]
    run("vae", config=VAE, parallel="ddp", micro_batch=1)

    # what is wrong in one place is known in all
    with pytest.raises(events.TrainingError, match="cannot be shared by 2"):
        run("odd", batch=3)
    (out / "bad.state.pt").write_bytes(b"nothing")
    with pytest.raises(events.TrainingError, match="cannot be read"):
        run("bad")
"""


def test_parts_of_a_model_in_two_processes_do_what_one_does(folder: Path, tmp_path: Path) -> None:
    alone = options(folder, tmp_path / "alone.safetensors", steps=5)
    vae = replace(alone, out=tmp_path / "alone-vae.safetensors", config=VAE)
    script = tmp_path / "together.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{_TOGETHER}")
    started = torchrun(str(script), str(folder), str(tmp_path))
    list(paper.train(alone, CPU))
    list(paper.train(vae, CPU))
    _, stderr = started.communicate(timeout=400)
    assert started.returncode == 0, stderr
    for name in ("fsdp", "resumed"):
        check_same(alone, tmp_path / f"{name}.safetensors")
    assert farthest(vae.out, tmp_path / "vae.safetensors") < _TOLERANCE
