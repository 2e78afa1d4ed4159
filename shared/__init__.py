"""What every process of the project shares: workflows, the state machine, and the one writer of statuses."""
