//! Which mode a daemon answers, and the controller that moves the mode with the load.
