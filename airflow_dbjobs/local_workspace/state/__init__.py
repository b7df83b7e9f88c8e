"""What the workspace remembers: its folder, its records, and the SQLite file that keeps them."""
