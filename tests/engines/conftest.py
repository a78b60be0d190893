"""What tests of engines share."""

import pytest


@pytest.fixture
def small_batches_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams share batches of any size, those of tests included."""
    monkeypatch.setattr("optimizer.engines.runnable.SHARED_TOKENS", 1)
