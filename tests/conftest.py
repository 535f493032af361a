"""What several test files share: small data, other processes, a witness of the global random state, a browser."""

import multiprocessing

import pytest
import torch
from browsers import launch
from hypothesis import settings

from resalign_utils import ImageData, load_data

# The first product of a process loads torch's function transforms, which takes seconds; the same examples every time.
settings.register_profile("resalign", deadline=None, derandomize=True, database=None)
settings.load_profile("resalign")


@pytest.fixture(autouse=True)
def _runs_of_tests_stay_out_of_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESALIGN_CACHE", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


@pytest.fixture(scope="session")
def blobs():
    """Three clouds of images (1, 2, 3) that a small network tells apart: 47 for training, 20 for testing."""
    return clouds(1, 2, 3)


@pytest.fixture(scope="session")
def pictures():
    """The same with images (2, 5, 7)."""
    return clouds(2, 5, 7)


def clouds(*shape):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, *shape, generator=generator) * 3
    train_y, test_y = torch.arange(47) % 3, torch.arange(20) % 3
    train_x, test_x = (centres[y] + torch.randn(len(y), *shape, generator=generator) for y in (train_y, test_y))
    return ImageData.from_tensors(train_x, train_y, test_x, test_y, name="blobs")


@pytest.fixture
def random_state_untouched(monkeypatch):
    """Fails the test if it moves torch's global generator or reseeds a GPU's."""
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
    assert not reseeded


@pytest.fixture
def spawn():
    """Call a function of ``processes.py`` in a process of its own; what still runs after the test is ended.

    All are forked from one server, which has loaded once what takes seconds to load and knows nothing of pytest.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resalign_utils", "sklearn.datasets", "torch._dynamo", "torchvision"])
    children = []

    def start(function, *arguments):
        children.append(context.Process(target=function, args=arguments))
        children[-1].start()
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.join()
        child.close()
