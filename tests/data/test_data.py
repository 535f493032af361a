"""Every data set is read from tiny files in its real format on disk; nothing here touches the network."""

import dataclasses
import hashlib
import pickle
import shlex
import struct
import warnings
from urllib.error import URLError

import numpy as np
import platformdirs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close
from torchvision import datasets
from torchvision.datasets import utils as torchvision_utils

import resalign_utils.data as data_module
from resalign_utils.data import LOADERS, ImageData, load_data

# SHA-256 of the digits in [0, 1], split and all. A change here changes every stored result of the book.
DIGITS = "f63734f8e6878f1378568f9d2a222f460cf8fd3dc221351b54f322d0e6c861b1"
FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "imagenette": "imagenette2-160",
}
FASHION_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag")
WNIDS = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]
WNIDS += ["n03394916", "n03417042", "n03425413", "n03445777", "n03888257"]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No data folder of this machine is seen, and a download is a failure."""

    def refuse(url, *args, **kwargs):
        raise AssertionError(f"a test tried to download {url}")

    monkeypatch.delenv("RESALIGN_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda app: tmp_path / "cache" / app)
    monkeypatch.setattr(torchvision_utils, "download_url", refuse)
    monkeypatch.setattr(torchvision_utils, "_urlretrieve", refuse)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


# --- tiny files in the real formats -------------------------------------------------------------------------


def write_idx(file, array):
    """The IDX format: two zero bytes, type 8 (unsigned byte), number of axes, big-endian sizes, bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(head + array.astype(np.uint8).tobytes())


def write_idx_set(root, class_name, n_train=30, n_test=20):
    rng = np.random.default_rng(0)
    written = []
    for part, n in (("train", n_train), ("t10k", n_test)):
        images, labels = rng.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        write_idx(root / class_name / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / class_name / "raw" / f"{part}-labels-idx1-ubyte", labels)
        written += [images[:, None], labels]
    return written


def python2_text(text):
    return b"T" + struct.pack("<I", len(text)) + text


def python2_pickle(entries):
    """Opcodes as Python 2's cPickle wrote CIFAR: byte strings, old NumPy names, `dtype('u1', 0, 1)`."""
    out = b"\x80\x02}("
    for key, value in entries.items():
        out += python2_text(key.encode())
        if isinstance(value, np.ndarray):
            out += b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
            out += b"(K\x01" + b"".join(b"J" + struct.pack("<i", n) for n in value.shape) + b"\x86"
            out += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
            out += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
            out += python2_text(value.tobytes()) + b"tb"
        elif isinstance(value[0], str):
            out += b"](" + b"".join(python2_text(name.encode()) for name in value) + b"e"
        else:
            out += b"](" + b"".join(b"J" + struct.pack("<i", label) for label in value) + b"e"
    return out + b"u."


def write_cifar(root, monkeypatch, dataset, per_file=20):
    """Write all files of CIFAR-10 or -100 and give torchvision their MD5 sums."""
    rng = np.random.default_rng(0)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    c = 100 if dataset is datasets.CIFAR100 else 10
    written: dict[str, list] = {}

    def put(file_name, entries):
        content = python2_pickle(entries)
        (folder / file_name).write_bytes(content)
        return hashlib.md5(content).hexdigest()

    lists: dict[str, list] = {"train_list": [], "test_list": []}
    for kind, files in lists.items():
        for file_name, _ in getattr(dataset, kind):
            pixels = rng.integers(0, 256, (per_file, 3072), dtype=np.uint8)
            labels = [int(label) for label in np.arange(per_file) % c]
            keys = {"labels": labels} if c == 10 else {"coarse_labels": labels, "fine_labels": labels}
            files.append([file_name, put(file_name, {"data": pixels, **keys})])
            written.setdefault(kind, []).append((pixels.reshape(-1, 3, 32, 32), labels))
        monkeypatch.setattr(dataset, kind, files)
    names = [f"class {label}" for label in range(c)]
    meta = dict(dataset.meta)
    meta["md5"] = put(meta["filename"], {meta["key"]: names})
    monkeypatch.setattr(dataset, "meta", meta)
    return written, names


def write_imagenette(root, per_class=2, size=(48, 40)):
    """One flat colour per class and image, so that JPEG and resizing keep it; one grey image among them."""
    for part, shade in (("train", 40), ("val", 140)):
        for label, wnid in enumerate(WNIDS):
            folder = root / "imagenette2-160" / part / wnid
            folder.mkdir(parents=True)
            for i in range(per_class):
                colour = (shade + label, shade + 10 * i, 200)
                Image.new("RGB", size, colour).save(folder / f"{wnid}_{i}.JPEG", quality=100)


