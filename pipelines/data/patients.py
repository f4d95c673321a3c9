"""Patients read from file names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.data.errors import DataError

TIMEOUT = 1.0  # seconds a name: a thousandth is plenty; some patterns take longer than anybody lives
SHOWN = 3


def from_names(files: Sequence[Path], pattern: str, labels: Sequence[str], key: str) -> np.ndarray:
    """The patient of each file, (N,) str: group `patient` of `pattern`, a regular expression that is searched for in
    the name without suffix. A group `label` in it must be the file's own class.

    Args:
        labels: the class of each file. key: names the pattern in errors.

    Raises:
        DataError: no regular expression, no such group, a name without a patient or that takes too long, or a name
            that says another class.
    """
    import regex

    key = f"{key} {pattern!r}"
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise DataError(f"{key}: not a regular expression: {error}") from None
    if "patient" not in compiled.groupindex:
        raise DataError(f"{key}: it has no group (?P<patient>...), which says whose image it is")
    try:
        matches = [compiled.search(file.stem, timeout=TIMEOUT) for file in files]
    except TimeoutError:
        raise DataError(
            f"{key}: it takes more than {TIMEOUT:g} s for one name; it repeats a repetition, as (a+)+ does: write it "
            "so that each character can be matched in one way"
        ) from None
    missed = [file for file, match in zip(files, matches) if match is None or not match["patient"]]
    if missed:
        how_many = (
            "no file name"
            if len(missed) == len(files)
            else f"{len(files) - len(missed)} of {len(files)} file names, not to all"
        )
        found = [number for number, match in enumerate(matches) if match is not None and match["patient"]]
        lost = [number for number, file in enumerate(files) if file in set(missed)]
        shown = (lost[: SHOWN - 1] + found[:1] + lost[SHOWN - 1 :])[:SHOWN]
        raise DataError(
            f"{key}: it gives a patient to {how_many}: "
            f"{'; '.join(_caught(files[number].stem, matches[number]) for number in shown)}; change the pattern or the "
            "names, or leave it out (null, --pattern '') where names tell no patient"
        )
    for file, label, match in zip(files, labels, matches):
        if "label" in compiled.groupindex and match["label"] not in (None, label):
            raise DataError(
                f"{file}: its name says {match['label']!r} but its class is {label!r}; move it, or leave the group "
                f"`label` out of {key.split()[0]} when names carry no class"
            )
    return np.array([match["patient"] for match in matches])


def _caught(name: str, match) -> str:
    if match is None:
        return f"{name!r} no match"
    groups = ", ".join(f"{group} {value!r}" for group, value in match.groupdict().items())
    return f"{name!r} {groups}"
