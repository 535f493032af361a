"""dlib's network for faces, as face-api carries it, and what face-api itself computes with it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels of each stage and its blocks; a stage but the first begins by halving the resolution
STAGES = ((32, 3), (64, 4), (128, 3), (256, 3))
NAMES = {(0, i): f"conv32_{i + 1}" for i in range(3)}
MEAN = (122.782, 117.001, 104.298)

# Evaluates face-api's own network at numbers of standard input; its library asks for a browser's names
REFERENCE = """
const fs = require('fs'), vm = require('vm');
const box = {console, TextEncoder, TextDecoder, performance, setTimeout, clearTimeout, Float32Array, Int32Array,
  Uint8Array, Uint16Array, ArrayBuffer, document: {}, navigator: {userAgent: ''}, addEventListener() {}};
box.window = box.self = box;
vm.runInContext(fs.readFileSync('dist/face-api.js', 'utf8'), vm.createContext(box));
const {tf, FaceRecognitionNet} = box.faceapi;
(async () => {
  await tf.setBackend('cpu');
  await tf.ready();
  const net = new FaceRecognitionNet(), bytes = fs.readFileSync('model/face_recognition_model.bin');
  const weights = JSON.parse(fs.readFileSync('model/face_recognition_model-weights_manifest.json'))[0].weights;
  net.loadFromWeightMap(tf.io.decodeWeights(new Uint8Array(bytes).buffer, weights));
  const {shape, values} = JSON.parse(fs.readFileSync(0));
  const out = net.forwardInput({toBatchTensor: () => tf.tensor(values, shape)});
  console.log(JSON.stringify(Array.from(await out.data())));
})();
"""


def unit_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm that, in eval mode, does no more than its weight and bias say."""
    norm = nn.BatchNorm2d(channels)
    assert norm.running_var is not None
    norm.running_var.fill_(1 - norm.eps)
    return norm


class FaceBlock(nn.Module):
    """``relu(P h + conv → scale → relu → conv → scale)``; P is the identity, or pools and fills up with zeros."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1 if stride == 1 else 0)
        self.scale1 = unit_norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.scale2 = unit_norm(out)

    def forward(self, h: Tensor) -> Tensor:
        """(n, c, s, s) → (n, out, s', s')."""
        branch = self.scale2(self.conv2(F.relu(self.scale1(self.conv1(h)))))
        if self.stride == 2:
            h = F.avg_pool2d(h, 2)
            h = F.pad(h, (0, 0, 0, 0, 0, branch.shape[1] - h.shape[1]))
            branch = F.pad(branch, (0, h.shape[3] - branch.shape[3], 0, h.shape[2] - branch.shape[2]))
        return F.relu(h + branch)


class FaceNet(nn.Module):
    """Faces (n, 3, 150, 150) in [0, 255] to vectors (n, 128), near each other for one person.

    Its scales are what is left of the batch norms of its training; here they are batch norms again, with mean 0 and
    variance 1 (with their eps), so that an untrained twin has what the training began with.
    """

    mean: Tensor  # (3, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_scale = nn.Conv2d(3, 32, 7, 2), unit_norm(32)
        self.blocks, before = nn.ModuleDict(), 32
        for channels, count in STAGES:
            for i in range(count):
                down = channels != before
                name = f"conv{channels}_" + ("down" if down else str(i + (channels == 32)))
                self.blocks[name] = FaceBlock(before, channels, 1 + down)
                before = channels
        self.blocks["conv256_down_out"] = FaceBlock(256, 256, 2)
        self.head = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 150, 150) → (n, 128)."""
        h = F.relu(self.stem_scale(self.stem((x - self.mean) / 255)))
        h = F.max_pool2d(h, 3, 2)
        for block in self.blocks.values():
            h = block(h)
        out: Tensor = self.head(h.mean((2, 3)))
        return out


def load_faces(package: Path) -> FaceNet:
    """The network with the weights of the unpacked face-api."""
    manifest = json.loads((package / "model/face_recognition_model-weights_manifest.json").read_text())[0]["weights"]
    data, start, weights = (package / "model/face_recognition_model.bin").read_bytes(), 0, dict[str, Tensor]()
    for entry in manifest:
        weights[entry["name"]], start = _decoded(entry, data, start)
    net = FaceNet()
    _fill(net.stem, net.stem_scale, weights, "conv32_down")
    for name, block in net.blocks.items():
        assert isinstance(block, FaceBlock)
        _fill(block.conv1, block.scale1, weights, f"{name}/conv1")
        _fill(block.conv2, block.scale2, weights, f"{name}/conv2")
    net.head.weight.data.copy_(weights.pop("fc").T)
    if weights or start != len(data):
        raise ValueError(f"Weights are left over: {', '.join(weights) or f'{len(data) - start} bytes'}.")
    return net.eval()


def _decoded(entry: dict[str, Any], data: bytes, start: int) -> tuple[Tensor, int]:
    """One tensor, stored as float32 or as bytes with a scale and a least value, and where the next begins."""
    count = int(np.prod(entry["shape"]))
    code = entry.get("quantization")
    raw = np.frombuffer(data, np.uint8 if code else np.float32, count, start)
    values = raw.astype(np.float32) * np.float32(code["scale"]) + np.float32(code["min"]) if code else raw.copy()
    return torch.from_numpy(values.reshape(entry["shape"])), start + raw.nbytes


@torch.no_grad()
def _fill(conv: nn.Conv2d, scale: nn.BatchNorm2d, weights: dict[str, Tensor], name: str) -> None:
    assert conv.bias is not None
    conv.weight.copy_(weights.pop(f"{name}/conv/filters").permute(3, 2, 0, 1))
    conv.bias.copy_(weights.pop(f"{name}/conv/bias"))
    scale.weight.copy_(weights.pop(f"{name}/scale/weights"))
    scale.bias.copy_(weights.pop(f"{name}/scale/biases"))


def reference(package: Path, x: Tensor) -> Tensor:
    """What face-api computes (n, 128) of faces (n, 3, 150, 150); needs node."""
    asked = json.dumps({"shape": [len(x), 150, 150, 3], "values": x.permute(0, 2, 3, 1).flatten().tolist()})
    done = subprocess.run(
        ["node", "-e", REFERENCE], cwd=package, input=asked, check=True, capture_output=True, text=True
    )
    return torch.tensor(json.loads(done.stdout.splitlines()[-1])).reshape(len(x), 128)
