"""What is read beside the rows, or across them: the items that are ranked, events that make up a history."""
