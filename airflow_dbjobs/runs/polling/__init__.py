"""One poller for all runs that a process waits for in a workspace."""
