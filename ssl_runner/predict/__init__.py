"""A saved model's answers: `finding.py` and `images.py` say of what, `asking.py` asks,
`answering.py` writes them down."""
