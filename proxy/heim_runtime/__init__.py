"""What every long-running program of Heim does alike: logs, tasks, signals, backoff, clock."""
