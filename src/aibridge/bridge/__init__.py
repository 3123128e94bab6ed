"""The bridge itself: routing, interception, passthrough."""
