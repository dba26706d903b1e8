"""The ROS side: everything that knows a message, a topic or a node. Nothing outside this package imports it."""
