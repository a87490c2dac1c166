"""A fleet under attack: `python -m tests.chaos --seed N` kills, pauses and wipes its parts while jobs run, then counts."""
