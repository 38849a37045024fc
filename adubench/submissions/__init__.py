"""KITTI server submissions: export, check, offline scoring."""
