"""The comparison for readers: on a terminal, as a page, as figures."""
