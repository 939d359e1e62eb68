"""What somebody's data could be trained for: columns, task, splits, and the files that say so (`finespun init`)."""