def write(name, root, monkeypatch):
    if name in ("mnist", "fashion_mnist"):
        write_idx_set(root, {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name])
    elif name == "imagenette":
        write_imagenette(root)
    else:
        write_cifar(root, monkeypatch, getattr(datasets, name.upper()))


# --- digits -------------------------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all():
    data = load_data("digits", normalize=False)
    assert data.checksum() == DIGITS
    assert (data.train_x.shape, data.test_x.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert data.train_x.dtype == data.test_x.dtype == torch.float32
    assert data.train_y.dtype == data.test_y.dtype == torch.int64
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)
    assert (data.mean, data.std, data.num_classes) == (0.0, 1.0, 10)
    assert data.class_names == tuple("0123456789")
    assert data.source == "scikit-learn load_digits"
    assert data.test_y.bincount().tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def test_digits_hold_every_image_of_scikit_learn_once():
    from sklearn.datasets import load_digits

    data = load_data("digits", normalize=False)
    both = torch.cat([data.train_x, data.test_x]).flatten(1) * 16  # (1797, 64)
    rows = np.c_[both.numpy(), torch.cat([data.train_y, data.test_y]).numpy()]
    expected = np.c_[load_digits().data, load_digits().target]
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))


def test_normalize_uses_one_mean_and_deviation_of_the_whole_training_split(digits):
    plain = load_data("digits", normalize=False)
    pixels = plain.train_x.double().numpy()
    assert digits.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert digits.std == pytest.approx(pixels.std(), rel=1e-12)
    assert_close(digits.train_x.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert_close(digits.train_x.std(correction=0), torch.tensor(1.0))
    for part in ("train_x", "test_x"):
        assert_close(digits.unnormalize(getattr(digits, part)), getattr(plain, part))
    few = load_data("digits", classes=(3, 5), per_class=7)
    assert (few.mean, few.std) == (digits.mean, digits.std)


@pytest.mark.parametrize("arguments", [{"seed": 1}, {"per_class": 4}, {"per_class": 4, "seed": 9}])
def test_test_images_depend_neither_on_seed_nor_on_per_class(digits, arguments):
    data = load_data("digits", **arguments)
    assert torch.equal(data.test_x, digits.test_x)
    assert torch.equal(data.test_y, digits.test_y)


def test_same_arguments_same_tensors_and_another_seed_another_draw():
    checksums = [load_data("digits", per_class=20, seed=seed).checksum() for seed in (0, 0, 1)]
    assert checksums[0] == checksums[1] != checksums[2]
    assert load_data("digits", seed=1).checksum() == load_data("digits", seed=2).checksum()


# --- classes and per_class ----------------------------------------------------------------------------------


def test_classes_are_kept_and_relabelled_in_the_order_given(digits):
    data = load_data("digits", classes=(7, 2))
    assert data.num_classes == 2
    assert data.class_names == ("7", "2")
    for part in ("train", "test"):
        x, y = getattr(digits, f"{part}_x"), getattr(digits, f"{part}_y")
        keep = (y == 7) | (y == 2)
        assert torch.equal(getattr(data, f"{part}_x"), x[keep])  # in the order of the files
        assert torch.equal(getattr(data, f"{part}_y"), (y[keep] == 2).long())


def test_per_class_for_imbalance_follows_the_order_of_classes(digits):
    data = load_data("digits", classes=(8, 0, 4), per_class=(5, 50, 10))
    assert data.train_y.bincount().tolist() == [5, 50, 10]
    assert data.test_y.bincount().tolist() == [35, 36, 36]
    assert rows(data.train_x[data.train_y == 1]) <= rows(digits.train_x[digits.train_y == 0])


def rows(x):
    return {tuple(image.flatten().tolist()) for image in x}


@settings(deadline=None, max_examples=20)
@given(small=st.integers(1, 138), more=st.integers(0, 138), seed=st.integers(0, 2**40))
def test_a_larger_draw_contains_the_smaller_one(small, more, seed):
    large = min(small + more, 138)
    a = load_data("digits", classes=(1, 9), per_class=small, seed=seed)
    b = load_data("digits", classes=(1, 9), per_class=large, seed=seed)
    assert len(a.train_x) == 2 * small
    assert rows(a.train_x) <= rows(b.train_x)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_label_noise_replaces_a_share_of_the_training_labels_by_others(digits, share):
    noisy = load_data("digits", label_noise=share, seed=2)
    wrong = noisy.train_y != digits.train_y
    assert int(wrong.sum()) == round(share * len(digits.train_y))
    assert torch.equal(noisy.train_x, digits.train_x)
    assert torch.equal(noisy.test_y, digits.test_y)
    shifts = ((noisy.train_y - digits.train_y) % 10)[wrong].bincount(minlength=10)[1:]
    expected = int(wrong.sum()) / 9
    assert (shifts - expected).abs().max() < 5 * expected**0.5  # every other class alike


def test_larger_label_noise_contains_the_smaller_and_depends_on_the_seed(digits):
    less, more, other = (load_data("digits", label_noise=s, seed=seed) for s, seed in ((0.1, 0), (0.3, 0), (0.1, 1)))
    wrong = less.train_y != digits.train_y
    assert torch.equal(less.train_y[wrong], more.train_y[wrong])
    assert not torch.equal(less.train_y, other.train_y)


def test_label_noise_falls_on_the_images_that_were_drawn():
    clean, noisy = (load_data("digits", per_class=20, label_noise=share, seed=1) for share in (0.0, 0.25))
    assert torch.equal(clean.train_x, noisy.train_x)
    assert int((clean.train_y != noisy.train_y).sum()) == 50


def test_the_draw_of_a_class_depends_on_no_other_class():
    alone = load_data("digits", classes=(6,), per_class=12, seed=3)
    among = load_data("digits", classes=(2, 6), per_class=(40, 12), seed=3)
    assert torch.equal(alone.train_x, among.train_x[among.train_y == 1])


def test_the_draw_is_not_simply_the_first_images_nor_the_same_for_each_class(digits):
    data = load_data("digits", per_class=10)
    places = []
    for label in range(10):
        members = [tuple(x.flatten().tolist()) for x in digits.train_x[digits.train_y == label]]
        kept = data.train_x[data.train_y == label]
        places.append(tuple(members.index(tuple(x.flatten().tolist())) for x in kept))
        assert list(places[-1]) == sorted(places[-1])  # the order of the files
    assert tuple(range(10)) not in places
    assert len(set(places)) == 10


# --- the other sets, in their formats -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_sets_are_read(name, tmp_path):
    class_name = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    train_x, train_y, test_x, test_y = write_idx_set(tmp_path, class_name)
    data = load_data(name, root=tmp_path, normalize=False)
    assert_close(data.train_x, torch.tensor(train_x / 255, dtype=torch.float32))
    assert_close(data.test_x, torch.tensor(test_x / 255, dtype=torch.float32))
    assert (data.train_y.tolist(), data.test_y.tolist()) == (train_y.tolist(), test_y.tolist())
    assert (data.name, data.shape, data.source) == (name, (1, 28, 28), f"torchvision {class_name}")
    assert data.class_names[:9] == {"mnist": tuple("012345678"), "fashion_mnist": FASHION_NAMES}[name]
    normalized = load_data(name, root=tmp_path)
    assert normalized.mean == pytest.approx(train_x.mean() / 255, rel=1e-12)
    assert normalized.std == pytest.approx(train_x.std() / 255, rel=1e-12)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_as_python_2_pickled_it(name, tmp_path, monkeypatch):
    dataset = getattr(datasets, name.upper())
    written, names = write_cifar(tmp_path, monkeypatch, dataset)
    data = load_data(name, root=tmp_path, normalize=False)
    for kind, x, y in (("train_list", data.train_x, data.train_y), ("test_list", data.test_x, data.test_y)):
        pixels = np.concatenate([images for images, _ in written[kind]])  # (n, 3, 32, 32)
        assert_close(x, torch.tensor(pixels / 255, dtype=torch.float32))
        assert y.tolist() == [label for _, labels in written[kind] for label in labels]
        assert x.is_contiguous()
    assert (data.num_classes, data.class_names) == (len(names), tuple(names))
    assert (data.shape, data.source) == ((3, 32, 32), f"torchvision {name.upper()}")


def test_cifar_is_read_without_the_warning_of_numpy_2_4_0(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, datasets.CIFAR10)
    load = pickle.load

    def warn_and_load(*args, **kwargs):
        warnings.warn("align should be a boolean", np.exceptions.VisibleDeprecationWarning, stacklevel=2)
        return load(*args, **kwargs)

    monkeypatch.setattr(pickle, "load", warn_and_load)
    assert load_data("cifar10", root=tmp_path).num_classes == 10


def test_imagenette_is_read(tmp_path):
    write_imagenette(tmp_path)
    data = load_data("imagenette", root=tmp_path, normalize=False)
    assert (data.train_x.shape, data.test_x.shape) == ((20, 3, 32, 32), (20, 3, 32, 32))
    assert data.train_y.tolist() == data.test_y.tolist() == [label for label in range(10) for _ in range(2)]
    for x, shade in ((data.train_x, 40), (data.test_x, 140)):
        colours = [(shade + label, shade + 10 * i, 200) for label in range(10) for i in range(2)]
        expected = torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 32, 32) / 255
        assert_close(x, expected, atol=2.5 / 255, rtol=0)  # JPEG
    assert data.class_names[:3] == ("tench", "English springer", "cassette player")
    assert data.source == "torchvision Imagenette 160px"


