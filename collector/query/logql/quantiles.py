"""Exact quantiles of many stretches of one array, overlapping or not, all at once.

A wavelet matrix over ranks: values become their places in sorted order, whose bits are looked at from the highest to the
lowest. At each bit the array is split, those with a 0 before those with a 1, and every question (the k-th smallest of
[begin, end)) follows its stretch to one of the two sides by counts of zeros. Nothing is kept from one bit to the next.

Cost: for n values and m questions (n + m) log n, however long the stretches are and however much they overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def quantiles(
    q: float, values: NDArray[np.float64], begins: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the q-quantile of each values[begin:end], interpolated linearly between ranks; NaN of an empty one.

    A NaN among the values is smaller than all others. Below 0 and above 1, q makes minus and plus infinity.
    """
    counts = ends - begins
    if np.isnan(q) or q < 0 or q > 1:
        return np.where(counts > 0, np.nan if np.isnan(q) else np.copysign(np.inf, q), np.nan)
    found = np.full(len(begins), np.nan)
    asked = np.flatnonzero(counts > 0)
    if not asked.size:
        return found
    ranks = q * (counts[asked] - 1)
    low = np.floor(ranks).astype(np.intp)
    high = np.minimum(low + 1, counts[asked] - 1)
    order = np.argsort(np.where(np.isnan(values), -np.inf, values), kind="stable")
    order = np.concatenate((order[np.isnan(values[order])], order[~np.isnan(values[order])]))
    places = np.empty(len(values), np.uint32)
    places[order] = np.arange(len(values), dtype=np.uint32)
    begin, end = (np.concatenate((one[asked], one[asked])) for one in (begins, ends))
    smallest = values[order[kth_smallest(places, begin, end, np.concatenate((low, high)))]]
    below, above = smallest[: len(asked)], smallest[len(asked) :]
    weights = ranks - np.floor(ranks)
    with np.errstate(all="ignore"):
        found[asked] = below * (1 - weights) + above * weights
    return found


def kth_smallest(
    places: NDArray[np.uint32], begins: NDArray[np.intp], ends: NDArray[np.intp], ranks: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the ranks-th smallest, from 0, of each places[begin:end], of which there must be so many.

    `places` are the numbers below their count, each once.
    """
    begins, ends, ranks = begins.copy(), ends.copy(), ranks.copy()
    found = np.zeros(len(begins), np.intp)
    zeros: NDArray[Any] = np.zeros(len(places) + 1, np.intp)  # zeros before each place
    for bit in range((len(places) - 1).bit_length() - 1, -1, -1):
        ones = (places >> np.uint32(bit)) & 1 == 1
        np.cumsum(~ones, out=zeros[1:])
        before, until = zeros[begins], zeros[ends]
        smaller = until - before
        upper = ranks >= smaller
        found += upper.astype(np.intp) << bit
        ranks -= np.where(upper, smaller, 0)
        begins = np.where(upper, begins - before + zeros[-1], before)
        ends = np.where(upper, ends - until + zeros[-1], until)
        places = np.concatenate((places[~ones], places[ones]))
    return found
