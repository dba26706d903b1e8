"""Training of the regression networks: samples, augmentation, losses, the loop. Needs torch (extra ``train``)."""
