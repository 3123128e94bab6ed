"""Real coding agents, driven through the gateway; what it recorded is then held against what they did."""
