"""Losses and adapters of distillation methods: pure functions and small modules, one method per file."""
