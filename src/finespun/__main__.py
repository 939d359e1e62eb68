"""`python -m finespun` is the same as the console script `finespun`."""

from finespun.cli.main import main

main()
