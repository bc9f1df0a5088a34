"""The presets are the paper's models, to within what the paper leaves open."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gentron.config import from_dict, to_dict
from gentron.dit import class_conditional_report
from gentron.model import GenTronConfig, parameter_report
from gentron.presets import PRESETS, paper_parameters, preset_of


@pytest.mark.parametrize(("name", "paper"), [("xl2", 930.0e6), ("g2", 3083.8e6)])
def test_paper_models_have_the_paper_s_parameter_count(name: str, paper: float) -> None:
    config = PRESETS[name]()
    total = parameter_report(config, paper_parameters=paper_parameters(config))[-1]
    assert total.component == "total" and total.paper_parameters == paper
    assert abs(total.parameters - paper) / paper < 0.003
    assert total.difference_percent == pytest.approx(100 * (total.parameters / paper - 1))


def test_xl_2_components_match_a_count_by_hand() -> None:
    d, depth, clip, t5, pooled = 1152, 28, 768, 4096, 768
    rows = {row.component: row.parameters for row in parameter_report(PRESETS["xl2"]())}
    assert rows["patch embed"] == 16 * d + d
    assert rows["timestep embed"] == 256 * d + d + d * d + d
    assert rows["pooled text"] == pooled * d + d + d * d + d + t5 * pooled + pooled
    assert rows["token adapters"] == clip * clip + clip + t5 * t5 + t5
    assert rows["self-attention"] == depth * (4 * d * d + 4 * d)
    assert rows["cross-attention"] == depth * (2 * d * d + 4 * d) + depth // 2 * 2 * d * (clip + t5)
    assert rows["MLP"] == depth * (8 * d * d + 5 * d)
    assert rows["adaLN"] == depth * (6 * d * d + 6 * d)
    assert rows["final layer"] == 2 * d * d + 2 * d + 16 * d + 16


def test_a_config_the_paper_does_not_have_is_shown_without_its_count() -> None:
    config = from_dict(GenTronConfig, to_dict(PRESETS["xl2"]()) | {"t5_width": None})
    total = parameter_report(config, paper_parameters=paper_parameters(config))[-1]
    assert total.paper_parameters is None and total.difference_percent is None


@pytest.mark.parametrize(
    ("name", "encoders", "attends", "text_parameters"),
    [
        ("xl2-clip-adaln", ("clip",), None, 0),
        ("xl2-clip", ("clip",), "clip", 768 * 769 + 28 * (2 * 1152 * 1153 + 2 * 1152 * 769)),
        ("xl2-t5", ("t5",), "t5", 4096 * 4097 + 28 * (2 * 1152 * 1153 + 2 * 1152 * 4097) + 768 * 4097),
    ],
)
def test_the_ablation_is_xl_2_with_one_encoder(
    name: str, encoders: tuple[str, ...], attends: str | None, text_parameters: int
) -> None:
    """text_parameters: adapter, cross-attention and T5's pooled projection, beside the DiT-like core."""
    config, xl = PRESETS[name](), PRESETS["xl2"]()
    assert config.encoders == encoders
    assert {config.encoder_of_block(k) for k in range(config.depth)} == {attends}
    assert (config.depth, config.hidden_size, config.num_heads) == (xl.depth, xl.hidden_size, xl.num_heads)
    # the class-conditional DiT, less its classes, variance and positions, plus the pooled text
    core = class_conditional_report(config)[-1].parameters - 1001 * 1152 - 16 * 1153 - 256 * 1152
    core += 768 * 1152 + 1152 + 1152 * 1153
    assert parameter_report(config)[-1].parameters == core + text_parameters


@pytest.mark.parametrize(("name", "published"), [("s2", 33e6), ("b2", 130e6), ("l2", 458e6), ("xl2", 675e6)])
def test_the_same_report_counts_the_class_conditional_dit(name: str, published: float) -> None:
    total = class_conditional_report(PRESETS[name]())[-1]
    assert total.paper_parameters == published
    assert total.parameters == pytest.approx(published, rel=0.004)  # the paper gives whole millions


@pytest.mark.parametrize(
    ("name", "depth", "width", "heads"),
    [
        ("s2", 12, 384, 6),
        ("b2", 12, 768, 12),
        ("l2", 24, 1024, 16),
        ("xl2", 28, 1152, 16),
        ("g2", 48, 1664, 16),
    ],
)
def test_the_ladder_has_dit_s_sizes(name: str, depth: int, width: int, heads: int) -> None:
    config = PRESETS[name]()
    assert (config.depth, config.hidden_size, config.num_heads) == (depth, width, heads)
    assert (config.patch_size, config.sample_size, config.mlp_size) == (2, 32, 4 * width)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name: str) -> None:
    config = PRESETS[name]()
    assert from_dict(GenTronConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("name", "image_form", "millions"),
    [("mini-t2v", "mini", 1.579), ("xl2-t2v", "xl2", 148.8), ("g2-t2v", "g2", 531.9)],
)
def test_video_forms_add_temporal_attention_alone(name: str, image_form: str, millions: float) -> None:
    video, image = PRESETS[name](), PRESETS[image_form]()
    assert replace(video, temporal=None) == image and video.temporal is not None
    assert (video.temporal.num_frames, video.temporal.fps) == (8, 4.0)
    rows, image_rows = (
        {row.component: row.parameters for row in parameter_report(c)} for c in (video, image)
    )
    added = rows["temporal attention"]
    assert added == video.depth * (4 * video.hidden_size**2 + 4 * video.hidden_size)
    assert added / 1e6 == pytest.approx(millions, abs=0.06)
    assert image_rows["temporal attention"] == 0 and rows["total"] == image_rows["total"] + added
    assert paper_parameters(video) is None


def test_a_preset_is_recognised_by_every_field() -> None:
    assert all(preset_of(preset()) == name for name, preset in PRESETS.items())
    for change in ({"qk_norm": True}, {"num_heads": 8}, {"sample_size": 64}, {"pooled_width": 512}):
        changed = replace(PRESETS["xl2"](), **change)
        assert preset_of(changed) is None and paper_parameters(changed) is None
