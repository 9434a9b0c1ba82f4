"""Implementation of `qtm.hardware`: IBM Runtime, the job journal, checkpoints and calibration."""
