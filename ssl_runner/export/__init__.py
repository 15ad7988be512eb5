"""A saved model for other programs: `exporting.py` makes the file, `__main__.py` is the command."""