def test_imagenette_is_read_as_torchvision_reads_it(tmp_path):
    write_imagenette(tmp_path)
    (tmp_path / "imagenette2-160" / "train" / WNIDS[3] / "more").mkdir()
    for name in ("more/b.JPEG", "a.jpeg", "z.Jpeg"):
        colour = (len(name), 90, 30)
        Image.new("RGB", (32, 32), colour).save(tmp_path / "imagenette2-160" / "train" / WNIDS[3] / name, "JPEG")
    data = load_data("imagenette", root=tmp_path, normalize=False)
    expected = datasets.Imagenette(tmp_path, "train", size="160px")
    assert data.class_names == tuple(names[0] for names in expected.classes)
    assert data.train_y.tolist() == [label for _, label in expected]
    middle = torch.tensor([image.getpixel((16, 16)) for image, _ in expected]) / 255
    assert_close(data.train_x[:, :, 16, 16], middle, atol=1.5 / 255, rtol=0)


HIDDEN = (".ipynb_checkpoints/{}-checkpoint.JPEG", "._{}.JPEG", ".{}.JPEG", ".DS_Store", "Thumbs.db", "desktop.ini")
HIDDEN += ("@eaDir/{}.JPEG/SYNOPHOTO_THUMB_M.jpg", ".Trash-0/files/{}.JPEG")


