"""Training, checkpoints, and predictions from checkpoints. Importing the package costs no torch."""
