"""What a split's predictions say beyond their scores: calibration, slices, comparisons, labels to check, cost."""
