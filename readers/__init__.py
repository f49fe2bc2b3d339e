"""From files to plain values and arrays: one folder per kind of data, one module per format."""
