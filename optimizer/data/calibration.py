"""The texts that engines and statistics are calibrated on, apart from those that agreement is measured on."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from optimizer.data.parts import by_hash, part
from optimizer.data.texts import DataSettings, Text, Texts, fingerprint, read
from optimizer.errors import DataError

MOST = 4096
"""Texts that are calibrated on, of however many are given: how often each word is met is counted on them."""
SPARED = 512
"""Texts that are taken from those to measure on, of however many there are."""
FEWEST = 8
_SHARE = 5  # at most one in so many of the texts to be measured on
_TOLERATED = 0.01  # of the given texts: more means that the wrong file was given


@dataclass(frozen=True)
class Shared:
    """The texts of a recipe whose artifact is calibrated: those to measure on, and the others.

    `dropped` counts the given calibration texts that are measured on too, and so are not calibrated on.
    """

    measured: Texts
    calibration: Texts
    dropped: int


def share_out(settings: DataSettings, *, is_demo: bool) -> Shared:
    """Read the texts that a recipe's `data` names, for a recipe that needs some to calibrate on.

    Raises DataError for texts that cannot be read, are too few, or are the same.
    """
    texts = read(settings, is_demo=is_demo)
    if settings.calibration is None:
        measured, calibration, dropped = *split(texts), 0
    else:
        measured = texts
        calibration, dropped = apart(texts, read(settings.calibrating, is_demo=False, key="data.calibration"))
    return Shared(part(measured, settings), calibration, dropped)  # all parts are calibrated alike


@dataclass(frozen=True)
class Calibration:
    """Texts to calibrate on, by the settings that name them: whoever needs them reads them."""

    data: DataSettings
    fingerprint: str
    examples: int

    def read(self) -> Texts:
        """The texts; DataError when they are no longer what they were."""
        texts = share_out(self.data, is_demo=False).calibration
        if texts.fingerprint != self.fingerprint:
            raise DataError(f"{texts.name}: has changed since the command began; run the command again")
        return texts


def measured(settings: DataSettings, *, is_demo: bool, calibrated: bool) -> Texts:
    """The texts to measure on: the part of all that a recipe's `data` names, or of those that `share_out` leaves."""
    if calibrated:
        return share_out(settings, is_demo=is_demo).measured
    return part(read(settings, is_demo=is_demo), settings)


def apart(texts: Texts, given: Texts) -> tuple[Texts, int]:
    """The given calibration texts without those that `texts` holds too, at most MOST, and how many it holds.

    Which of more than MOST is decided by their sha256. Raises DataError when more than one in a hundred is in both, or
    none is left.
    """
    asked = set(texts.texts)
    kept = [text for text in given.texts if text not in asked]
    dropped = len(given.texts) - len(kept)
    if dropped > _TOLERATED * len(given.texts):
        raise DataError(
            f"data.calibration: {dropped} of the {len(given.texts)} texts of {given.name} are also in {texts.name}, "
            "on which the agreement is measured; give others"
        )
    return _unlabelled(kept, given), dropped


def split(texts: Texts) -> tuple[Texts, Texts]:
    """The texts to measure on and those to calibrate on, where one file has to serve for both.

    Which are which is decided by their sha256, so that it depends on no order and no seed; equal texts stay together.
    Raises DataError when there are too few.
    """
    count = min(SPARED, len(set(texts.texts)) // _SHARE)
    if count < FEWEST:
        raise DataError(
            f"data.calibration: {texts.name} has too few texts to spare some for calibration; "
            "write data.calibration=FILE, with texts that need no labels"
        )
    chosen = set(by_hash(texts.texts)[:count])
    asked = [index for index, text in enumerate(texts.texts) if text not in chosen]
    return texts.at(asked), _unlabelled(chosen, texts)


def _unlabelled(texts: Iterable[Text], of: Texts) -> Texts:
    once = tuple(by_hash(texts)[:MOST])
    if not once:
        raise DataError(f"data.calibration: {of.name} holds no text that is not measured on; give others")
    digest = fingerprint(once, None)
    return replace(of, texts=once, labels=None, numbers=(), tokens=None, groups=None, fingerprint=digest)
