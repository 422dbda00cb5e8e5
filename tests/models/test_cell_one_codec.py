"""Training and decoding run the same code as encoding, and what they share is worked out once."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from elastictok_cli.codec.pixels import make_job, to_uint8
from elastictok_cli.codec.rate_control import EFFORTS, draft, meet_target
from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.context import Context
from elastictok_cli.models.cell.networks import DefaultModel
from elastictok_cli.models.cell.tokenizer import DefaultTokenizer
from elastictok_cli.training.cell.rollout import rollout


@pytest.fixture(scope="module")
def tokenizer() -> DefaultTokenizer:
    tokenizer = checkpoint.load().tokenizer
    assert isinstance(tokenizer, DefaultTokenizer)
    return tokenizer


def gliding() -> torch.Tensor:
    """(1, 8, 3, 96, 128): a texture that glides, under a patch that goes its own way."""
    noise = torch.rand(2, 3, 8, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    ground, patch = F.interpolate(noise, scale_factor=16, mode="bilinear").unbind(0)
    frames = [ground[:, 8:104, 3 * t + 8 : 3 * t + 136].clone() for t in range(8)]
    for t, frame in enumerate(frames):
        frame[:, 32:64, 16:96] = patch[:, 4 * t : 4 * t + 32, 32:112]
    return torch.stack(frames)[None]


def after_keyframe(tokenizer: DefaultTokenizer, frames: torch.Tensor) -> Context:
    encoding = tokenizer.encode(frames, None, count=4)
    return tokenizer.decode(encoding.tokens, encoding.length, None, count=4)[1]


def test_an_encode_predicts_once_for_each_motion(
    tokenizer: DefaultTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = gliding()
    context = after_keyframe(tokenizer, clip[:, :4])
    motions: Counter[bytes] = Counter()
    decodes: list[torch.Tensor] = []
    predict, decode = DefaultModel.predict, DefaultTokenizer.decode

    def counted_predict(
        self: DefaultModel,
        moved: torch.Tensor,
        context: Context,
        vectors: torch.Tensor,
        count: int,
        shake: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        motions[vectors.numpy().tobytes() + (b"" if shake is None else shake.numpy().tobytes())] += 1
        return predict(self, moved, context, vectors, count, shake)

    def counted_decode(self: DefaultTokenizer, tokens: torch.Tensor, *rest: Any, **more: Any) -> Any:
        decodes.append(tokens)
        return decode(self, tokens, *rest, **more)

    monkeypatch.setattr(DefaultModel, "predict", counted_predict)
    monkeypatch.setattr(DefaultTokenizer, "decode", counted_decode)
    pixels = to_uint8(clip[0, 4:]).permute(0, 2, 3, 1).numpy()
    job = make_job(pixels, tokenizer, torch.device("cpu"))
    coded = meet_target(tokenizer, draft(tokenizer, job, context, 0.003), 0.003, effort=EFFORTS[9])
    assert not coded.missed
    assert len(decodes) > len(motions)
    assert set(motions.values()) == {1}


def test_what_is_reused_changes_nothing(tokenizer: DefaultTokenizer) -> None:
    clip = gliding()
    context = after_keyframe(tokenizer, clip[:, :4])
    encoding = tokenizer.encode(clip[:, 4:], context, count=4, target=0.003)
    assert bool((encoding.tokens[:, 0] >= 64_000).any())
    for most in (60, 3, 0, 60):
        keep = encoding.length.clamp_max(most)
        alone = tokenizer.decode(encoding.tokens, keep, context, count=4)
        shared = tokenizer.decode(encoding.tokens, keep, context, count=4, reuse=encoding.reuse)
        assert torch.equal(alone[0], shared[0])
        for mine, other in zip(alone[1], shared[1], strict=True):
            assert mine is other is None or torch.equal(mine, other)


def test_what_another_block_left_is_refused(tokenizer: DefaultTokenizer) -> None:
    clip = gliding()
    context = after_keyframe(tokenizer, clip[:, :4])
    encoding = tokenizer.encode(clip[:, 4:], context, count=4)
    other = Context(*context)
    for seen, count in ((other, 4), (context, 3)):
        with pytest.raises(ValueError, match="another block"):
            tokenizer.decode(encoding.tokens, encoding.length, seen, count=count, reuse=encoding.reuse)


def test_training_sees_what_a_decoder_shows(tokenizer: DefaultTokenizer) -> None:
    """Five codes in every cell, motion vectors besides, without the gains and pans that training leaves out."""
    config = replace(tokenizer.model.config, camera_pan=False, camera_shake=False)
    model = DefaultModel(config)
    model.load_state_dict(tokenizer.model.state_dict())
    plain, clip, target = DefaultTokenizer(model), gliding(), 0.007
    steps = rollout(
        model, clip, (4, 4), torch.tensor([target]), lambda curve: torch.full_like(curve[:, 0], 5).long()
    )
    context: Context | None = None
    for step, frames in zip(steps, clip.split(4, 1), strict=True):
        encoding = plain.encode(frames, context, count=4, target=target, complete=True)
        control = (encoding.tokens >= 64_000).sum(1)
        assert torch.equal(control > 0, step.sent)
        shown, context = plain.decode(encoding.tokens, control + 5, context, count=4)
        torch.testing.assert_close(shown, step.decoded.detach().clamp(-1, 1), rtol=0, atol=1e-4)
    assert bool(step.sent.any())
