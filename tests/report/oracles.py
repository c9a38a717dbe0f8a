"""What statistics are held against: SciPy's own, one pair at a time."""

from scipy.stats import binomtest


def mcnemar(ours: str, theirs: str) -> float:
    """Exact two-sided p-value that two models are equally often right; one character (1 or 0) per item."""
    only = [a for a, b in zip(ours, theirs, strict=True) if a != b]
    return float(binomtest(only.count("1"), len(only)).pvalue) if only else 1.0
