"""The paper's model against numbers of the official code (tests/golden/official)."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from elastictok_cli.models.paper import attention, bottleneck
from elastictok_cli.models.paper.config import PRESETS, PaperConfig
from elastictok_cli.models.paper.conversion import from_official, read_stream
from elastictok_cli.models.paper.patches import patchify, unpatchify
from elastictok_cli.models.paper.transformer import PaperModel

GOLDEN = Path(__file__).parents[1] / "golden" / "official"
NAMES = ("fsq", "vae")
SETS = ("a", "b", "c")
TOKENS = 32


def tiny_config(name: str, numbers: dict[str, np.ndarray]) -> PaperConfig:
    official = json.loads(str(numbers["config_json"]))
    return PaperConfig(
        name=f"tiny-{name}",
        bottleneck=official["bottleneck_type"],
        patch=tuple(official["patch_size"]),
        size=32,
        min_tokens=official["min_toks"],
        hidden=official["hidden_size"],
        mlp=official["intermediate_size"],
        encoder_layers=official["num_encoder_layers"],
        decoder_layers=official["num_decoder_layers"],
        heads=official["num_attention_heads"],
        theta=official["theta"],
    )


class Golden:
    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as file:
            self.numbers = {key: file[key] for key in file.files}
        self.config = tiny_config(name, self.numbers)
        self.model = PaperModel(self.config)
        tensors = from_official(read_stream(GOLDEN / f"{name}_params.stream"), self.config)
        self.model.load_state_dict({key: value.as_tensor() for key, value in tensors.items()})
        self.patches = torch.from_numpy(self.numbers["vision"]).float()[None] / 127.5 - 1

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.numbers[key]))


@pytest.fixture(scope="module", params=NAMES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def block_errors(recon: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    return (recon - patches).square().unflatten(1, (-1, TOKENS)).mean((0, 2, 3))


def test_patches_are_cut_as_officially_and_put_back(golden: Golden) -> None:
    frames = golden["frames"].permute(0, 3, 1, 2)[None]
    patches = patchify(frames, golden.config)
    assert torch.equal(patches[0], golden["vision"])
    assert torch.equal(unpatchify(patches, golden.config), frames)


@pytest.mark.parametrize("which", SETS)
@torch.no_grad()
def test_whole_pass(golden: Golden, which: str) -> None:
    keep = golden[f"{which}/encoding_mask"][None]
    raw, _ = golden.model.encoder(golden.patches, keep)
    close(raw[0], golden[f"{which}/pre_quant"])
    out = golden.model(golden.patches, keep)
    close(out.codes[0], golden[f"{which}/z"])
    close(out.recon[0], golden[f"{which}/recon"])
    close(block_errors(out.recon, golden.patches), golden[f"{which}/block_mse"], 1e-5)
    if golden.config.bottleneck == "fsq":
        index = bottleneck.codes_to_index(out.codes[0], golden.config.levels)
        assert torch.equal(index, golden[f"{which}/indexes"])
        assert torch.equal(bottleneck.index_to_codes(index, golden.config.levels), out.codes[0])
    else:
        kl = bottleneck.KL_WEIGHT * out.kl
        torch.testing.assert_close(kl, golden[f"{which}/stats_aux_loss"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("which", SETS)
@torch.no_grad()
def test_block_by_block_with_the_cache(golden: Golden, which: str) -> None:
    model = golden.model
    mask = golden[f"{which}/encoding_mask"][None]
    seen: attention.Past = ()
    told: attention.Past = ()
    recon = []
    for block in range(3):
        span = slice(block * TOKENS, (block + 1) * TOKENS)
        codes, new = model.encode(golden.patches[:, span], mask[:, span], seen)
        seen = model.extend(seen, new)
        if golden.config.bottleneck == "fsq":
            index = bottleneck.codes_to_index(codes[0], golden.config.levels)
            assert torch.equal(index, golden[f"{which}/indexes"][span])
        close(codes[0], golden[f"{which}/z"][span])
        out, new = model.decode(codes, mask[:, span], told)
        told = model.extend(told, new)
        recon.append(out)
    whole = torch.cat(recon, 1)
    close(whole[0], golden[f"{which}/recon_cached"])
    close(block_errors(whole, golden.patches), golden[f"{which}/block_mse_cached"], 1e-5)


@torch.no_grad()
def test_modules_in_between(golden: Golden) -> None:
    """So that a failure above can be placed."""
    model, keep = golden.model, golden["a/encoding_mask"][None]
    x = model.encoder.in_proj(golden.patches)
    close(x[0], golden["a/inter/encoder/in_proj"])
    raw, _ = model.encoder(golden.patches, keep)
    codes, _ = model.bottleneck(raw, keep)
    x = model.decoder.post_quant(codes * keep.unsqueeze(-1))
    close(x[0], golden["a/inter/decoder/post_quant"])
    x, _ = model.decoder.blocks(x)
    close(x[0], golden["a/inter/decoder/ln_f"])
    close(model.decoder.out_proj(x)[0], golden["a/inter/decoder/out_proj"], 3e-4)


@torch.no_grad()
def test_segments_do_not_see_each_other(golden: Golden) -> None:
    keep = golden["a/encoding_mask"][None]
    segments = golden["seg/segment_ids"][None]
    out = golden.model(golden.patches, keep, segments)
    close(out.recon[0], golden["seg/recon"])
    assert not torch.allclose(out.recon[0], golden["a/recon"], atol=1e-2)


@torch.no_grad()
def test_errors_at_every_length(golden: Golden) -> None:
    """`curve`: block n at every length, after blocks kept as in set a."""
    model = golden.model
    mask = golden["a/encoding_mask"][None]
    seen: attention.Past = ()
    told: attention.Past = ()
    for block in range(3):
        span = slice(block * TOKENS, (block + 1) * TOKENS)
        lengths = golden["curve/ntoks"] + 1  # the official mask keeps one more than it says
        keep = torch.arange(TOKENS) < lengths[:, None]
        batch = len(lengths)
        patches = golden.patches[:, span].expand(batch, -1, -1)

        def spread(past: attention.Past, batch: int = batch) -> attention.Past:
            return tuple(
                tuple(attention.KV(*(x.expand(batch, -1, -1, -1) for x in kv)) for kv in cache)
                for cache in past
            )

        codes, _ = model.encode(patches, keep, spread(seen))
        recon, _ = model.decode(codes, keep, spread(told))
        close((recon - patches).square().mean((1, 2)), golden["curve/block_mse"][block], 1e-5)
        codes, new = model.encode(patches[:1], mask[:, span], seen)
        seen = model.extend(seen, new)
        told = model.extend(told, model.decode(codes, mask[:, span], told)[1])


def test_gradients(golden: Golden) -> None:
    model = golden.model
    model.zero_grad()
    out = model(golden.patches, golden["a/encoding_mask"][None])
    loss = (out.recon - golden.patches).square().mean()
    close(loss.detach(), golden["grad/loss"], 1e-6)
    loss.backward()
    wanted = {key[len("grad_norm/") :]: golden[key] for key in golden.numbers if key.startswith("grad_norm/")}
    norms: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        norms[name] = float(parameter.grad.square().sum())
    layer = "decoder/decoder_blocks/{}/feed_forward/w2/kernel"
    stacked = layer.format("scan_decoder") in wanted
    if stacked:
        total = sum(norms[f"decoder.blocks.layers.{i}.mlp.w2.weight"] for i in range(2))
        torch.testing.assert_close(total**0.5, float(wanted[layer.format("scan_decoder")]), rtol=1e-3, atol=0)
    else:
        for i in range(2):
            own = norms[f"decoder.blocks.layers.{i}.mlp.w2.weight"] ** 0.5
            torch.testing.assert_close(own, float(wanted[layer.format(i)]), rtol=1e-3, atol=0)
    for official, own in {
        "encoder/is_kept_embed": "encoder.is_kept_embed",
        "encoder/in_proj/kernel": "encoder.in_proj.weight",
        "encoder/pre_quant/kernel": "encoder.pre_quant.weight",
        "decoder/out_proj/kernel": "decoder.out_proj.weight",
    }.items():
        torch.testing.assert_close(norms[own] ** 0.5, float(wanted[official]), rtol=1e-3, atol=0)
    kernel = model.get_parameter("decoder.post_quant.weight").grad
    assert kernel is not None
    torch.testing.assert_close(kernel.T, golden["grad/decoder/post_quant/kernel"], rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_the_window_slides_and_memory_stays() -> None:
    """After any number of blocks attention spans `window` of them, at the positions of training."""
    g = torch.Generator().manual_seed(0)
    config = Golden("vae").config
    model = Golden("vae").model
    patches = torch.randn(1, 7 * TOKENS, config.patch_values, generator=g).clamp(-1, 1)
    keep = torch.ones(1, TOKENS, dtype=torch.bool)
    past: attention.Past = ()
    for block in range(7):
        _, new = model.encode(patches[:, block * TOKENS : (block + 1) * TOKENS], keep, past)
        past = model.extend(past, new)
        assert len(past) == min(block + 1, config.window - 1)
    # the first layer's keys depend on their own patches alone: computed afresh, at positions 0 to 95, they agree
    encoder = model.encoder
    x = encoder.in_proj(patches[:, 4 * TOKENS :]) + encoder.is_kept_embed
    layer = encoder.blocks.layers[0]
    k = layer.attention.wk(layer.attention_norm(x)).unflatten(-1, (config.heads, -1)).transpose(1, 2)
    blocks = tuple(cache[0] for cache in past)
    window = attention.Window(blocks[:-1], attention.KV(torch.empty_like(k), torch.empty_like(k)))
    angles = attention.rotations(3 * TOKENS, config)
    laid = window.lay_out(blocks[-1], angles)
    close(laid.k, attention.rotate(k, angles))


@torch.no_grad()
def test_a_block_in_a_window_that_has_slid_is_one_of_a_chunk(golden: Golden) -> None:
    """Block 5 after 2, 3 and 4: one layer remembers nothing of what those saw, so a chunk of the four must agree."""
    config = replace(golden.config, decoder_layers=1)
    torch.manual_seed(1)
    model = PaperModel(config)
    model.initialize(std=0.3)
    codes = torch.rand(1, 6 * TOKENS, config.code_dim) * 2 - 1
    keep = torch.ones(1, TOKENS, dtype=torch.bool)
    told: attention.Past = ()
    for block in range(6):
        recon, new = model.decode(codes[:, block * TOKENS : (block + 1) * TOKENS], keep, told)
        told = model.extend(told, new)
    chunk, _ = model.decoder(codes[:, 2 * TOKENS :])
    close(recon, chunk[:, -TOKENS:], 1e-5)
    alone, _ = model.decoder(codes[:, 5 * TOKENS :])
    assert not torch.allclose(recon, alone, atol=1e-2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch": (3, 8, 8)},
        {"size": 30},
        {"hidden": 100, "heads": 8},
        {"bottleneck": "vq"},
        {"min_tokens": 5000},
        {"mlp": 0},
        {"mlp": "many"},
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"patch|heads|bottleneck|min_tokens|sizes"):
        PaperConfig.from_dict(wrong)


def test_the_presets_have_the_published_sizes() -> None:
    for name, parameters, tokens in (("fsq-200m", 210_165_760, 4096), ("vae-200m", 210_571_264, 2048)):
        with torch.device("meta"):
            model = PaperModel(PRESETS[name])
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert PRESETS[name].block_tokens == tokens
