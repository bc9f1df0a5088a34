"""GenTron at tiny size: the real classes, random weights wherever the zero init would hide a fault."""

# B batch, L prompt tokens, E text width, D hidden size, K heads, d head size

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gentron.model
from gentron.checkpointing import CheckpointPolicy
from gentron.layers import (
    CrossAttention,
    PromptTokens,
    grid_coordinates,
    patchify,
    position_embedding,
    timestep_features,
    unpatchify,
)
from gentron.model import GenTron, GenTronBlock, GenTronConfig
from gentron.text import PromptEmbeds

CONFIG = GenTronConfig(
    hidden_size=32, depth=4, num_heads=4, sample_size=8, clip_width=12, t5_width=20, pooled_width=16
)
CLIP_ONLY = replace(CONFIG, t5_width=None)
T5_ONLY = replace(CONFIG, clip_width=None)
ADALN = replace(CONFIG, conditioning="adaln")
VARIANTS = {
    "clip+t5": CONFIG,
    "clip": CLIP_ONLY,
    "t5": T5_ONLY,
    "adaln": ADALN,
    "qk_norm": replace(CONFIG, qk_norm=True),
}
TIMESTEPS = torch.tensor([999, 501, 3])


def random_model(config: GenTronConfig = CONFIG) -> GenTron:
    """Weights without the zeros of the init, large enough that every path shows in the output."""
    generator = torch.Generator().manual_seed(0)
    model = GenTron(config)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 1 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def random_latents(batch: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(1))


def random_prompts(batch: int = 3, config: GenTronConfig = CONFIG) -> PromptEmbeds:
    """Prompts of 5 CLIP and 7 T5 tokens; row b has b masked CLIP and b + 1 masked T5 tokens at its end."""
    generator = torch.Generator().manual_seed(2)

    def tokens(length: int, width: int | None) -> Tensor:
        return torch.randn(batch, length, width or 1, generator=generator)

    def mask(length: int, num_masked: int) -> Tensor:
        return torch.arange(length) < length - torch.arange(batch)[:, None] - num_masked

    embeds = PromptEmbeds(
        clip_prompt_embeds=tokens(5, CONFIG.clip_width),
        clip_prompt_mask=mask(5, 0),
        t5_prompt_embeds=tokens(7, CONFIG.t5_width),
        t5_prompt_mask=mask(7, 1),
        pooled_prompt_embeds=torch.randn(batch, CONFIG.pooled_width, generator=generator),
    )
    if config.clip_width is None:
        embeds = replace(embeds, clip_prompt_embeds=None, clip_prompt_mask=None, pooled_prompt_embeds=None)
    if config.t5_width is None:
        embeds = replace(embeds, t5_prompt_embeds=None, t5_prompt_mask=None)
    return embeds


def blocks_of(model: GenTron) -> list[GenTronBlock]:
    return [block for block in model.blocks if isinstance(block, GenTronBlock)]


def cross_attention_of(block: GenTronBlock) -> CrossAttention:
    assert block.cross_attention is not None
    return block.cross_attention


def values_of(block: GenTronBlock, adapted: dict[str | None, PromptTokens]) -> Tensor:
    return cross_attention_of(block).keys_values(adapted[block.encoder]).values


