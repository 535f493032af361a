"""From options to the inputs of a network: images, an array, lines of text, or noise."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..residuals import inputs_of
from ..residuals._inputs import logits_of
from ._networks import Network, optional
from ._pictures import Preparation, listed, read
from ._refused import Refused, refused

DEFAULT = 20  # inputs
LENGTH = 32  # tokens
RANDOM = "THE INPUTS ARE RANDOM: noise tells nothing of what the network does with data."


@dataclass(frozen=True)
class Given:
    """Inputs, on the network's device.

    Attributes:
        data: (n, ...), or keyword arguments of a network of transformers.
        labels: (n,) numbers of outputs, None where they are not known.
        says: a sentence on what they are.
        notes: what a reader has to know, one sentence each.
    """

    data: Tensor | dict[str, Tensor]
    labels: Tensor | None
    says: str
    notes: tuple[str, ...] = ()


def open_inputs(network: Network, args: Namespace, *, random: int | None = None) -> Given:
    """Read, draw, and prepare the inputs that the options name.

    Args:
        network: that will take them.
        args: the options of the command.
        random: how many are made of noise where the options name no source; None where they always do.

    Raises:
        Refused: an option that does not belong to the source, files that cannot be read, inputs that the network does
            not take.
    """
    noise = args.random or (random if not (args.images or args.array or args.text) else None)
    _check_options(args, noise)
    if noise:
        given = _noise(network, args, noise)
    elif args.images:
        given = _images(network, args)
    elif args.array:
        given = _array(network, args)
    else:
        given = _text(network, args)
    device = next((p.device for p in network.model.parameters()), torch.device("cpu"))
    data = given.data.to(device) if isinstance(given.data, Tensor) else {k: v.to(device) for k, v in given.data.items()}
    outputs = _outputs(network.model, data)
    labels = None if given.labels is None else given.labels.to(device)
    if labels is not None and args.array and outputs and not 0 <= int(labels.min()) <= int(labels.max()) < outputs:
        got = f"labels from {int(labels.min())} to {int(labels.max())}"
        raise refused(f"labels in 0..{outputs - 1}, the outputs of the network", got, "Relabel.")
    return Given(data, labels, given.says, given.notes)


def draw(labels: Sequence[object] | None, n: int, wanted: int | None, seed: int) -> list[int]:
    """Which of n inputs are taken, in order: of each class in turn, at random.

    Raises:
        Refused: more are asked for than there are.
    """
    if wanted is not None and wanted > n:
        raise refused(f"--inputs up to {n}, which are all there are", str(wanted), "Ask for fewer, or give more.")
    count, generator = min(n, wanted or DEFAULT), np.random.default_rng(seed)
    every = [None] * n if labels is None else list(labels)
    groups = [[i for i, label in enumerate(every) if label == each] for each in dict.fromkeys(every)]
    shuffled = [[group[i] for i in generator.permutation(len(group))] for group in groups]
    turns = [group[turn] for turn in range(n) for group in shuffled if turn < len(group)]
    return sorted(turns[:count])


def _check_options(args: Namespace, noise: int | None) -> None:
    sources = {
        "labels": args.array,
        "size": args.images or noise,
        "mean": args.images,
        "std": args.images,
        "length": args.text or noise,
        "shape": noise,
        "inputs": not noise,
    }
    for name, fits in sources.items():
        if getattr(args, name) is not None and not fits:
            goes = {"labels": "--array", "length": "--text", "shape": "--random", "inputs": "images, an array or text"}
            source = "noise" if noise else "this source"
            raise refused(f"--{name} with {goes.get(name, '--images')}", f"it with {source}", f"Leave --{name} out.")


def _images(network: Network, args: Namespace) -> Given:
    files, classes = listed(args.images)
    chosen = draw(classes, len(files), args.inputs, args.seed)
    names = None if classes is None else [classes[i] for i in chosen]
    taken, overridden = [files[i] for i in chosen], args.size or args.mean or args.std
    folder = network.folder
    notes = list[str]()
    if folder is not None and (folder / "preprocessor_config.json").is_file() and not overridden:
        from ..diagnosis._pictures import opened

        from_folder = optional("transformers", "hf:").AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        pictures = [opened(file, None).convert("RGB") for file in taken]
        x, said = from_folder(pictures, return_tensors="pt")["pixel_values"], f"prepared as {folder} says"
    else:
        channels = _channels(network.model)
        plain = Preparation(
            None, None, (0.0,) * channels, (1.0,) * channels, "bilinear", "no settings of the network", known=False
        )
        prepare = (network.pictures or plain).changed(args.size, args.mean, args.std)
        x, said = read(taken, prepare), str(prepare)
        if not prepare.known:
            notes.append(
                "Mean and deviation of the training images are not known: give --mean and --std if it had any."
            )
    says = f"{len(taken)} of {len(files)} images of {args.images}: {said}."
    labels = None
    if names is not None and classes is not None:
        labels, note = _labels(names, list(dict.fromkeys(classes)), _outputs(network.model, _on(network, x)))
        notes.append(note)
    return Given(x, labels, says, tuple(notes))


def _labels(names: Sequence[str], classes: Sequence[str], outputs: int | None) -> tuple[Tensor | None, str]:
    """Which output of the network each folder is, as far as that can be known."""
    if outputs is not None and all(name.isascii() and name.isdigit() and int(name) < outputs for name in classes):
        return torch.tensor([int(name) for name in names]), "The folders' names are the numbers of their outputs."
    if len(classes) == outputs:
        numbers = ", ".join(f"{name} = {i}" for i, name in enumerate(classes[:5])) + (", …" if outputs > 5 else "")
        place = {name: i for i, name in enumerate(classes)}
        return torch.tensor([place[name] for name in names]), f"The folders are the outputs in order: {numbers}."
    return None, (
        f"Labels are not used: {len(classes)} folders are not the {outputs or 'unknown number of'} outputs of the "
        "network. Name each folder by the number of its output."
    )


def _array(network: Network, args: Namespace) -> Given:
    x, y = _tensors(args.array)
    if args.labels is not None:
        if y is not None:
            raise refused("labels from one place", f"y in {args.array.name} and --labels", "Leave --labels out.")
        y, _ = _tensors(args.labels)
    if x.dim() < 2 or not len(x):
        raise refused("an array (n, ...) of inputs", str(tuple(x.shape)), "Stack the inputs in the first dimension.")
    if x.dtype in (torch.uint8, torch.bool) or x.is_complex():
        raise refused(
            "real numbers as the network takes them", str(x.dtype), "Scale and convert them, or use --images."
        )
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise refused("finite numbers", f"NaN or infinite in {args.array.name}", "Mend or drop those inputs.")
    if y is not None and (y.shape != (len(x),) or y.is_floating_point() or y.is_complex()):
        raise refused(f"{len(x)} whole numbers as labels", f"{tuple(y.shape)} of {y.dtype}", "Give one for each input.")
    chosen = draw(None if y is None else y.tolist(), len(x), args.inputs, args.seed)
    taken, notes = x[chosen], list[str]()
    dtype = next((p.dtype for p in network.model.parameters()), None)
    if taken.is_floating_point() and dtype is not None and taken.dtype != dtype:
        notes.append(f"The array's {taken.dtype} was converted to the network's {dtype}.".replace("torch.", ""))
        taken = taken.to(dtype)
    says = f"{len(chosen)} of {len(x)} inputs of {args.array}, each {_shape(taken)}."
    return Given(taken, None if y is None else y[chosen].long(), says, tuple(notes))


def _tensors(file: Path) -> tuple[Tensor, Tensor | None]:
    """The array in a file, and the labels that lie beside it."""
    if not file.is_file():
        raise Refused(f"Expected a file with an array; there is no file {file}.")
    suffix = file.suffix.lower()
    if suffix == ".npy":
        try:
            return torch.from_numpy(np.load(file, allow_pickle=False)), None
        except (ValueError, TypeError, EOFError) as error:
            raise refused("an array of numbers", f"{file.name} ({error})", "Save it with numpy.save.") from error
    if suffix != ".safetensors":
        raise refused("an array as .npy or .safetensors", file.name, "Save it with numpy.save.")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except SafetensorError as error:
        raise refused("a whole .safetensors file", f"{file.name} ({error})", "Save or copy it again.") from error
    if not {*found} <= {"x", "y"} or "x" not in found:
        raise refused(f"x, and y or nothing, in {file.name}", ", ".join(found) or "nothing", "Name the inputs x.")
    return found["x"], found.get("y")


def _text(network: Network, args: Namespace) -> Given:
    if not args.text.is_file():
        raise Refused(f"Expected a file of texts, one a line; there is no file {args.text}.")
    folder, length = network.folder, args.length or LENGTH
    if folder is None or not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        got = network.spec if folder is None else f"none in {folder}"
        raise refused("hf:FOLDER with a tokenizer for --text", got, "Give the tokens themselves with --array.")
    tokenizer = optional("transformers", "hf:").AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    lines = [line.strip() for line in args.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise refused(f"texts in {args.text}", "no line that is not empty", "Write one text a line.")
    every = [tokenizer(line)["input_ids"] for line in lines]
    # of one length, so that none is padded: padding would be measured with the text
    rows = [
        tokenizer(line, truncation=True, max_length=length)["input_ids"]
        for line, tokens in zip(lines, every, strict=True)
        if len(tokens) >= length
    ]
    if not rows:
        longest = max(map(len, every))
        raise refused(f"lines of {length} tokens or more", f"at most {longest}", f"Use --length {longest} or less.")
    tokens = torch.tensor([rows[i] for i in draw(None, len(rows), args.inputs, args.seed)])
    says = f"{len(tokens)} of {len(lines)} lines of {args.text}, the first {length} tokens of each."
    left = len(lines) - len(rows)
    notes = (f"{left} of {len(lines)} lines have fewer than {length} tokens and were left out.",) if left else ()
    return Given({"input_ids": tokens}, None, says, notes)


def _noise(network: Network, args: Namespace, count: int) -> Given:
    generator = torch.Generator().manual_seed(args.seed)
    config, own = getattr(network.model, "config", None), network.pictures
    words = getattr(config, "vocab_size", None)
    if args.shape is None and isinstance(words, int) and own is None:
        length = args.length or LENGTH
        tokens = torch.randint(words, (count, length), generator=generator)
        return Given({"input_ids": tokens}, None, f"{count} rows of {length} random tokens.", (RANDOM,))
    side = args.size or (None if own is None else own.crop)
    if args.shape is None and (own is None or side is None):
        fix = "Give it, as --shape 3,32,32."
        raise refused("--shape, of one input", f"nothing, and {network.spec} does not say what it takes", fix)
    shape = args.shape or (_channels(network.model), side, side)
    dtype = next((p.dtype for p in network.model.parameters()), torch.float32)
    x = torch.randn(count, *shape, generator=generator).to(dtype)
    return Given(x, None, f"{count} inputs of standard normal noise, each {_shape(x)}.", (RANDOM,))


def _channels(model: nn.Module) -> int:
    """Of its first convolution, where that takes grey or coloured images."""
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    return first if first in (1, 3) else 3


def _on(network: Network, x: Tensor) -> Tensor:
    return x.to(next((p.device for p in network.model.parameters()), x.device))


def _outputs(model: nn.Module, data: Tensor | dict[str, Tensor]) -> int | None:
    """How many classes the network tells, None where its output is of another kind; a first try of its inputs."""
    given = inputs_of(data)
    few = given.rows(torch.arange(min(2, len(given))))
    try:
        with torch.no_grad():
            logits = logits_of(few.call(model))
    except Exception as error:  # whatever a network does with inputs that it is not made for
        shape = "×".join(map(str, given.data.shape[1:]))
        first = next(iter(str(error).strip().splitlines()), "")
        raise refused(
            "inputs that the network takes",
            f"{type(error).__name__} from {type(model).__name__} at inputs of {shape} ({first.rstrip('.')})",
            "Give --size, --shape or an array that fits.",
        ) from error
    return logits.shape[1] if logits.dim() == 2 else None


def _shape(x: Tensor) -> str:
    return "×".join(map(str, x.shape[1:]))
