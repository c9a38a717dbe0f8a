from collections.abc import Iterator

import pytest

from bench.conformance.reader import Reader


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    """One for all methods: importing transformers takes longer than all that it loads."""
    with Reader() as process:
        yield process