@pytest.mark.parametrize("where", ["", "imagenette2-160", "imagenette2-160/train", f"imagenette2-160/val/{WNIDS[2]}"])
@pytest.mark.parametrize("content", ["an image", "no image"])
def test_what_jupyter_and_file_managers_leave_in_folders_of_images_is_not_read(where, content, tmp_path):
    write_imagenette(tmp_path)
    before = load_data("imagenette", root=tmp_path).checksum()
    for pattern in HIDDEN if where.endswith(WNIDS[2]) else [name for name in HIDDEN if "@" not in name]:
        file = tmp_path / where / pattern.format(f"{WNIDS[2]}_0")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\0\5\x16\7")
        if content == "an image":
            Image.new("RGB", (40, 40), (255, 0, 0)).save(file, "JPEG")
    assert load_data("imagenette", root=tmp_path).checksum() == before


def test_imagenette_below_hidden_folders_is_read(tmp_path):
    write_imagenette(tmp_path / ".cache" / "data")
    assert len(load_data("imagenette", root=tmp_path / ".cache" / "data").train_y) == 20


def test_imagenette_keeps_the_middle_of_the_longer_side_and_makes_grey_rgb(tmp_path):
    write_imagenette(tmp_path)
    stripes = np.zeros((64, 192), dtype=np.uint8)  # a third dark, a third white, a third dark
    stripes[:, 64:128] = 255
    for i, image in enumerate((stripes, stripes.T)):
        file = tmp_path / "imagenette2-160" / "train" / WNIDS[0] / f"{WNIDS[0]}_{i}.JPEG"
        Image.fromarray(image).save(file, quality=100)
    data = load_data("imagenette", root=tmp_path, normalize=False)
    inner = data.train_x[:2, :, 2:-2, 2:-2]  # the edges are blurred by the filter
    assert_close(inner, torch.ones_like(inner), atol=0.02, rtol=0)


def test_root_comes_from_the_argument_then_the_variable_then_the_users_cache(tmp_path, monkeypatch):
    for place, n in (("argument", 10), ("variable", 20), ("cache/resalign/data", 30)):
        write_idx_set(tmp_path / place, "MNIST", n_train=n)
    assert len(load_data("mnist").train_y) == 30
    monkeypatch.setenv("RESALIGN_DATA", str(tmp_path / "variable"))
    assert len(load_data("mnist").train_y) == 20
    assert len(load_data("mnist", root=tmp_path / "argument").train_y) == 10
    assert len(load_data("mnist", root=str(tmp_path / "argument")).train_y) == 10


