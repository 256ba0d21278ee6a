"""Evaluation: the likelihood of token blocks, statistics of scores, the device it runs on."""
