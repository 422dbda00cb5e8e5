import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell import encode
from elastictok_cli.models.cell.config import INTER, KEY, DefaultConfig
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.motion.decision import Motion
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.training import data, events, optim
from elastictok_cli.training.cell import klt, loop, rollout
from elastictok_cli.training.state import join
from scripts.drawing_kinds import write

CPU = torch.device("cpu")
# one frame per block keeps the KLT of a test small (768 dimensions)
TINY = DefaultConfig(
    name="tiny",
    frames=1,
    coefficients=64,
    stages=(1, 2, 4),
    width=16,
    prior_width=8,
    hidden=16,
    predict_blocks=1,
    synthesis_blocks=1,
)


def picture(seed: int, height: int = 72, width: int = 88) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.random((1, 3, height // 8, width // 8))).float()
    large = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (large[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of gliding pictures, three photos, and a file that is neither."""
    root = tmp_path_factory.mktemp("media")
    for n in range(2):
        with av.open(str(root / f"v{n}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            still = picture(n)
            for t in range(8):
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(still[:64, t : t + 64]), format="rgb24"
                )
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    for n in range(3):
        with av.open(str(root / f"p{n}.png"), "w") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 88, 72, "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(10 + n), format="rgb24")))
            container.mux(stream.encode())
    (root / "broken.mp4").write_bytes(b"not a video")
    (root / "notes.txt").write_text("nothing")
    return root


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of cells settle in more rounds than a test has time for."""
    monkeypatch.setattr(klt, "_LLOYD_ROUNDS", 1)
    monkeypatch.setattr(klt, "_MIN_CELLS_OF_CLASS", 20)


def options(folder: Path, out: Path, **changes: object) -> loop.TrainOptions:
    base = loop.TrainOptions(
        data=(folder,), out=out, steps=6, batch=2, blocks=2, crop=32, warmup=2, config=TINY, clip_frames=8
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def start(folder: Path) -> tuple[data.Sampler, DefaultModel]:
    """The clips of a folder and the start of a model fitted to them."""
    clips = list(
        data.load_clips(data.find_media([folder]), most_frames=8, short_side=64, seed=0, limit_bytes=1 << 30)
    )
    sampler = data.Sampler(clips, crop=32, frames=2, seed=1)
    torch.manual_seed(0)
    model = DefaultModel(TINY)
    klt.fit(model, sampler, clips=64)
    return sampler, model


def test_media_are_found_and_broken_files_skipped(folder: Path) -> None:
    paths = data.find_media([folder])
    assert [p.name for p in paths] == ["broken.mp4", "p0.png", "p1.png", "p2.png", "v0.mp4", "v1.mp4"]
    clips = list(data.load_clips(paths, most_frames=5, short_side=48, seed=0, limit_bytes=1 << 30))
    shapes = {c.name: c.frames.shape for c in clips}
    assert shapes["v0"] == (5, 48, 48, 3)
    assert shapes["p1"] == (1, 48, 59, 3)
    assert len(shapes) == 5


def test_the_cache_stops_at_its_limit(folder: Path) -> None:
    paths = data.find_media([folder])
    assert len(list(data.load_clips(paths, most_frames=5, short_side=48, seed=0, limit_bytes=1))) == 1


def test_crops_have_the_asked_shape_and_range(folder: Path) -> None:
    clips = list(
        data.load_clips(data.find_media([folder]), most_frames=8, short_side=64, seed=0, limit_bytes=1 << 30)
    )
    batch = data.Sampler(clips, crop=32, frames=6, seed=1).batch(12)
    assert batch.shape == (12, 6, 3, 32, 32)
    assert batch.min() >= -1.001
    assert batch.max() <= 1.001
    assert batch.std() > 0.1
    with pytest.raises(ValueError, match="at least 1000 x 1000"):
        data.Sampler(clips, crop=1000, frames=6, seed=1)


def test_the_start_is_a_codec_whose_curves_tell_the_truth(folder: Path) -> None:
    sampler, model = start(folder)
    for kind in (KEY, INTER):
        basis = model.basis[kind]
        torch.testing.assert_close(basis @ basis.t(), torch.eye(64), atol=1e-4, rtol=0)
        assert int(model.quantizer.index[kind].max()) < 64
    batch = sampler.batch(4)
    told: list[torch.Tensor] = []

    def rule(curve: torch.Tensor) -> torch.Tensor:
        keep = torch.full((4, 2, 2), 4)
        told.append(curve.gather(1, keep.unsqueeze(1)).sum((1, 2, 3)) / batch[0, :1].numel())
        return keep

    with torch.no_grad():
        steps = list(rollout.rollout(model, batch, (1, 1), torch.full((4,), 0.007), rule))
    for step, predicted in zip(steps, told, strict=True):
        torch.testing.assert_close(step.mse, predicted, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(step.linear_mse, predicted, atol=1e-5, rtol=1e-3)
    assert steps[0].mse.mean() < 0.2 * batch.square().mean()


def test_errors_before_the_last_network_have_a_gradient_of_their_own(folder: Path) -> None:
    """While that network does nothing it is that of the decoded error."""
    sampler, model = start(folder)
    parameters = [model.predict_out.bias, model.quantizer.log_step, model.key_mean]
    steps = rollout.rollout(
        model, sampler.batch(4), (1, 1), torch.full((4,), 0.007), lambda c: torch.full((4, 2, 2), 2)
    )
    for step in steps:
        last, before = (
            torch.autograd.grad(error.sum(), parameters, retain_graph=True, materialize_grads=True)
            for error in (step.mse, step.linear_mse)
        )
        for a, b in zip(last, before, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    assert float(last[0].abs().max()) > 0  # the prediction of the second block is corrected


def test_steps_lower_the_loss_of_the_start(folder: Path) -> None:
    sampler, model = start(folder)
    batch = sampler.batch(4)
    optimizers = optim.build(model, lr=1e-3)
    losses = []
    for _ in range(40):
        steps = rollout.rollout(
            model, batch, (1, 1), torch.full((4,), 0.007), lambda c: torch.full((4, 2, 2), 2)
        )
        loss = torch.stack([loop._loss(s) for s in steps]).mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05


def test_a_run_goes_on_exactly_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    # a constant rate: what remains of the budget must not matter here
    whole = options(folder, tmp_path / "whole.safetensors", cooldown=1e-9)
    list(loop.train(whole, CPU))
    part = replace(whole, out=tmp_path / "part.safetensors", steps=3)
    list(loop.train(part, CPU))
    list(loop.train(replace(part, steps=6), CPU))
    a, b = (torch.load(p.with_suffix(".state.pt"), weights_only=True) for p in (whole.out, part.out))
    assert a["step"] == b["step"] == 6
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name
    assert whole.out.stat().st_size == part.out.stat().st_size


@pytest.fixture(scope="module")
def screens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, larger than other clips are loaded, all of one colour: blue is 255 nowhere else."""
    root = tmp_path_factory.mktemp("screens")
    for n in range(3):
        write(root / f"s{n}.mkv", [np.full((80, 96, 3), (n, t, 255), np.uint8) for t in range(8)])
    return root


def blue(batch: torch.Tensor) -> torch.Tensor:
    """(B,) whether samples are those of `screens`."""
    return (batch[:, :, 2] > 0.999).flatten(1).all(1)


def test_a_share_of_the_samples_comes_from_the_graphics(folder: Path, screens: Path) -> None:
    clips, graphics = (
        list(
            data.load_clips(data.find_media([f]), most_frames=8, short_side=side, seed=0, limit_bytes=1 << 30)
        )
        for f, side in ((folder, 64), (screens, None))
    )
    assert {clip.frames.shape for clip in graphics} == {(8, 80, 96, 3)}
    for share in (0.2, 0.7):
        sampler = data.Sampler(clips, crop=32, frames=4, seed=3, graphics=graphics, graphics_share=share)
        seen = float(blue(sampler.batch(1000)).float().mean())
        assert abs(seen - share) < 4 * (share * (1 - share) / 1000) ** 0.5
    small = [replace(clip, frames=clip.frames[:, :40]) for clip in graphics]
    with pytest.raises(ValueError, match="at least 64 x 64 pixels in the graphics"):
        data.Sampler(clips, crop=64, frames=4, seed=3, graphics=small, graphics_share=0.5)


def test_without_graphics_random_numbers_are_drawn_as_before_there_were_any() -> None:
    """So that runs from then go on with the same samples."""
    shapes = ((8, 64, 64), (12, 48, 80), (1, 48, 59), (1, 72, 88))
    clips = [data.Clip("", np.zeros((*shape, 3), np.uint8)) for shape in shapes]
    sampler = data.Sampler(clips, crop=32, frames=4, seed=5)
    sampler.batch(50)
    assert sampler.rng.random() == 0.7301418201208841  # as the sampler without graphics left it


def test_a_run_with_graphics_goes_on_exactly_where_it_stopped(
    folder: Path, screens: Path, tmp_path: Path
) -> None:
    whole = options(
        folder, tmp_path / "whole.safetensors", cooldown=1e-9, graphics=(screens,), graphics_share=0.5
    )
    list(loop.train(whole, CPU))
    part = replace(whole, out=tmp_path / "part.safetensors", steps=3)
    list(loop.train(part, CPU))
    list(loop.train(replace(part, steps=6), CPU))
    without = replace(whole, out=tmp_path / "without.safetensors", graphics=())
    list(loop.train(without, CPU))
    a, b, c = (
        torch.load(run.out.with_suffix(".state.pt"), weights_only=True) for run in (whole, part, without)
    )
    assert a["step"] == b["step"] == 6
    assert a["sampler"] == b["sampler"]
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name
    assert any(not torch.equal(value, c["model"][name]) for name, value in a["model"].items())
    facts = checkpoint.load(whole.out).training
    assert (facts["graphics"], facts["graphics_share"]) == (3, 0.5)
    assert facts["clips"] + facts["photos"] == 5
    assert "graphics" not in checkpoint.load(without.out).training


def test_graphics_and_data_share_the_memory(
    folder: Path, screens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphics take their share at most, or little more; the data take the rest."""
    limits: list[int] = []
    load = data.load_clips

    def spy(paths: list[Path], **changes: Any) -> Any:
        limits.append(changes["limit_bytes"])
        return load(paths, **changes)

    monkeypatch.setattr(data, "load_clips", spy)
    run = options(
        folder,
        tmp_path / "m.safetensors",
        steps=0,
        graphics=(screens,),
        graphics_share=0.25,
        cache_bytes=10**6,
    )
    list(loop.train(run, CPU))
    one = 8 * 80 * 96 * 3
    assert limits == [250_000, 10**6 - 2 * one]  # the second clip was the one beyond the limit


def test_a_run_that_diverges_ends_and_keeps_what_was_saved(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_STEPS_BEFORE_JUDGED", 3)
    run = options(folder, tmp_path / "m.safetensors", steps=500, save_every=1e9)
    steps = loop.train(run, CPU)
    while not isinstance(event := next(steps), events.Tick) or event.step < 4:
        pass
    saved = run.out.read_bytes()
    monkeypatch.setattr(loop, "_loss", lambda step: 40.0 + 0.0 * step.mse.mean())
    with pytest.raises(events.TrainingError, match="diverged at step"):
        list(itertools.islice(steps, 30))
    assert run.out.read_bytes() == saved


def test_a_time_budget_ends_the_run(folder: Path, tmp_path: Path) -> None:
    run = options(folder, tmp_path / "m.safetensors", steps=None, time=0.5)
    ticks = [e for e in loop.train(run, CPU) if isinstance(e, events.Tick)]
    assert ticks[-1].progress == 1
    assert ticks[-1].seconds_left == 0


def test_state_in_pieces_can_be_joined(folder: Path, tmp_path: Path) -> None:
    run = options(folder, tmp_path / "m.safetensors", steps=1, shard_bytes=50_000)
    list(loop.train(run, CPU))
    state = tmp_path / "m.state.pt"
    whole = state.read_bytes()
    assert len(list(tmp_path.glob("m.state.pt.0*"))) == -(-len(whole) // 50_000)
    state.unlink()
    join(state)
    assert state.read_bytes() == whole


def test_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    run = options(folder, tmp_path / "m.safetensors", steps=1)
    list(loop.train(run, CPU))
    with pytest.raises(events.TrainingError, match="another shape"):
        list(loop.train(replace(run, steps=2, config=replace(TINY, width=24)), CPU))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(events.TrainingError, match="no videos or photos"):
        list(loop.train(options(tmp_path, tmp_path / "m.safetensors"), CPU))


def test_keep_maps_differ_over_the_picture_and_stay_in_range() -> None:
    curve = torch.rand(6, 1, 8, 8) * 0.9 ** torch.arange(10).view(1, -1, 1, 1)
    rule = rollout.random_keep(torch.full((6,), 0.1), 64, torch.Generator().manual_seed(0))
    keep = rule(curve)
    assert keep.min() >= 0
    assert keep.max() <= 9
    assert (keep.float().std((1, 2)) > 0).any()


def test_orthogonal_makes_singular_values_near_one() -> None:
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    for m in (matrix, matrix.t()):
        values = torch.linalg.svdvals(optim.orthogonal(m))
        assert values.min() > 0.6
        assert values.max() < 1.4


def test_every_parameter_has_one_optimizer() -> None:
    model = DefaultModel(TINY)
    groups = [g for o in optim.build(model, lr=1e-3) for g in o.param_groups]
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_training_under_autocast_measures_in_float32(folder: Path) -> None:
    """A keyframe block's tokens come before any network: they and the errors they leave are the same to the bit."""
    sampler, model = start(folder)
    batch = sampler.batch(4)

    def steps() -> list[rollout.Step]:
        rule = rollout.random_keep(
            torch.full((4,), 0.007), batch[0, :1].numel(), torch.Generator().manual_seed(0)
        )
        return list(rollout.rollout(model, batch, (1, 1), torch.full((4,), 0.007), rule))

    plain = steps()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = steps()
        losses = [loop._loss(step) for step in narrow]
    assert torch.equal(plain[0].curve, narrow[0].curve)
    assert torch.equal(plain[0].keep, narrow[0].keep)
    assert torch.equal(plain[0].linear_mse, narrow[0].linear_mse)
    for step, loss in zip(narrow, losses, strict=True):
        floats = (step.residual, step.decoded, step.mse, step.linear_mse, step.curve, loss)
        assert {x.dtype for x in floats} == {torch.float32}


def test_training_sees_the_reference_that_a_decoder_will(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, model = start(folder)
    seen: list[torch.Tensor] = []
    choose = encode.choose_motion

    def spy(
        config: DefaultConfig, block: torch.Tensor, context: Context, *rest: Any, **camera: bool
    ) -> Motion:
        seen.append(context.frame)
        return choose(config, block, context, *rest, **camera)

    monkeypatch.setattr(encode, "choose_motion", spy)
    target = torch.full((4,), 0.007)
    rule = rollout.random_keep(target, 32 * 32 * 3, torch.Generator().manual_seed(0))
    first, second = rollout.rollout(model, sampler.batch(4), (1, 1), target, rule)
    (frame,) = seen
    shown = first.decoded[:, -1].detach().clamp(-1, 1)
    assert torch.equal(frame, shown)
    second.mse.mean().backward()
    assert model.key_mean.grad is None or not model.key_mean.grad.any()  # decoded frames pass none on


def test_compile_compiles_what_training_calls(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a compiler: what would be compiled is counted as it is called."""
    calls: Counter[str] = Counter()

    def stub(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        owner = type(getattr(function, "__self__", function)).__name__

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[f"{owner}.{getattr(function, '__name__', 'forward')}"] += 1
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(torch, "compile", stub)
    losses = []
    for compiled in (False, True):
        out = tmp_path / f"{compiled}.safetensors"
        seen = list(loop.train(options(folder, out, steps=3, compile=compiled), CPU))
        losses.append([e.loss for e in seen if isinstance(e, events.Tick)])
        if not compiled:
            assert not calls
    blocks, predicted = 3 * 2, 3
    assert calls == {
        "DefaultModel.predict": predicted,
        "DefaultModel.synthesize": blocks,
        "NestedQuantizer._call_impl": blocks,
        "Prior._call_impl": blocks,
    }
    assert losses[0] == losses[1]
    assert checkpoint.load(out).training["steps"] == 3
