"""Files to plain values and arrays, errors with file and line: a room for each kind of data, a format a file."""
