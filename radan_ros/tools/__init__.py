"""Console programs. Thin: what they do is in the library; what they need of ROS is in each program."""
