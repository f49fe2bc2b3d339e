"""The processes of a command: who started them, what they are told, and what they agree on."""
