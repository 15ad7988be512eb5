"""The comparison as people read it: on a terminal, as a page, as figures."""
