"""What every long-running Heim program does alike: logs, tasks, signals, backoff, time."""
