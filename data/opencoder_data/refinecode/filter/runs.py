"""Long runs of characters of one class, found without a look at every character."""

from numba import njit


@njit(cache=True)
def next_run(cp, member, start, least):
    """(start, end) of the first run of at least `least` members from `start` on, itself maximal within cp[start:];
    (size, size) when there is none. member: bool[128], of ASCII characters."""
    n = cp.size
    a = start  # no run of that length begins before
    while a + least <= n:
        i = a + least - 1
        while i >= a and cp[i] < 128 and member[cp[i]]:
            i -= 1
        if i >= a:
            a = i + 1
            continue
        end = a + least
        while end < n and cp[end] < 128 and member[cp[end]]:
            end += 1
        return a, end
    return n, n
