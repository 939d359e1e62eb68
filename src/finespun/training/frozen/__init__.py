"""Never computing twice what is frozen: replay, inputs of the head, heads alone."""
