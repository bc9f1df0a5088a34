"""Small random detectors and label spaces, in the official formats: for rehearsing the whole pipeline.

The weights are drawn, then fitted to a few drawn pictures, so that in any picture some things are found,
seldom none or hundreds. What is found means nothing.
"""

# N boxes, D hidden size, K classes

from __future__ import annotations

import random
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.scorers.unidet_network import (
    R50,
    RS200,
    STAGE_WEIGHTS,
    Architecture,
    BoxHead,
    BoxPredictor,
    UniDet,
    apply_deltas,
    clip,
    pool,
)

SMALL = {
    name: replace(
        sizes, blocks=(1, 1, 1, 1), stem_channels=8, block_channels=8, pyramid_channels=16, hidden_size=64
    )
    for name, sizes in (("r50", R50), ("rs200", RS200))
}
SIDE = 128  # of the pictures that a network is fitted to
NUM_PICTURES = 5
GROWTH = (
    0.8,
    0.3,
)  # logarithms of what proposals and stages enlarge boxes by: large ones overlap, few are left
STEEPNESS = 2.0  # of a unit, in standard deviations
UNITS_OF_CLASS = 10  # all of which must be on, or nearly
STRENGTH = 6.0  # of a unit in a class's logit
NEVER = -20.0  # logit of the classes that nothing is named

# the classes that are found: words that prompts ask for, so that a rehearsal has hits
NOUNS = tuple(
    "person dog cat bird horse pig cow sheep rabbit frog fish turtle giraffe chicken bee butterfly car train"
    " bicycle airplane boat chair sofa table desk couch lamp clock vase bowl cup plate phone book suitcase"
    " bag backpack candle balloon key".split()
)


def random_label_space(seed: int) -> dict[str, object]:
    """The content of a label space file: 722 names, the nouns first in an order drawn from the seed."""
    nouns = random.Random(seed).sample(NOUNS, len(NOUNS))
    names = [f"_{noun}_{noun}" for noun in nouns]
    names += [f"_thing {number}_" for number in range(len(names), RS200.num_classes)]
    return {"categories": [{"id": number, "name": name} for number, name in enumerate(names)]}


@torch.no_grad()
def random_network(sizes: Architecture, seed: int) -> UniDet:
    """A detector with weights drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    network = UniDet(sizes)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.normal_(0, _gain(name) / fan_in**0.5, generator=generator)
        else:  # norms to the identity, biases to nothing
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    _bias(network.proposal_generator.rpn_head.anchor_deltas).view(-1, 4)[:, 2:] = GROWTH[0]
    for stage, weights in enumerate(STAGE_WEIGHTS):
        _bias(network.roi_heads.stage(stage)[1].bbox_pred)[2:] = GROWTH[1] * weights[2]
    pictures = _pictures(generator)
    _fit_norms(network, pictures)
    features = [network.features(picture) for picture in pictures]
    boxes = [network.propose(levels, SIDE, SIDE) for levels in features]
    for stage, weights in enumerate(STAGE_WEIGHTS):
        head, predictor = network.roi_heads.stage(stage)
        pooled = [pool(levels, some) for levels, some in zip(features, boxes, strict=True)]
        _fit_hidden(head, torch.cat(pooled))
        _choose_units(predictor, generator)
        deltas = [predictor(head(some))[1] for some in pooled]
        moved = [apply_deltas(move, some, weights) for move, some in zip(deltas, boxes, strict=True)]
        boxes = [clip(some, SIDE, SIDE) for some in moved]
    return network.eval()


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _gain(name: str) -> float:
    small = {"bbox_pred": 4.0, "anchor_deltas": 0.2, "objectness_logits": 1.0, "fpn_lateral": 0.5}
    return next((gain for part, gain in small.items() if part in name), 2**0.5)


def _pictures(generator: torch.Generator) -> Tensor:
    """(n, 3, SIDE, SIDE) in [0, 255]: from soft ground with flat boxes to noise, from faint to strong."""
    pictures = torch.zeros(NUM_PICTURES, 3, SIDE, SIDE)
    for number, picture in enumerate(pictures):
        for cells, strength in ((2, 20.0), (16, 8.0 * (number % 3)), (SIDE, 10.0 * (number % 4))):
            noise = torch.randn(1, 3, cells, cells, generator=generator)
            picture += strength * F.interpolate(noise, (SIDE, SIDE), mode="bilinear")[0]
        for _ in range(number % 5):
            corner, side = torch.randint(0, SIDE - 16, (2, 2), generator=generator).tolist()
            color = torch.randn(3, 1, 1, generator=generator) * 60
            picture[:, corner[1] : corner[1] + side[1], corner[0] : corner[0] + side[0]] += color
        picture += 255 * torch.rand(3, 1, 1, generator=generator)
    return pictures.clamp(0, 255)


def _fit_norms(network: UniDet, pictures: Tensor) -> None:
    """Set the statistics of the backbone's norms to those of the pictures, layer after layer."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()
    network.backbone(network.normalized(pictures))
    network.eval()


def _fit_hidden(head: BoxHead, pooled: Tensor) -> None:
    """Make a stage's hidden layer of pairs of units, whose difference is between 0 and 1 in any picture.

    Each is on for about half of the boxes. So the share of classes that are found is bounded and does not
    depend on how like the fitted pictures another one is.
    """
    head.train()
    for layer in head.children():
        pooled = pooled if isinstance(layer, nn.Linear) else F.relu(layer(pooled))
    head.eval()
    half = len(head.fc1.weight) // 2
    drawn = pooled.flatten(1) @ head.fc1.weight[:half].T
    scale = STEEPNESS / drawn.std(0).clamp(min=1e-6)
    weight, bias = head.fc1.weight[:half] * scale[:, None], 0.5 - drawn.median(0)[0] * scale
    head.fc1.weight[:] = torch.cat([weight, weight])
    head.fc1.bias[:] = torch.cat([bias, bias - 1])  # relu(z) - relu(z - 1)
    if hasattr(head, "fc2"):
        head.fc2.weight[:] = torch.eye(2 * half)


def _choose_units(predictor: BoxPredictor, generator: torch.Generator) -> None:
    """Give each noun the units that name it, and let boxes move by bounded amounts."""
    half = predictor.cls_score.in_features // 2
    units = torch.zeros(predictor.cls_score.out_features, half)
    for k in range(len(NOUNS)):
        units[k, torch.randperm(half, generator=generator)[:UNITS_OF_CLASS]] = STRENGTH
    strongest = torch.rand(len(NOUNS), generator=generator) * 3 - 1  # logits with all units on
    moves = predictor.bbox_pred.weight[:, :half]
    predictor.cls_score.weight[:] = torch.cat([units, -units], 1)
    predictor.cls_score.bias[:] = NEVER
    predictor.cls_score.bias[: len(NOUNS)] = strongest - STRENGTH * UNITS_OF_CLASS
    predictor.bbox_pred.weight[:] = torch.cat([moves, -moves], 1)
