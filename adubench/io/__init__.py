"""Readers and writers of file formats. Every error names the file."""
