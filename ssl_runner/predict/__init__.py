"""A saved model's answers: `answers.py` asks models, `calibration.py` judges how sure they are."""
