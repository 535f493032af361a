"""What several tests of traces share."""

import pytest
from contracts import randomised

from resalign_utils import ResNetConfig, build_model


@pytest.fixture
def small(blobs):
    """A network of three blocks in float64, and its inputs."""
    return randomised(build_model(ResNetConfig(3, 8), blobs)), blobs.test_x.double()
