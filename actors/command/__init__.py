"""The command `understudy`, and the demo provider it drives."""
