"""Recipes: one YAML file per published experiment, and the schema that they and every `--set` must fit."""