# --- what is missing, damaged or unknown --------------------------------------------------------------------


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Expected one of digits, mnist, .*imagenette; got 'svhn'. Use"):
        load_data("svhn")


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_data_names_folder_and_command(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"Expected {name} in the folder") as caught:
        load_data(name)
    message = str(caught.value)
    root = tmp_path / "cache" / "resalign" / "data"
    assert f"in the folder {root}; there is no {root / FOLDERS[name]}" in message
    assert "root= or RESALIGN_DATA" in message
    python, flag, code = shlex.split(message.split("or download: ")[1])
    assert (python, flag) == ("python", "-c")
    imported, call = code.split("; ")
    assert imported == "from resalign_utils import load_data"
    calls = []
    eval(call, {"load_data": lambda *args, **kwargs: calls.append((args, kwargs))})
    assert calls == [((name,), {"root": str(root), "download": True})]


@pytest.mark.parametrize("name", FOLDERS)
def test_each_single_missing_file_is_named(name, tmp_path, monkeypatch):
    write(name, tmp_path, monkeypatch)
    entries = sorted((tmp_path / FOLDERS[name]).iterdir())  # Imagenette: its folders train and val
    assert len(entries) == {"cifar10": 7, "cifar100": 3, "imagenette": 2}.get(name, 4)
    for entry in entries:
        entry.rename(tmp_path / "aside")
        with pytest.raises(FileNotFoundError) as caught:
            load_data(name, root=tmp_path)
        assert f"there is no {entry}." in str(caught.value)
        (tmp_path / "aside").rename(entry)
    load_data(name, root=tmp_path)


def cut(file):
    file.write_bytes(file.read_bytes()[:-5])


def spoil(file):
    file.write_bytes(b"not what it should be")


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, spoil, empty])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_damaged_file_is_named(name, damage, tmp_path, monkeypatch):
    write(name, tmp_path, monkeypatch)
    files = sorted(file for file in (tmp_path / FOLDERS[name]).rglob("*") if file.is_file())
    for file in (files[0], files[-1]):
        whole = file.read_bytes()
        damage(file)
        with pytest.raises(ValueError, match=r"^Expected .* in the damaged .*; got .*. Delete") as caught:
            load_data(name, root=tmp_path)
        assert f"in the damaged {file}; got" in str(caught.value)
        assert f'load_data("{name}", root="{tmp_path}", download=True)' in str(caught.value)
        file.write_bytes(whole)


