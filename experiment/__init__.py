"""What the scripts share: command line, run folder, loggers, resume, summary."""
