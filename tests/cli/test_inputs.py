"""Inputs: images prepared as a network's own are, arrays as they are, text of one length, noise that says so."""

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from resalign_utils.cli._inputs import draw, open_inputs
from resalign_utils.cli._networks import open_network
from resalign_utils.cli._pictures import Preparation, listed
from resalign_utils.cli._refused import Refused

NAMES = ("images", "array", "text", "random", "labels", "inputs", "size", "mean", "std", "length", "shape")


def inputs(network, **given):
    return open_inputs(network, Namespace(**{**dict.fromkeys(NAMES), "seed": 0, **given}))


def opened(spec, **given):
    options = {"weights": None, "download": False, "classes": None, "seed": 0, "device": "cpu"}
    return open_network(Namespace(model=spec, **{**options, **given}))


@pytest.fixture
def flat(net):
    return opened(f"{net}:Net")


@pytest.fixture
def seeing(net):
    return opened(f"{net}:Pictures")


# ---- which


def test_inputs_are_drawn_evenly_from_classes_by_a_seed():
    labels = ["a"] * 90 + ["b"] * 6 + ["c"] * 4
    chosen = draw(labels, 100, 12, 0)
    assert [sum(labels[i] == name for i in chosen) for name in "abc"] == [4, 4, 4]
    assert chosen == sorted({*chosen}) == draw(labels, 100, 12, 0)
    assert chosen != draw(labels, 100, 12, 1)
    assert [sum(labels[i] == name for i in draw(labels, 100, 18, 0)) for name in "abc"] == [8, 6, 4]
    assert len(draw(None, 100, None, 0)) == 20
    assert draw(None, 7, None, 0) == [*range(7)]
    with pytest.raises(Refused, match=r"Expected --inputs up to 7, which are all there are; got 8\."):
        draw(None, 7, 8, 0)


# ---- images


def picture(tmp_path, size=(300, 261)):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_images_are_prepared_as_torchvision_does(tmp_path):
    image = picture(tmp_path)
    for name in ("resnet18", "efficientnet_b3"):  # bilinear and bicubic
        preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        assert_close(Preparation.of_torchvision(preset, name)(image), preset(image), rtol=0, atol=0)


def test_images_are_prepared_as_timm_does(tmp_path):
    image = picture(tmp_path)
    for name in ("vit_tiny_patch16_224", "resnet18"):
        config = timm.data.resolve_model_data_config(timm.create_model(name))
        own = timm.data.create_transform(**config, is_training=False)
        assert_close(Preparation.of_timm(config, name)(image), own(image), rtol=0, atol=1e-6)


def test_size_mean_and_deviation_are_changed_by_what_is_given():
    own = Preparation(256, 224, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "bilinear", "resnet18")
    changed = own.changed(112, (0.0,), None)
    assert (changed.resize, changed.crop, changed.mean, changed.std) == (128, 112, (0.0, 0.0, 0.0), own.std)
    assert str(changed) == (
        "shorter side to 128 (bilinear), middle 112×112, pixels in [0, 1] less 0 over 0.2/0.2/0.1 "
        "(resnet18, --size, --mean)"
    )
    with pytest.raises(Refused, match=r"Expected --mean as one number or 3; got 2\. Give one for each channel\."):
        own.changed(None, (0.5, 0.5), None)
    with pytest.raises(Refused, match=r"Expected --std above 0; got 0\.0\."):
        own.changed(None, None, (0.0,))


def test_a_folder_of_classes_gives_images_and_labels(seeing, photos):
    given = inputs(seeing, images=photos, inputs=6, mean=(0.5,), std=(0.25,))
    assert given.data.shape == (6, 3, 8, 10)
    assert given.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert given.says == (
        f"6 of 12 images of {photos}: of the size that they have, pixels in [0, 1] less 0.5 over 0.25 "
        "(no settings of the network, --mean, --std)."
    )
    assert given.notes == ("The folders are the outputs in order: cat = 0, dog = 1, owl = 2.",)
    first = min(file for file in (photos / "cat").glob("*.png"))
    pixels = np.asarray(Image.open(first)).transpose(2, 0, 1) / 255
    every = inputs(seeing, images=photos, inputs=12, mean=(0.5,), std=(0.25,))
    assert_close(every.data[0], torch.from_numpy((pixels - 0.5) / 0.25).float())


def test_what_is_not_known_of_images_is_said(seeing, photos):
    assert "give --mean and --std if it had any" in inputs(seeing, images=photos).notes[0]
    network = opened("torchvision:resnet18", classes=3)
    given = inputs(network, images=photos, inputs=2)
    assert given.data.shape == (2, 3, 224, 224)
    assert "shorter side to 256 (bilinear), middle 224×224" in given.says
    assert len(given.notes) == 1


