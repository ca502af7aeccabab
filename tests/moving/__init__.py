"""Tests of collector/moving/."""
