"""The command line as argparse has it: verbs, options, and help that teaches."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .. import __version__

T = TypeVar("T")
KINDS = ("torchvision", "timm", "hf")
NULLS = ("reinitialised", "none")
OUTPUTS = "a name that ends in .html, in .json, or in nothing, for a folder"

MODELS = """\
models:
  torchvision:NAME   a model of torchvision, as torchvision:resnet18
  timm:NAME          a model of timm, as timm:vit_tiny_patch16_224
  hf:FOLDER          a folder with a config.json of Hugging Face's transformers, and its weights if it
                     holds some; hf:path/config.json takes the configuration alone
  FILE.py:FUNCTION   a function, or a class, that is called without arguments and returns an nn.Module.
                     THIS RUNS THE CODE OF THAT FILE: name only files that you trust.
"""
CODES = """\
exit codes:
  0 done; 1 refused, with a sentence on stderr that says why; 2 the call could not be read; 130 interrupted
"""
TOP = f"""\
examples:
  resalign blocks torchvision:resnet18
  resalign diagnose torchvision:resnet18 --weights w.safetensors --images photos/ --out report.html
  resalign poc table.csv --target column

`resalign VERB --help` shows the options of a verb. Nothing is downloaded unless --download is given.

{CODES}"""
DIAGNOSE = f"""\
examples:
  resalign diagnose torchvision:resnet18 --weights w.safetensors --images photos/ --out report.html
      photos/ holds images, or one sub-folder of images a class, from which --inputs are drawn evenly.
      They are prepared as the model's own are; what is done is printed, and changed by --size, --mean
      and --std.
  resalign diagnose net.py:make --weights net.pt --array x.npy --labels y.npy --budget 90s --out folder
      Arrays are given to the network as they are.
  resalign diagnose hf:my-gpt2/ --text lines.txt --length 64 --tokens last --json
  resalign diagnose timm:resnet18 --random 20 --out folder
      Noise in place of inputs: a test of the command. The report says so.

{MODELS}
weights:
  .safetensors, or .pt, .pth, .bin, .ckpt as far as torch reads them without running code. A state that
  lies under `state_dict` or `model`, and the prefix `module.`, are understood; a key that is missing or
  too many is refused. Without --weights a network of torchvision, of timm or of a configuration is
  UNTRAINED, and the output says so.

outputs:
  {OUTPUTS}

{CODES}"""
BLOCKS = f"""\
examples:
  resalign blocks torchvision:resnet18
  resalign blocks net.py:make --shape 3,32,32
  resalign blocks hf:my-vit/config.json --json

The blocks are found in the operations of one forward pass: weights do not matter, and two random
inputs will do unless others are given.

{MODELS}
{CODES}"""
POC = f"""\
examples:
  resalign poc table.csv --target column
      column holds the classes; all other columns are what they are predicted from.
  resalign poc photos/ --image-size 32 --seeds 8 --out runs.csv
      photos/ holds one sub-folder of images a class.

Networks with all, half and none of their skips are compared on the same splits, beside the most
frequent class and, for a table, logistic regression and gradient boosting.

outputs:
  .csv one row a candidate and seed; .html the figure of the differences; .json all of it

{CODES}"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    top = _parser(
        argparse.ArgumentParser,
        prog="resalign",
        description="Measure how the blocks of a residual network work together.",
        epilog=TOP,
    )
    top.add_argument("--version", action="version", version=f"resalign {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    diagnose = _parser(
        verbs.add_parser,
        "diagnose",
        help="find the blocks of a trained network, measure them beside an untrained twin, and say what was found",
        description="Find where a network adds, measure it beside its untrained twin, and say what was found.",
        epilog=DIAGNOSE,
    )
    _add_model(diagnose)
    _add_inputs(diagnose, needed=True)
    _add_measurement(diagnose)
    blocks = _parser(
        verbs.add_parser,
        "blocks",
        help="list the residual blocks of a network, and what else in it adds",
        description="List the residual blocks of a network, and what else in it adds or joins, with the reason.",
        epilog=BLOCKS,
    )
    _add_model(blocks)
    _add_inputs(blocks, needed=False)
    _add_choice(blocks)
    poc = _parser(
        verbs.add_parser,
        "poc",
        help="compare networks with and without skips, and what is simpler, on your own data",
        description="Say what to try first on your own data: a network, with or without skips, or what is simpler.",
        epilog=POC,
    )
    _add_poc(poc)
    for each in (diagnose, blocks, poc):
        each.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")
        each.add_argument("--traceback", action="store_true", help="let an error end with its traceback")
    return top


def _parser(make: Callable[..., argparse.ArgumentParser], *names: str, **given: str) -> argparse.ArgumentParser:
    return make(*names, **given, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)


def _add_model(to: argparse.ArgumentParser) -> None:
    to.add_argument("model", type=_model, metavar="MODEL", help="which network, see below")
    group = to.add_argument_group("the network")
    group.add_argument("--weights", type=Path, metavar="FILE", help="its trained weights, see below")
    group.add_argument("--download", action="store_true", help="fetch the weights that torchvision or timm offers")
    group.add_argument("--classes", type=_whole(1), metavar="C", help="how many classes its head has, if not its own")
    group.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    group.add_argument("--seed", type=_whole(0), default=0, help="of all that is drawn (default 0)")


