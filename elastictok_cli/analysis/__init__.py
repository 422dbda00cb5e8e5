"""What a file spends where, and how to say it."""
