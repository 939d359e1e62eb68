"""Checks of a data set as a whole: labels, splits, what two splits share, what the tokenizer makes of the texts."""
