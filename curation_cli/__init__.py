"""The command line: starts everything, shows it at work, and curates from a shell."""
