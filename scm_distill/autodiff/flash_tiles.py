"""The tiles that the kernel of `flash` may work in, by GPU; knows no Triton.

A tile is chosen by timing among the few of its row. tests/benchmarks/kernel_table.json says what each compiles to.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Tile(NamedTuple):
    """Query rows and keys of one step of the loop, warps of a program, stages of its pipeline of loads."""

    rows: int
    keys: int
    warps: int
    stages: int


Rows = Mapping[int, tuple[Tile, ...]]  # by the widest head dimension, in pieces, that a row serves

# For which spill no registers at head dimensions up to 128 see tests/benchmarks/kernel_table.json. The last of each row
# fits the smallest shared memory, 99 KB. By the entries' bytes (4: TF32), the GPU, and whether O is known.
TILES: Mapping[tuple[int, int, bool], Rows] = {
    (2, 80, True): {
        64: (Tile(128, 64, 8, 2), Tile(128, 32, 8, 3), Tile(64, 32, 4, 3)),
        96: (Tile(128, 32, 8, 2), Tile(128, 16, 8, 2)),
        128: (Tile(128, 16, 8, 2), Tile(32, 32, 4, 2)),
        160: (Tile(64, 16, 8, 2), Tile(32, 16, 8, 2)),
        256: (Tile(32, 16, 8, 2), Tile(16, 16, 4, 1)),
    },
    (2, 80, False): {
        64: (Tile(128, 32, 8, 2), Tile(64, 32, 4, 2)),
        128: (Tile(32, 32, 8, 2), Tile(32, 16, 4, 2)),
        256: (Tile(32, 16, 8, 2), Tile(16, 16, 4, 1)),
    },
    (2, 90, True): {
        64: (Tile(128, 64, 8, 3), Tile(128, 64, 8, 2), Tile(64, 32, 4, 3)),
        96: (Tile(128, 64, 8, 2), Tile(128, 32, 8, 2)),
        128: (Tile(128, 64, 8, 2), Tile(128, 32, 8, 2), Tile(64, 32, 4, 2)),
        160: (Tile(128, 32, 8, 2), Tile(64, 32, 4, 2)),
        256: (Tile(128, 16, 8, 2), Tile(64, 16, 4, 2)),
    },
    (2, 90, False): {
        64: (Tile(128, 64, 8, 2), Tile(64, 32, 4, 2)),
        128: (Tile(128, 16, 8, 2), Tile(64, 32, 4, 1)),
        256: (Tile(32, 16, 8, 2), Tile(16, 16, 4, 1)),
    },
    (4, 80, True): {
        64: (Tile(64, 32, 8, 2), Tile(64, 32, 4, 2)),
        96: (Tile(64, 16, 8, 2), Tile(32, 16, 8, 2)),
        128: (Tile(32, 16, 8, 2), Tile(16, 16, 4, 2)),
    },
    (4, 80, False): {
        64: (Tile(64, 16, 8, 2), Tile(32, 32, 4, 2)),
        128: (Tile(16, 16, 4, 1),),
    },
    (4, 90, True): {
        64: (Tile(128, 32, 8, 2), Tile(64, 32, 4, 2)),
        96: (Tile(64, 32, 4, 2), Tile(64, 16, 4, 2)),
        128: (Tile(128, 16, 8, 2), Tile(16, 16, 4, 2)),
    },
    (4, 90, False): {
        64: (Tile(64, 32, 4, 2), Tile(64, 16, 8, 2)),
        128: (Tile(16, 16, 4, 1),),
    },
}


def pieces(width: int, *, whole: bool = False) -> tuple[int, int]:
    """Powers of two of 16 or more that hold a head dimension: 64 is (64, 0), 72 is (64, 16), 120 is (128, 0).

    With `whole` it is not split: the next power of two, and 0.
    """
    power = max(16, 1 << (width - 1).bit_length())
    first = power // 2
    rest = max(16, 1 << (width - first - 1).bit_length())
    return (power, 0) if whole or first < 16 or first + rest >= power else (first, rest)


def tiles(capability: tuple[int, int], itemsize: int, width: int, *, known: bool) -> tuple[Tile, ...]:
    """The tiles to choose from for a head dimension, in pieces, of at most `width`; `itemsize` bytes an entry.

    `known`: O is known, and dO alone is computed.
    """
    large = capability[0] in (9, 10)  # 227 KB of shared memory, and products of whole warp groups
    rows = TILES[itemsize, 90 if large else 80, known]
    return rows[min(wide for wide in rows if wide >= width)]
