"""What a search draws from, and what it draws: pure functions over plain values."""
