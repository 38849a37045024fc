"""Commands of the command line: each module parses, calls one function, prints."""
