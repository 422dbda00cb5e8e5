"""The program's verbs, one file each. torch and FFmpeg are imported inside functions: `--help` pays for neither."""