def given(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


# Init and gradients


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_output_is_exactly_zero_at_init(config: GenTronConfig) -> None:
    output = GenTron(config)(random_latents(), TIMESTEPS, random_prompts(config=config))
    assert output.shape == (3, 4, 8, 8) and torch.equal(output, torch.zeros_like(output))


def test_init_is_dit_s_and_every_block_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    model = GenTron(CONFIG)
    x, conditioning = torch.randn(2, 16, 32), torch.randn(2, 32)
    for block in blocks_of(model):
        tokens = model.prompt_tokens(random_prompts(2))[block.encoder]
        assert torch.equal(block(x, conditioning, tokens), x)
        assert not cross_attention_of(block).out.weight.any()
    assert model.timestep_embed.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    bound = math.sqrt(6 / (32 + 128))
    assert 0.98 * bound < blocks_of(model)[0].mlp.fc1.weight.abs().max() <= bound
    assert all(not layer.bias.any() for layer in model.modules() if isinstance(layer, nn.Linear))


def test_init_weights_finishes_a_model_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = GenTron(CONFIG)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    model.init_weights()
    torch.manual_seed(0)
    expected = GenTron(CONFIG)
    torch.manual_seed(0)
    expected.init_weights()
    for name, parameter in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_gradients_reach_every_weight(config: GenTronConfig) -> None:
    model = random_model(config)
    model(random_latents(), TIMESTEPS, random_prompts(config=config)).square().sum().backward()
    for name, parameter in model.named_parameters():
        gradient = given(parameter.grad)
        assert gradient.isfinite().all(), name
        rows = gradient.flatten(1).any(dim=1) if gradient.ndim > 1 else gradient.any()
        assert rows.all(), f"{name} has weights without a gradient"


@pytest.mark.parametrize("policy", ["selective", "full"])
def test_gradient_checkpointing_changes_no_gradient(policy: CheckpointPolicy) -> None:
    gradients = []
    policies: tuple[CheckpointPolicy, ...] = ("none", policy)
    for checkpointing in policies:
        model = random_model()
        model.gradient_checkpointing = checkpointing
        model(random_latents(), TIMESTEPS, random_prompts()).square().sum().backward()
        gradients.append({name: given(p.grad) for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


# Masks


@torch.no_grad()
def test_content_of_masked_tokens_reaches_nothing() -> None:
    model, prompts = random_model(), random_prompts()
    noisy = replace(
        prompts,
        clip_prompt_embeds=given(prompts.clip_prompt_embeds).masked_fill(
            ~given(prompts.clip_prompt_mask)[..., None], float("nan")
        ),
        t5_prompt_embeds=given(prompts.t5_prompt_embeds).masked_fill(
            ~given(prompts.t5_prompt_mask)[..., None], 1e9
        ),
    )
    assert torch.equal(model(random_latents(), TIMESTEPS, prompts), model(random_latents(), TIMESTEPS, noisy))


@pytest.mark.parametrize("name", ["clip_prompt_mask", "t5_prompt_mask"])
@torch.no_grad()
def test_a_mask_bit_changes_its_own_sample_only(name: str) -> None:
    model, prompts = random_model(), random_prompts()
    mask = getattr(prompts, name).clone()
    mask[1, 0] = False
    before = model(random_latents(), TIMESTEPS, prompts)
    after = model(random_latents(), TIMESTEPS, replace(prompts, **{name: mask}))
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert (before[1] - after[1]).abs().max() > 1e-3


@torch.no_grad()
def test_padding_changes_nothing_beyond_rounding() -> None:
    model, prompts = random_model(), random_prompts()
    padded = replace(
        prompts,
        t5_prompt_embeds=F.pad(given(prompts.t5_prompt_embeds), (0, 0, 0, 6)),
        t5_prompt_mask=F.pad(given(prompts.t5_prompt_mask), (0, 6)),
    )
    torch.testing.assert_close(
        model(random_latents(), TIMESTEPS, prompts), model(random_latents(), TIMESTEPS, padded)
    )


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_prompt_without_real_tokens_is_finite_and_ignores_its_tokens(config: GenTronConfig) -> None:
    model, prompts = random_model(config), random_prompts(config=config)
    for name in ("clip_prompt_mask", "t5_prompt_mask"):
        if (mask := getattr(prompts, name)) is not None:
            prompts = replace(prompts, **{name: mask & torch.tensor([True, False, True])[:, None]})
    output = model(random_latents(), TIMESTEPS, prompts)
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(given(parameter.grad).isfinite().all() for parameter in model.parameters())
    for name in ("clip_prompt_embeds", "t5_prompt_embeds"):
        if (tokens := getattr(prompts, name)) is not None:
            changed = tokens.clone()
            changed[1] += 1
            prompts = replace(prompts, **{name: changed})
    assert torch.equal(model(random_latents(), TIMESTEPS, prompts), output)


# Conditioning


@torch.no_grad()
def test_blocks_take_turns_between_clip_and_t5() -> None:
    model, prompts = random_model(), random_prompts()
    assert [block.encoder for block in blocks_of(model)] == ["clip", "t5", "clip", "t5"]
    other = replace(prompts, clip_prompt_embeds=given(prompts.clip_prompt_embeds) + 1)
    tokens, other_tokens = model.prompt_tokens(prompts), model.prompt_tokens(other)
    for block in blocks_of(model):
        text, other_text = (values_of(block, adapted) for adapted in (tokens, other_tokens))
        assert torch.equal(text, other_text) == (block.encoder == "t5")


@pytest.mark.parametrize("encoder", ["clip", "t5"])
@torch.no_grad()
def test_token_content_enters_through_the_encoder_s_own_blocks_only(encoder: str) -> None:
    model, prompts = random_model(), random_prompts()
    name = f"{encoder}_prompt_embeds"
    # opposite changes to two real tokens leave T5's mean, and so the pooled vector, as it is
    tokens = getattr(prompts, name)
    width = CONFIG.width_of("clip" if encoder == "clip" else "t5")
    direction = torch.zeros_like(tokens)
    direction[:, 0], direction[:, 1] = torch.ones(width), -torch.ones(width)
    other = replace(prompts, **{name: tokens + direction})
    latents = random_latents()
    assert (model(latents, TIMESTEPS, prompts) - model(latents, TIMESTEPS, other)).abs().max() > 1e-2
    for block in blocks_of(model):
        if block.encoder == encoder:
            cross_attention_of(block).out.weight.zero_()
    torch.testing.assert_close(model(latents, TIMESTEPS, prompts), model(latents, TIMESTEPS, other))


@pytest.mark.parametrize(("config", "encoder"), [(CLIP_ONLY, "clip"), (T5_ONLY, "t5")], ids=["clip", "t5"])
def test_a_single_encoder_serves_every_block(config: GenTronConfig, encoder: str) -> None:
    model = GenTron(config)
    assert [block.encoder for block in blocks_of(model)] == [encoder] * 4
    assert list(model.token_adapters) == [encoder]


@torch.no_grad()
def test_the_adaln_variant_sees_the_text_through_the_pooled_vector_alone() -> None:
    model = random_model(replace(ADALN, t5_width=None))
    assert all(block.cross_attention is None for block in blocks_of(model)) and not model.token_adapters
    prompts = PromptEmbeds(pooled_prompt_embeds=random_prompts().pooled_prompt_embeds)
    output = model(random_latents(), TIMESTEPS, prompts)
    other = replace(prompts, pooled_prompt_embeds=given(prompts.pooled_prompt_embeds) + 1)
    assert (output - model(random_latents(), TIMESTEPS, other)).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (replace(random_prompts(), pooled_prompt_embeds=None), "needs pooled_prompt_embeds"),
        (replace(random_prompts(), t5_prompt_embeds=None, t5_prompt_mask=None), "needs t5_prompt_embeds"),
        (replace(random_prompts(), clip_prompt_embeds=torch.zeros(3, 5, 9)), "must have width 12, got 9"),
        (random_prompts(2), "3 latents but 2 prompts"),
    ],
)
def test_prompts_that_do_not_fit_the_config_are_refused(prompts: PromptEmbeds, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenTron(CONFIG)(random_latents(), TIMESTEPS, prompts)


def test_latents_that_the_patch_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 2, got \(3, 4, 7, 8\)"):
        GenTron(CONFIG)(random_latents(height=7), TIMESTEPS, random_prompts())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "hidden_size must be a multiple of num_heads"),
        ({"patch_size": 3}, "sample_size must be a multiple of patch_size"),
        ({"depth": 0}, "depth must be positive"),
        ({"clip_width": None, "t5_width": None}, "needs one text encoder"),
        ({"conditioning": "concat"}, "conditioning must be"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)  # type: ignore[arg-type]


# Accelerations


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_conditioned_equals_forward(config: GenTronConfig) -> None:
    model, prompts, latents = random_model(config), random_prompts(config=config), random_latents()
    table = torch.tensor([999, 666, 333, 0])
    for denoise in (model.conditioned(prompts), model.conditioned(prompts, timesteps=table)):
        for timestep in (torch.tensor(666), torch.tensor([0, 999, 0]), torch.tensor(500), torch.tensor(0.25)):
            expected = model(latents, timestep.expand(3), prompts)
            torch.testing.assert_close(denoise(latents, timestep), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_text_and_modulation_are_computed_once() -> None:
    model, prompts, latents = random_model(), random_prompts(), random_latents()
    calls: list[str] = []
    for block in blocks_of(model):
        block.modulation.register_forward_hook(lambda *_: calls.append("modulation"))
        cross_attention_of(block).kv.register_forward_hook(lambda *_: calls.append("kv"))
    denoise = model.conditioned(prompts, timesteps=TIMESTEPS)
    assert calls.count("kv") == calls.count("modulation") == 4
    for timestep in TIMESTEPS:
        denoise(latents, timestep)
    assert len(calls) == 8
    denoise(latents, torch.tensor(77))  # not in the table
    assert calls.count("kv") == 4 and calls.count("modulation") == 8


@torch.no_grad()
def test_a_table_over_the_limit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, latents = random_model(), random_prompts(), random_latents()
    expected = model.conditioned(prompts, timesteps=TIMESTEPS)(latents, TIMESTEPS[0])
    monkeypatch.setattr(gentron.model, "MAX_ADALN_TABLE_BYTES", 1000)
    without = model.conditioned(prompts, timesteps=TIMESTEPS)(latents, TIMESTEPS[0])
    torch.testing.assert_close(without, expected)


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch() -> None:
    model, prompts, latents = random_model(), random_prompts(), random_latents()
    together = model(latents, TIMESTEPS, prompts)
    for index in range(3):
        alone = model(latents[index : index + 1], TIMESTEPS[index : index + 1], prompts[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-5, atol=1e-5)


# Precision


@torch.no_grad()
def test_modulation_and_residual_stream_stay_float32_under_autocast() -> None:
    model, prompts, latents = random_model(), random_prompts(), random_latents()
    dtypes: list[torch.dtype] = []
    for block in blocks_of(model):
        block.register_forward_hook(lambda _module, _args, output: dtypes.append(output.dtype))
        block.modulation.register_forward_hook(lambda _module, _args, output: dtypes.append(output.dtype))
    expected = model(latents, TIMESTEPS, prompts)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(latents, TIMESTEPS, prompts)
        conditioning = model.timestep_embedding(TIMESTEPS) + model.pooled_embedding(prompts)
        modulation = blocks_of(model)[0].modulation(conditioning)
    assert output.dtype == torch.float32 and set(dtypes) == {torch.float32}
    torch.testing.assert_close(output, expected, rtol=0.1, atol=0.1)
    conditioning = model.timestep_embedding(TIMESTEPS) + model.pooled_embedding(prompts)
    assert torch.equal(modulation, blocks_of(model)[0].modulation(conditioning))


@torch.no_grad()
def test_bfloat16_weights_give_the_float32_output_roughly() -> None:
    model, prompts, latents = random_model(), random_prompts(), random_latents()
    expected = model(latents, TIMESTEPS, prompts)
    model.to(torch.bfloat16)
    for denoise in (model.conditioned(prompts), model.conditioned(prompts, timesteps=TIMESTEPS)):
        output = denoise(latents, TIMESTEPS)
        assert output.dtype == torch.float32
        assert (output - expected).norm() / expected.norm() < 0.03


# Patches and positions


def test_unpatchify_inverts_patchify() -> None:
    latents = random_latents(height=8, width=12)
    tokens = patchify(latents, 4)
    assert tokens.shape == (3, 2 * 3, 4 * 4 * 4)
    assert torch.equal(tokens[0, 4], latents[0, :, 4:8, 4:8].permute(1, 2, 0).flatten())  # row 1, column 1
    assert torch.equal(unpatchify(tokens, 4, grid_height=2), latents)


def test_positions_of_512_px_continue_those_of_256_px() -> None:
    base, _ = grid_coordinates(16, 16, 16)
    double, _ = grid_coordinates(32, 32, 16)
    assert torch.equal(base, torch.arange(16.0))
    assert torch.equal(double.view(16, 2).mean(dim=1), base)
    small, large = position_embedding(16, 16, 64, 16), position_embedding(32, 32, 64, 16)
    resized = F.interpolate(large.T.view(1, 64, 32, 32), scale_factor=0.5, mode="area").view(64, 256).T
    assert F.cosine_similarity(small, resized).min() > 0.98


def test_positions_of_a_wide_picture_keep_square_patches_and_the_centre() -> None:
    rows, columns = grid_coordinates(8, 32, 16)
    assert torch.equal(rows.diff(), torch.ones(7)) and torch.equal(columns.diff(), torch.ones(31))
    assert rows.mean().item() == columns.mean().item() == 7.5
    positions = position_embedding(8, 32, 64, 16)
    assert positions.shape == (256, 64) and len(positions.unique(dim=0)) == 256


@torch.no_grad()
def test_other_sizes_and_shapes_than_the_base_run() -> None:
    for height, width in ((16, 16), (4, 10)):
        latents = random_latents(height=height, width=width)
        assert random_model()(latents, TIMESTEPS, random_prompts()).shape == latents.shape


# References


@torch.no_grad()
def test_timestep_features_equal_diffusers() -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    timesteps = torch.tensor([0, 1, 500, 999])
    expected = embeddings.get_timestep_embedding(timesteps, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(timestep_features(timesteps), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_block_equals_diffusers_with_the_same_weights() -> None:
    """BasicTransformerBlock with norm_type ada_norm_zero has the paper's order: self, cross, MLP."""
    attention = pytest.importorskip("diffusers.models.attention")
    model = random_model()
    block = blocks_of(model)[1]
    cross = cross_attention_of(block)
    theirs = attention.BasicTransformerBlock(
        32,
        4,
        8,
        cross_attention_dim=20,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1,
        attention_bias=True,
        norm_elementwise_affine=False,
        norm_type="ada_norm_zero",
        norm_eps=1e-6,
    )
    conditioning = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    theirs.norm1.emb = FixedEmbedding(conditioning)
    weights: list[tuple[nn.Linear, Tensor, Tensor]] = [
        (theirs.norm1.linear, block.modulation.linear.weight, block.modulation.linear.bias),
        (theirs.attn1.to_out[0], block.self_attention.out.weight, block.self_attention.out.bias),
        (theirs.attn2.to_out[0], cross.out.weight, cross.out.bias),
        (theirs.attn2.to_q, cross.q.weight, cross.q.bias),
        (theirs.ff.net[0].proj, block.mlp.fc1.weight, block.mlp.fc1.bias),
        (theirs.ff.net[2], block.mlp.fc2.weight, block.mlp.fc2.bias),
    ]
    for index, name in enumerate(("to_q", "to_k", "to_v")):
        rows = slice(32 * index, 32 * (index + 1))
        qkv = block.self_attention.qkv
        weights.append((getattr(theirs.attn1, name), qkv.weight[rows], qkv.bias[rows]))
    for index, name in enumerate(("to_k", "to_v")):
        rows = slice(32 * index, 32 * (index + 1))
        weights.append((getattr(theirs.attn2, name), cross.kv.weight[rows], cross.kv.bias[rows]))
    for layer, weight, bias in weights:
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    x = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(4))
    text = model.prompt_tokens(random_prompts())["t5"]
    expected = theirs(x, encoder_hidden_states=text.tokens, encoder_attention_mask=text.mask[:, 0])
    torch.testing.assert_close(block(x, conditioning, text), expected, rtol=1e-4, atol=1e-4)


class FixedEmbedding(nn.Module):
    """Stands where diffusers embeds timestep and class, so that both blocks get the same vector."""

    def __init__(self, conditioning: Tensor) -> None:
        super().__init__()
        self.conditioning = conditioning

    def forward(self, *_args: object, **_kwargs: object) -> Tensor:
        return self.conditioning


@torch.no_grad()
def test_the_model_equals_a_plain_derivation_in_float64() -> None:
    model = random_model().double()
    prompts, latents = random_prompts().to(dtype=torch.float64), random_latents().double()
    torch.testing.assert_close(
        model(latents, TIMESTEPS, prompts), reference_forward(model, latents, prompts), rtol=1e-6, atol=1e-6
    )


def reference_forward(model: GenTron, latents: Tensor, prompts: PromptEmbeds) -> Tensor:
    """The forward pass written out from the paper with explicit softmax, one sample and loop at a time."""
    weights = dict(model.named_parameters())

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def mlp2(name: str, x: Tensor) -> Tensor:
        hidden = linear(f"{name}.fc1", x)
        return linear(f"{name}.fc2", hidden * torch.sigmoid(hidden))

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + 1e-6)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = []
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            heads.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(8), dim=-1) @ v[:, part])
        return torch.cat(heads, dim=-1)

    outputs = []
    for b in range(len(latents)):
        real = {
            "clip": given(prompts.clip_prompt_embeds)[b, given(prompts.clip_prompt_mask)[b]],
            "t5": given(prompts.t5_prompt_embeds)[b, given(prompts.t5_prompt_mask)[b]],
        }
        pooled = given(prompts.pooled_prompt_embeds)[b] + linear("t5_pooled", real["t5"].mean(0))
        c = mlp2("timestep_embed", timestep_features(TIMESTEPS[b : b + 1])[0].double())
        c = c + mlp2("pooled_embed", pooled)
        signal = c * torch.sigmoid(c)
        rows = [latents[b, :, i : i + 2, j : j + 2] for i in range(0, 8, 2) for j in range(0, 8, 2)]
        x = linear("patch_embed", torch.stack([row.permute(1, 2, 0).flatten() for row in rows]))
        rates = 10000.0 ** (-torch.arange(8).double() / 8)
        for n in range(16):
            angles = [n // 4 * rates, n % 4 * rates]
            x[n] += torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())])
        for index in range(4):
            name, encoder = f"blocks.{index}", ("clip", "t5")[index % 2]
            s1, m1, g1, s2, m2, g2 = linear(f"{name}.modulation.linear", signal).chunk(6)
            q, k, v = linear(f"{name}.self_attention.qkv", norm(x) * (1 + m1) + s1).chunk(3, dim=-1)
            x = x + g1 * linear(f"{name}.self_attention.out", attend(q, k, v))
            tokens = linear(f"token_adapters.{encoder}", real[encoder])
            k, v = linear(f"{name}.cross_attention.kv", tokens).chunk(2, dim=-1)
            q = linear(f"{name}.cross_attention.q", norm(x))
            x = x + linear(f"{name}.cross_attention.out", attend(q, k, v))
            hidden = F.gelu(linear(f"{name}.mlp.fc1", norm(x) * (1 + m2) + s2), approximate="tanh")
            x = x + g2 * linear(f"{name}.mlp.fc2", hidden)
        shift, scale = linear("final_layer.modulation.linear", signal).chunk(2)
        patches = linear("final_layer.linear", norm(x) * (1 + scale) + shift).view(4, 4, 2, 2, 4)
        outputs.append(patches.permute(4, 0, 2, 1, 3).reshape(4, 8, 8))
    return torch.stack(outputs)


@torch.no_grad()
def test_qk_norm_gives_unit_rms_queries_and_keys() -> None:
    model = GenTron(replace(CONFIG, qk_norm=True))
    cross = cross_attention_of(blocks_of(model)[0])
    tokens = PromptTokens(torch.randn(1, 5, 12) * 100, torch.ones(1, 1, 1, 5, dtype=torch.bool))
    rms = cross.keys_values(tokens).keys.square().mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), rtol=1e-3, atol=1e-3)
