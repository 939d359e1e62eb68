"""Results as pictures, tables and words: pure, nothing is computed anew."""
