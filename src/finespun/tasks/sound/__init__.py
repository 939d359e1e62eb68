"""Sound: recordings as an input, tasks that hear, and scores of transcripts."""
