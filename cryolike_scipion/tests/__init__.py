"""Tests of the engine and of the Scipion half; found by pytest and by ``scipion tests``."""
