"""From the command line and configuration files to a checked configuration, and what is said about mistakes in them."""
