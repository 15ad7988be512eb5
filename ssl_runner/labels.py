"""What stands in the place of a label where there is none."""

UNLABELED = -1
"""The target of an image without a label (scikit-learn's convention)."""
