"""Frames, splits and where the files of each data set lie."""
