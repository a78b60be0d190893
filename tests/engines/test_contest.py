"""Which of two ways is faster: only what is clearly so, whatever disturbs a call now and then."""

from collections.abc import Callable, Iterator
from itertools import cycle

import pytest

from optimizer.engines.contest import is_faster


class Clock:
    """A clock that only what runs moves on."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, list[str]()

    def run(self, name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += next(seconds)

        return run


@pytest.mark.parametrize(
    ("challenger", "champion", "expected"),
    [
        ([0.090], [0.100], True),
        ([0.099], [0.100], False),
        ([0.100], [0.100], False),
        ([0.110], [0.100], False),
        ([0.090, 0.900, 0.900], [0.100, 0.100, 0.100], False),
        ([0.090, 0.090, 0.900], [0.100, 0.100, 0.100], True),
        ([0.090, 0.090, 0.270, 0.270, 0.270], [0.100, 0.100, 0.300, 0.300, 0.300], True),
    ],
)
def test_faster_is_what_saves_more_than_the_margin(
    challenger: list[float], champion: list[float], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    assert is_faster(clock.run("one", cycle(challenger)), clock.run("other", cycle(champion))) == expected


@pytest.mark.parametrize(("seconds", "rounds"), [(0.001, 100), (0.05, 10), (5.0, 5)])
def test_the_two_take_turns_for_about_a_second(seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    is_faster(clock.run("one", cycle([seconds])), clock.run("other", cycle([seconds])))
    assert clock.calls[:6] == ["one", "other", "other", "one", "one", "other"]
    assert len(clock.calls) == pytest.approx(2 + 2 * rounds, abs=2)
