"""What every program of Heim does alike: logs, tasks, signals, backoff, clock, command line."""
