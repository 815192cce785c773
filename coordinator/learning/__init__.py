"""What is learnt from a round: the mean, the server step, the evaluation, the checkpoint."""