def test_labels_are_used_only_where_they_are_outputs(seeing, photos):
    for i, name in enumerate(("cat", "dog", "owl")):
        (photos / name).rename(photos / str(2 - i))
    given = inputs(seeing, images=photos, inputs=6)
    assert given.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert given.notes[-1] == "The folders' names are the numbers of their outputs."
    (photos / "2").rename(photos / "horse")
    given = inputs(opened("torchvision:resnet18"), images=photos, size=32, inputs=6)
    assert given.labels is None
    assert given.notes[-1].startswith("Labels are not used: 3 folders are not the 1000 outputs of the network.")


def test_a_folder_without_classes_has_no_labels(seeing, photos):
    given = inputs(seeing, images=photos / "cat")
    assert len(given.data) == 4
    assert given.labels is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda p: Image.new("RGB", (9, 9)).save(p / "cat" / "x.png"),
            "Expected images of one size; got 2 sizes, from",
        ),
        (
            lambda p: Image.new("RGB", (9, 9)).save(p / "x.png"),
            "got 1 images beside 3 sub-folders. Move one kind away.",
        ),
        (
            lambda p: [(p / a).rename(p / b) for a, b in (("cat", "train"), ("dog", "val"), ("owl", "test"))],
            "of a split",
        ),
        (lambda p: (p / "cat" / "x.png").write_bytes(b"x"), "Expected whole images; got the damaged cat/x.png"),
        (lambda p: [f.unlink() for f in p.glob("*/*.png")], "Expected images in "),
        (lambda p: p.rename(p.parent / "moved"), "Expected a folder of images; there is no folder"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(seeing, photos, change, text):
    change(photos)
    with pytest.raises((Refused, ValueError), match=re.escape(text)):
        inputs(seeing, images=photos)


def test_files_that_are_no_images_are_not_listed(photos):
    files, classes = listed(photos)
    assert len(files) == len(classes) == 12


# ---- arrays


def test_an_array_is_given_as_it_is(flat, array):
    x, y = array
    given = inputs(flat, array=x, labels=y, inputs=6)
    assert given.labels.tolist().count(1) == 2
    rows = torch.from_numpy(np.load(x)).float()
    places = [int((rows == row).all(1).nonzero()) for row in given.data]
    assert [place % 3 for place in places] == given.labels.tolist()


def test_inputs_and_labels_can_lie_in_one_file(flat, tmp_path):
    file = tmp_path / "data.safetensors"
    save_file({"x": torch.randn(6, 6), "y": torch.arange(6) % 3}, file)
    given = inputs(flat, array=file)
    assert (given.data.shape, given.labels.shape, given.notes) == ((6, 6), (6,), ())
    with pytest.raises(Refused, match=r"Expected labels from one place; got y in data.safetensors and --labels"):
        inputs(flat, array=file, labels=file)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.ones(6), "Expected an array (n, ...) of inputs; got (6,)"),
        (np.ones((0, 6)), "Expected an array (n, ...) of inputs; got (0, 6)"),
        (np.ones((4, 6), np.uint8), "Expected real numbers as the network takes them; got torch.uint8"),
        (np.full((4, 6), np.nan), "Expected finite numbers; got NaN or infinite in x.npy"),
        (np.ones((4, 5)), "Expected inputs that the network takes; got RuntimeError from Net at inputs of 5 ("),
        (np.array([[{}]]), "Expected an array of numbers; got x.npy ("),
    ],
)
def test_an_array_that_is_no_input_is_refused(flat, tmp_path, x, text):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(Refused, match=re.escape(text)):
        inputs(flat, array=tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.arange(5), "Expected 24 whole numbers as labels; got (5,) of torch.int64"),
        (np.ones(24), "Expected 24 whole numbers as labels; got (24,) of torch.float64"),
        (np.arange(24) % 4, "Expected labels in 0..2, the outputs of the network; got labels from 0 to 3."),
        (np.arange(24) % 3 - 1, "got labels from -1 to 1."),
    ],
)
def test_labels_that_do_not_fit_are_refused(flat, array, y, text):
    np.save(array[1], y)
    with pytest.raises(Refused, match=re.escape(text)):
        inputs(flat, array=array[0], labels=array[1])


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("x.csv", b"1,2", "Expected an array as .npy or .safetensors; got x.csv"),
        ("x.safetensors", b"1", "Expected a whole .safetensors file; got x.safetensors"),
        ("none.npy", None, "Expected a file with an array; there is no file"),
    ],
)
def test_another_file_is_no_array(flat, tmp_path, name, content, text):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=re.escape(text)):
        inputs(flat, array=tmp_path / name)


def test_names_in_a_file_of_arrays_are_x_and_y(flat, tmp_path):
    save_file({"images": torch.randn(6, 6)}, tmp_path / "x.safetensors")
    with pytest.raises(Refused, match=r"Expected x, and y or nothing, in x\.safetensors; got images\."):
        inputs(flat, array=tmp_path / "x.safetensors")


