"""The mitigation methods: each constructs circuits and combines their results."""