def test_cifar_opens_no_pickle_of_another_checksum(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, datasets.CIFAR10)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({"data": 1}))
    monkeypatch.setattr(pickle, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    with pytest.raises(ValueError, match=r"Expected MD5 sum [0-9a-f]{32} in the damaged .*test_batch"):
        load_data("cifar10", root=tmp_path)


def test_idx_files_that_do_not_fit_each_other_are_refused(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    write_idx_set(tmp_path, "MNIST")
    write_idx(folder / "t10k-labels-idx1-ubyte", np.arange(19) % 10)
    with pytest.raises(ValueError, match=r"\(19, 28, 28\).*t10k-images-idx3-ubyte; got \(20, 28, 28\)"):
        load_data("mnist", root=tmp_path)
    write_idx_set(tmp_path, "MNIST")
    write_idx(folder / "train-images-idx3-ubyte", np.zeros((30, 20, 28)))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte; got \(30, 20, 28\)"):
        load_data("mnist", root=tmp_path)
    write_idx_set(tmp_path, "MNIST")
    write_idx(folder / "train-labels-idx1-ubyte", np.arange(30) % 11)
    with pytest.raises(ValueError, match=r"labels in 0\.\.9 in .*train-labels-idx1-ubyte; got label 10"):
        load_data("mnist", root=tmp_path)


@pytest.mark.parametrize("part", ["train", "val"])
def test_imagenette_without_one_class_or_its_files_or_with_a_foreign_one_is_refused(part, tmp_path):
    write_imagenette(tmp_path)
    folder = tmp_path / "imagenette2-160" / part
    (folder / WNIDS[4]).rename(tmp_path / "aside")
    with pytest.raises(ValueError, match=rf"ten folders .* of \.jpeg files in the damaged .*/{part}; .*9 folders"):
        load_data("imagenette", root=tmp_path)
    (folder / WNIDS[4]).mkdir()
    with pytest.raises(ValueError, match=rf"ten folders .*/{part}; got .*{WNIDS[4]}"):
        load_data("imagenette", root=tmp_path)
    (folder / WNIDS[4]).rmdir()
    (tmp_path / "aside").rename(folder / "n99999999")
    with pytest.raises(ValueError, match=rf"ten folders .*/{part}; got 10 folders: .*n99999999"):
        load_data("imagenette", root=tmp_path)


# --- download -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDERS)
def test_download_fetches_into_root_only_when_asked(name, tmp_path, monkeypatch):
    root = tmp_path / "new" / "folder"
    fetched = []

    def fetch(self):
        fetched.append(str(self.root))
        write(name, root, monkeypatch)

    dataset = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "imagenette": "Imagenette"}
    dataset = getattr(datasets, dataset.get(name, name.upper()))
    monkeypatch.setattr(dataset, "_download" if name == "imagenette" else "download", fetch)
    with pytest.raises(FileNotFoundError):
        load_data(name, root=root)
    assert fetched == []
    data = load_data(name, root=root, download=True)
    assert fetched == [str(root)]
    assert data.checksum() == load_data(name, root=root).checksum()


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("no mirror")])
def test_a_failed_download_is_an_error(name, error, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    for module in (datasets.mnist, datasets.cifar, datasets.imagenette):
        monkeypatch.setattr(module, "download_and_extract_archive", fail)
    with pytest.raises(ConnectionError, match=rf"(?s)Cannot download {name} into .*no .*. Check the network"):
        load_data(name, root=tmp_path, download=True)


@pytest.mark.parametrize("name", ["mnist", "imagenette"])
def test_download_leaves_files_alone_that_are_there_and_still_names_damaged_ones(name, tmp_path, monkeypatch):
    write(name, tmp_path, monkeypatch)
    for dataset, method in ((datasets.MNIST, "download"), (datasets.Imagenette, "_download")):
        monkeypatch.setattr(dataset, method, lambda self: pytest.fail("downloaded"))
    load_data(name, root=tmp_path, download=True)
    file = sorted(file for file in (tmp_path / FOLDERS[name]).rglob("*") if file.is_file())[-1]
    spoil(file)
    with pytest.raises(ValueError, match=f"damaged {file}"):
        load_data(name, root=tmp_path, download=True)


# --- arguments that make no sense ---------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [(), (3, 3), (0, 10), (-1,), (1.5,), "01", 3])
def test_classes_that_make_no_sense_are_refused(classes):
    with pytest.raises(ValueError, match=r"at least one label, all different, in 0\.\.9; got \(.*\). Use"):
        load_data("digits", classes=classes)


@pytest.mark.parametrize("per_class", [0, -1, 1.5, "31", (5, 0), (1, 2, 3)])
def test_per_class_that_makes_no_sense_is_refused(per_class):
    match = r"per_class as a whole number from 1 on, or 2 of them.*; got .*. Use e\.g\."
    with pytest.raises(ValueError, match=match):
        load_data("digits", classes=(0, 1), per_class=per_class)


@pytest.mark.parametrize(
    ("noise", "classes"), [(-0.1, (0, 1)), (1.1, (0, 1)), ("0.1", (0, 1)), (0.1, (3,)), (float("nan"), (0, 1))]
)
def test_label_noise_that_makes_no_sense_is_refused(noise, classes):
    with pytest.raises(ValueError, match=r"label_noise in \[0, 1\], and two classes or more.*; got .*. Use e\.g\."):
        load_data("digits", classes=classes, label_noise=noise)


def test_too_many_per_class_says_how_many_there_are():
    match = "per_class up to 142, all train images of class 2; got 143. Ask for fewer"
    with pytest.raises(ValueError, match=match):
        load_data("digits", classes=(4, 2), per_class=143)
    assert len(load_data("digits", classes=(4, 2), per_class=142).train_y) == 284


@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_a_seed_that_makes_no_sense_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed as a whole number from 0 on; got .*. Use seed=0"):
        load_data("digits", per_class=3, seed=seed)


# --- ImageData: sample, checksum, to ------------------------------------------------------------------------


def test_sample_takes_the_first_of_each_class_of_the_test_set(digits):
    x, y = digits.sample()
    assert (x.shape, x.dtype) == ((100, 1, 8, 8), torch.float32)
    assert y.tolist() == [label for label in range(10) for _ in range(10)]
    for label in range(10):
        assert torch.equal(x[y == label], digits.test_x[digits.test_y == label][:10])


def test_sample_from_training_images_drawn_by_seed(digits):
    x, y = digits.sample(5, "train", seed=1)
    assert y.tolist() == [label for label in range(10) for _ in range(5)]
    assert rows(x) <= rows(digits.train_x)
    assert torch.equal(x, digits.sample(5, "train", seed=1)[0])
    assert not torch.equal(x, digits.sample(5, "train", seed=2)[0])
    assert not torch.equal(x, digits.sample(5, "train")[0])
    assert digits.sample(range(1, 11))[1].bincount().tolist() == list(range(1, 11))


def test_sample_refuses_what_is_not_there(digits):
    with pytest.raises(ValueError, match=r"up to 35, all test images of class 2; got 36\. Ask for fewer"):
        digits.sample(36)
    with pytest.raises(ValueError, match=r"""split "test" or "train"; got 'val'\. Use split="test"\."""):
        digits.sample(split="val")
    with pytest.raises(ValueError, match="per_class as a whole number from 1 on, or 10 of them"):
        digits.sample(0)


def test_checksum_sees_pixels_labels_and_shapes(digits):
    other_x, other_y = digits.train_x.clone(), digits.test_y.clone()
    other_x[3, 0, 4, 4] += 1
    other_y[3] += 1
    changed = [
        dataclasses.replace(digits, train_x=other_x),
        dataclasses.replace(digits, test_y=other_y),
        dataclasses.replace(digits, test_x=digits.test_x.reshape(-1, 1, 4, 16)),
    ]
    assert len({digits.checksum(), *(data.checksum() for data in changed)}) == 4
    by_columns = digits.train_x.to(memory_format=torch.channels_last).transpose(2, 3).contiguous().transpose(2, 3)
    assert not by_columns.is_contiguous()
    assert dataclasses.replace(digits, train_x=by_columns).checksum() == digits.checksum()


def test_to_returns_a_new_data_set_and_data_is_frozen(digits):
    moved = digits.to("meta")
    for key in ("train_x", "train_y", "test_x", "test_y"):
        assert getattr(moved, key).device.type == "meta"
        assert getattr(digits, key).device.type == "cpu"
    assert (moved.name, moved.mean, moved.class_names) == (digits.name, digits.mean, digits.class_names)
    assert load_data("digits", device="meta").train_x.device.type == "meta"
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.name = "mine"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_checksum_and_samples_are_the_same_on_a_gpu(digits):
    moved = load_data("digits", device="cuda")
    assert moved.checksum() == digits.checksum()
    x, y = moved.sample(3, seed=0)
    assert x.is_cuda
    assert y.is_cuda
    assert torch.equal(x.cpu(), digits.sample(3, seed=0)[0])
    tensors = [t.cuda() for t in (digits.train_x, digits.train_y, digits.test_x, digits.test_y)]
    own = ImageData.from_tensors(*tensors, name="own")
    assert own.train_x.is_cuda
    assert own.checksum() == ImageData.from_tensors(*(t.cpu() for t in tensors), name="own").checksum()


def test_repr_is_one_line_without_pixels(digits):
    expected = "ImageData('digits': 1437 training and 360 test images (1, 8, 8), 10 classes, on cpu)"
    assert repr(digits) == expected


# --- ImageData.from_tensors ---------------------------------------------------------------------------------


def own(**changes):
    """Arguments of from_tensors: 12 training and 6 test images of 2×4×5 in 3 classes."""
    x = torch.randn(18, 2, 4, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
    tensors = {
        "train_x": x[:12],
        "train_y": torch.arange(12) % 3,
        "test_x": x[12:],
        "test_y": torch.arange(6) % 3,
    }
    return {**tensors, "name": "mine", **changes}


def test_from_tensors_normalizes_by_the_training_images():
    given = own()
    data = ImageData.from_tensors(**given)
    pixels = given["train_x"].double().numpy()
    assert data.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std(), rel=1e-12)
    for key in ("train_x", "test_x"):
        assert_close(getattr(data, key), (given[key] - pixels.mean()) / pixels.std())
        assert_close(data.unnormalize(getattr(data, key)), given[key])
    assert_close(given["train_x"], own()["train_x"], atol=0, rtol=0)  # the tensors given stay as they were
    assert (data.name, data.num_classes, data.shape) == ("mine", 3, (2, 4, 5))
    assert (data.class_names, data.source) == (("0", "1", "2"), "tensors")


def test_from_tensors_keeps_tensors_names_and_number_of_classes():
    given = own()
    data = ImageData.from_tensors(**given, normalize=False, class_names=("a", "b", "c", "d"), source="a camera")
    assert data.train_x is given["train_x"]
    assert (data.num_classes, data.class_names, data.source) == (4, ("a", "b", "c", "d"), "a camera")
    assert (data.mean, data.std) == (0.0, 1.0)
    assert ImageData.from_tensors(**own(), num_classes=5).class_names == tuple("01234")


def with_value(value):
    x = own()["train_x"].clone()
    x[2, 1, 0, 0] = value
    return x


BAD: dict[str, tuple[dict, str]] = {
    "an array": (
        {"train_x": np.zeros((12, 2, 4, 5))},
        "train_x as a torch tensor; got ndarray. Use torch.as_t",
    ),
    "bytes": (
        {"test_x": torch.zeros(6, 2, 4, 5, dtype=torch.uint8)},
        "test_x of torch.float32; got torch.uint8",
    ),
    "two dtypes": (
        {"test_x": torch.zeros(6, 2, 4, 5).double()},
        "test_x of torch.float32; got torch.float64.",
    ),
    "float labels": (
        {"train_y": torch.zeros(12)},
        "train_y of torch.int64; got torch.float32. Use train_y.to",
    ),
    "no channels": (
        {"train_x": torch.zeros(12, 4, 5)},
        r"train_x of shape \(n, c, h, w\); got \(12, 4, 5\)",
    ),
    "one-hot labels": ({"test_y": torch.zeros(6, 3).long()}, r"test_y of shape \(n,\); got \(6, 3\)."),
    "nothing": (
        {"test_x": torch.zeros(0, 2, 4, 5)},
        r"something in test_x; got shape \(0, 2, 4, 5\). Give",
    ),
    "no labels": ({"train_y": torch.zeros(0).long()}, r"something in train_y; got shape \(0,\). Give"),
    "two devices": (
        {"test_y": torch.zeros(6, device="meta").long()},
        "all tensors on one device; got .*test_x on cpu, test_y on meta. Move them",
    ),
    "two shapes": (
        {"test_x": torch.zeros(6, 2, 5, 4)},
        r"one shape; got \(2, 4, 5\) and \(2, 5, 4\). Resize",
    ),
    "too few labels": (
        {"train_y": torch.zeros(11).long()},
        "many train labels as images; got 12 images, 11 labels",
    ),
    "too many test labels": (
        {"test_y": torch.zeros(7).long()},
        "many test labels as images; got 6 images, 7",
    ),
    "NaN": (
        {"train_x": with_value(torch.nan)},
        "finite numbers in train_x; got 1 NaN or infinite. Mend",
    ),
    "infinity": (
        {"train_x": with_value(-torch.inf)},
        "finite numbers in train_x; got 1 NaN or infinite.",
    ),
    "NaN in test": (
        {"test_x": torch.full((6, 2, 4, 5), torch.nan)},
        "finite numbers in test_x; got 240 NaN or",
    ),
    "negative label": (
        {"train_y": torch.arange(12) % 3 - 1},
        r"train_y in 0\.\.1; got labels from -1 to 1.",
    ),
    "unseen label": (
        {"test_y": torch.arange(6)},
        r"test_y in 0\.\.2; got labels from 0 to 5. Relabel, or set",
    ),
    "label too large": ({"num_classes": 2}, r"train_y in 0\.\.1; got labels from 0 to 2. Relabel"),
    "half a class": ({"num_classes": 2.5}, r"num_classes as a whole number; got 2.5. Leave it out"),
    "NumPy's labels": ({"train_y": np.arange(12) % 3}, "train_y as a torch tensor; got ndarray. Use torch.as_t"),
    "listed labels": ({"test_y": [0, 1, 2, 0, 1, 2]}, "test_y as a torch tensor; got list. Use torch.as_tensor"),
    "short labels": (
        {"train_y": (torch.arange(12) % 3).int()},
        r"train_y of torch.int64; got torch.int32. Use train_y.to\(torch.int64\)",
    ),
    "names": (
        {"num_classes": 3, "class_names": ("a", "b")},
        "3 class_names; got 2. Give one name",
    ),
    "constant": (
        {"train_x": torch.full((12, 2, 4, 5), 0.1)},
        "that vary; got 0.1 in every pixel. Set norm",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_from_tensors_refuses(case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=f"^Expected .*{message}"):
        ImageData.from_tensors(**own(**changes))


def test_constant_images_pass_without_normalization():
    data = ImageData.from_tensors(**own(train_x=torch.full((12, 2, 4, 5), 0.1)), normalize=False)
    assert data.train_x.unique().tolist() == [pytest.approx(0.1)]


def test_every_loader_is_tried_here():
    assert set(LOADERS) == {"digits", *FOLDERS}
    assert all(name in str(data_module.__doc__) and name in str(load_data.__doc__) for name in LOADERS)
