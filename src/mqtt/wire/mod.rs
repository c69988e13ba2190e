//! Frames and packets of MQTT 3.1, 3.1.1 and 5.
