"""Room in a fixed array of words: runs of it are taken and given back."""

import bisect
import errno


class WordPool:
    """Runs of an array of ``size`` words; first fit, neighbours that are free are one run."""

    def __init__(self, size: int) -> None:
        self._starts = [0] if size else []
        self._sizes = {0: size} if size else {}

    @property
    def free(self) -> int:
        """Words that nobody has."""
        return sum(self._sizes.values())

    def take(self, count: int) -> int:
        """Where a run of ``count`` words begins. Raises OSError (E2BIG)."""
        for start in self._starts:
            if self._sizes[start] >= count:
                self.claim(start, count)
                return start
        raise OSError(
            errno.E2BIG,
            f"security-group rules: no {count} words in a row are free of the {self.free} that are;"
            " raise ACHELOUS_MAX_RULE_WORDS",
        )

    def claim(self, start: int, count: int) -> None:
        """Take the run that begins at ``start``; it must be free."""
        if not count:
            return
        index = bisect.bisect_right(self._starts, start) - 1
        begin = self._starts[index] if index >= 0 else -1
        size = self._sizes.get(begin, 0)
        if begin < 0 or start + count > begin + size:
            raise ValueError(f"words {start}..{start + count - 1} are not free")
        del self._starts[index]
        del self._sizes[begin]
        self._insert(begin, start - begin)
        self._insert(start + count, begin + size - start - count)

    def give_back(self, start: int, count: int) -> None:
        """The run is free again."""
        index = bisect.bisect_left(self._starts, start)
        if index < len(self._starts) and self._starts[index] == start + count:
            count += self._sizes.pop(self._starts.pop(index))
        if index and self._starts[index - 1] + self._sizes[self._starts[index - 1]] == start:
            start = self._starts.pop(index - 1)
            count += self._sizes.pop(start)
        self._insert(start, count)

    def _insert(self, start: int, count: int) -> None:
        if count:
            bisect.insort(self._starts, start)
            self._sizes[start] = count
