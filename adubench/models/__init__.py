"""Predictors: classical ones here, networks beside them. They know no data set."""
