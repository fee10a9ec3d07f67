from collections.abc import Iterator

import pytest
from support.several import Several


@pytest.fixture(scope="session")
def several() -> Iterator[Several]:
    made = Several()
    yield made
    made.close()
