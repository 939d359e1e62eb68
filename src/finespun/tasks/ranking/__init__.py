"""Tasks whose answer is a ranking of items: a vector for the query, a vector for each item, and the nearest first."""