# ---- noise, and options that do not belong together


def test_noise_has_the_shape_that_is_asked_for_and_says_what_it_is(flat):
    given = inputs(flat, random=5, shape=(6,))
    assert given.data.shape == (5, 6)
    assert given.notes == ("THE INPUTS ARE RANDOM: noise tells nothing of what the network does with data.",)
    assert torch.equal(given.data, inputs(flat, random=5, shape=(6,)).data)
    with pytest.raises(Refused, match=r"Expected --shape, of one input; got nothing, and .*net\.py:Net does not say"):
        inputs(flat, random=5)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"random": 2, "labels": Path("y.npy")}, "Expected --labels with --array; got it with noise."),
        ({"random": 2, "inputs": 3}, "Expected --inputs with images, an array or text; got it with noise."),
        ({"array": Path("x.npy"), "mean": (0.5,)}, "Expected --mean with --images; got it with this source."),
        ({"array": Path("x.npy"), "shape": (6,)}, "Expected --shape with --random; got it with this source."),
        ({"images": Path("x"), "length": 3}, "Expected --length with --text; got it with this source."),
    ],
)
def test_an_option_of_another_source_is_refused(flat, given, text):
    with pytest.raises(Refused, match=re.escape(text)):
        inputs(flat, **given)


# ---- Hugging Face


WORDS = ["[UNK]", *["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "one"]]


@pytest.fixture
def speaking(tmp_path):
    """A small GPT-2 with a tokenizer of eleven words, in a folder."""
    tokenizers = pytest.importorskip("tokenizers")  # transformers brings it
    config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=len(WORDS), n_positions=16)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    level = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    words = tokenizers.Tokenizer(level)
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "gpt2")
    return opened(f"hf:{tmp_path / 'gpt2'}")


def test_lines_of_text_are_cut_to_one_length(speaking, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("the cat sat on a mat\n\nthe cat\nanother one saw the cat\n")
    given = inputs(speaking, text=file, length=4)
    assert given.data["input_ids"].tolist() == [[1, 2, 3, 4], [9, 10, 8, 1]]
    assert given.says == f"2 of 3 lines of {file}, the first 4 tokens of each."
    assert given.notes == ("1 of 3 lines have fewer than 4 tokens and were left out.",)
    with pytest.raises(Refused, match=r"Expected lines of 32 tokens or more; got at most 6\. Use --length 6 or less\."):
        inputs(speaking, text=file)
    file.write_text("\n")
    with pytest.raises(Refused, match="got no line that is not empty"):
        inputs(speaking, text=file)
    with pytest.raises(Refused, match="Expected a file of texts, one a line; there is no file"):
        inputs(speaking, text=tmp_path / "none.txt")


def test_text_needs_a_tokenizer(flat, speaking, tmp_path):
    (tmp_path / "lines.txt").write_text("the cat\n")
    with pytest.raises(Refused, match=r"Expected hf:FOLDER with a tokenizer for --text; got .*net\.py:Net"):
        inputs(flat, text=tmp_path / "lines.txt")
    for file in speaking.folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(Refused, match="got none in "):
        inputs(speaking, text=tmp_path / "lines.txt")


def test_random_tokens_are_of_the_vocabulary(speaking):
    given = inputs(speaking, random=3, length=5)
    assert given.data["input_ids"].shape == (3, 5)
    assert int(given.data["input_ids"].max()) < len(WORDS)
    assert given.says == "3 rows of 5 random tokens."


def test_text_is_diagnosed_end_to_end(resalign, speaking, tmp_path):
    (tmp_path / "lines.txt").write_text("the cat sat on a mat\nanother one saw the cat\n")
    argv = ("diagnose", f"hf:{speaking.folder}", "--text", tmp_path / "lines.txt", "--length", "4", "--tokens", "last")
    answer = resalign(*argv, "--null", "none", "--budget", "1s")
    assert answer.code == 0, answer.err
    assert "GPT2LMHeadModel: 4 residual blocks, 2 inputs." in answer.out


def test_images_of_a_folder_with_an_image_processor_are_prepared_by_it(photos, tmp_path):
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    network = opened(f"hf:{tmp_path / 'vit'}")
    plain = inputs(network, images=photos, inputs=3)
    assert plain.data.shape == (3, 3, 16, 16)
    assert "give --mean and --std" in plain.notes[0]
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.1] * 3)
    processor.save_pretrained(tmp_path / "vit")
    given = inputs(network, images=photos, inputs=3)
    assert f"prepared as {tmp_path / 'vit'} says" in given.says
    files, classes = listed(photos)
    first = Image.open(files[draw(classes, 12, 3, 0)[0]])
    assert_close(given.data[:1], processor([first], return_tensors="pt")["pixel_values"])
    assert "shorter side to 16" in inputs(network, images=photos, inputs=3, size=16).says
