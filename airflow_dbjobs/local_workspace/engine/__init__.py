"""What makes runs progress: the scheduler, and the programs (or simulated tasks) it starts."""
