"""A split of a dataset on the hub as rows, by the package datasets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from optimizer.data.files import Row
from optimizer.errors import DataError, first_line, install
from optimizer.hub import LOG_IN, Named, fault


@dataclass(frozen=True)
class Dataset:
    """One split; `classes` names the classes of each column of class labels, in the order of their numbers.

    In its rows such a label is a name, because a model may number its classes otherwise, and None where it has none.
    """

    where: str
    table: Any
    classes: Mapping[str, tuple[str, ...]]

    def rows(self) -> Iterator[Row]:
        """Its rows in their order."""
        for number, values in enumerate(self.table, start=1):
            named = {column: _name(values[column], names) for column, names in self.classes.items()}
            yield Row(f"{self.where}: row {number}", {**values, **named})


def open_dataset(where: Named, config: str | None, split: str | None, key: str, split_key: str, why: str) -> Dataset:
    """The dataset, downloaded if the cache lacks it; `key` and `split_key` are the settings that name it and its split.

    Raises DataError when the package is missing, there is no such dataset or split, or it cannot be had; `why` says
    why it is no file.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{key}: '{where.name}' {why}; as a dataset of the hub it needs the package datasets; {install('datasets')}"
        ) from None
    try:
        if split is None:
            splits = datasets.get_dataset_split_names(where.name, config_name=config, revision=where.revision)
            wanted = "test" if "test" in splits else next(iter(splits), "test")
            raise DataError(f"{split_key}: '{where.name}' has {', '.join(splits)}; write {split_key}={wanted}")
        table = datasets.load_dataset(where.name, name=config, split=split, revision=where.revision)
    except DataError:
        raise
    except ValueError as error:  # no such split, or no such configuration, with those that there are
        said = " ".join(str(error).split())
        raise DataError(f"{key}: '{where.name}': {said}; write {split_key}=SPLIT, data.config=NAME") from None
    except Exception as error:
        said = fault(error, where, "a file")
        if isinstance(error, datasets.exceptions.DatasetNotFoundError) and error.__cause__ is None:
            said = f"{first_line(error).rstrip('.')}; write it as the hub does, or {LOG_IN}"  # a private or a gated one
        raise DataError(f"{key}: '{where.name}' {why}; {said}") from None
    labels = {name: kind for name, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)}
    place = ", ".join(part for part in (config, split) if part)
    return Dataset(f"{where.name} ({place})", table, {name: tuple(kind.names) for name, kind in labels.items()})


def _name(label: Any, names: tuple[str, ...]) -> str | None:
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else None
