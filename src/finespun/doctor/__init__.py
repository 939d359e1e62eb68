"""`finespun doctor`: what keeps a project from working, each with its remedy."""
