"""What `qtm.hardware` is made of: IBM Runtime, the job journal, checkpoints and calibration."""
