"""The parts of training a policy by imitation."""
