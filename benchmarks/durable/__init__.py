"""What durability costs, beside plain sqlite3 in the same run."""
