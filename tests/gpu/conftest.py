"""Without a card, real or played, there is nothing to check here: `make test-gpu`, `make test-played`."""

import pytest
from support.properties import DEVICE

DEVICE_NEEDED = "needs WIDEHEAD_TEST_DEVICE=cuda"


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest) -> None:
    if DEVICE == "cpu" and request.module.__name__.rpartition(".")[2] != "test_runner":
        pytest.skip(DEVICE_NEEDED)