def _add_inputs(to: argparse.ArgumentParser, *, needed: bool) -> None:
    group = to.add_argument_group("the inputs")
    source = group.add_mutually_exclusive_group(required=needed)
    source.add_argument("--images", type=Path, metavar="FOLDER", help="images, or one sub-folder of images a class")
    source.add_argument("--array", type=Path, metavar="FILE", help=".npy, or .safetensors with x and perhaps y")
    source.add_argument("--text", type=Path, metavar="FILE", help="one input a line, for hf: with a tokenizer")
    source.add_argument("--random", type=_whole(1), metavar="N", help="N inputs of noise, which prove nothing")
    group.add_argument("--labels", type=Path, metavar="FILE", help="labels of --array, .npy of whole numbers")
    group.add_argument(
        "--inputs", type=_whole(1), metavar="N", help="how many are drawn (default 20, or all there are)"
    )
    group.add_argument("--size", type=_whole(1), metavar="PIXELS", help="side to which images are cut")
    group.add_argument("--mean", type=_numbers, metavar="M[,M,M]", help="taken from pixels in [0, 1]")
    group.add_argument("--std", type=_numbers, metavar="S[,S,S]", help="that they are then divided by")
    group.add_argument("--length", type=_whole(1), metavar="T", help="tokens of each text (default 32)")
    group.add_argument("--shape", type=_shape, metavar="C,H,W", help="of one --random input")


def _add_choice(to: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = to.add_argument_group("what is measured")
    group.add_argument(
        "--blocks", type=_names, metavar="A,B", help="only these blocks, as `resalign blocks` names them"
    )
    group.add_argument("--exclude", type=_names, default=(), metavar="A,B", help="all but these")
    return group


def _add_measurement(to: argparse.ArgumentParser) -> None:
    group = _add_choice(to)
    group.add_argument("--tokens", type=_tokens, default="auto", help="auto (default), last, all, none, or positions")
    group.add_argument("--budget", type=_budget, default="5min", help="of time: 90s, 5min (default), 1h")
    group.add_argument(
        "--null",
        type=_null,
        default="reinitialised",
        help="the untrained twin: reinitialised (default), none, or FILE.py:FUNCTION that makes it",
    )
    group.add_argument("--k", type=_whole(1), help="singular vectors compared (default min(C, 10))")
    group.add_argument("--out", type=_out, action="append", default=[], metavar="PATH", help=f"{OUTPUTS}; repeatable")


def _add_poc(to: argparse.ArgumentParser) -> None:
    to.add_argument("data", type=Path, metavar="DATA", help="a CSV file, or a folder with one sub-folder a class")
    to.add_argument("--target", metavar="COLUMN", help="the column of a table that holds the classes")
    to.add_argument("--seeds", type=_whole(3), default=5, help="paired repetitions (default 5)")
    to.add_argument("--image-size", type=_whole(1), metavar="PIXELS", help="side to which a folder's images are cut")
    to.add_argument("--test-share", type=float, default=0.25, help="share that is tested (default 0.25)")
    to.add_argument("--depth", type=_whole(2), default=4, help="blocks of the networks (default 4)")
    to.add_argument("--width", type=_whole(1), help="units (default 64, table) or channels (16, images)")
    to.add_argument("--epochs", type=_whole(1), help="passes over the training examples (default: about 400 steps)")
    to.add_argument("--lr", type=float, default=3e-3, help="learning rate (default 0.003)")
    to.add_argument("--margin", type=float, default=0.01, help="gain that is worth a less simple model (default 0.01)")
    to.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    to.add_argument("--out", type=_poc_out, action="append", default=[], metavar="PATH", help=".csv, .html or .json")


def _model(text: str) -> str:
    kind, found, name = text.partition(":")
    file, _, function = text.rpartition(":")
    if (found and kind in KINDS and name) or (file.endswith(".py") and function.isidentifier()):
        return text
    forms = "torchvision:NAME, timm:NAME, hf:FOLDER or FILE.py:FUNCTION"
    raise argparse.ArgumentTypeError(f"expected {forms}; got {text!r}")


def _null(text: str) -> str:
    if text in NULLS or text.rpartition(":")[0].endswith(".py"):
        return text
    raise argparse.ArgumentTypeError(f"expected {', '.join(NULLS)} or FILE.py:FUNCTION; got {text!r}")


def _out(text: str) -> Path:
    return _with_suffix(text, (".html", ".json", ""), OUTPUTS)


def _poc_out(text: str) -> Path:
    return _with_suffix(text, (".csv", ".html", ".json"), "a name that ends in .csv, .html or .json")


def _with_suffix(text: str, suffixes: Sequence[str], expected: str) -> Path:
    path = Path(text)
    if path.suffix.lower() in suffixes or ("" in suffixes and path.is_dir()):
        return path
    raise argparse.ArgumentTypeError(f"expected {expected}; got {text!r}")


def _budget(text: str) -> str:
    if re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text):
        return text
    raise argparse.ArgumentTypeError(f"expected a time as 90s, 5min or 1h; got {text!r}")


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if re.fullmatch(r"\d+", text) and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} on; got {text!r}")

    return read


def _numbers(text: str) -> tuple[float, ...]:
    return _listed(text, float, "numbers with commas between them, as 0.5,0.5,0.5")


def _shape(text: str) -> tuple[int, ...]:
    return _listed(text, _whole(1), "sides with commas between them, as 3,32,32")


def _names(text: str) -> tuple[str, ...]:
    return _listed(text, str, "names with commas between them")


def _tokens(text: str) -> str | tuple[int, ...] | None:
    if text in ("auto", "last", "all", "none"):
        return None if text == "none" else text
    return _listed(text, int, "auto, last, all, none, or positions with commas between them, as --tokens=1,5,-1")


def _listed(text: str, read: Callable[[str], T], expected: str) -> tuple[T, ...]:
    parts = [part.strip() for part in text.split(",")]
    try:
        if all(parts):
            return tuple(read(part) for part in parts)
    except (ValueError, argparse.ArgumentTypeError):  # said below, in the words of the whole list
        parts = []
    raise argparse.ArgumentTypeError(f"expected {expected}; got {text!r}")
