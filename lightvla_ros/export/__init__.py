"""From a model to a policy folder that a robot can run."""
