"""A trial of a sweep, seen from inside: what it is told, what it reports, Optuna's storage of studies."""
