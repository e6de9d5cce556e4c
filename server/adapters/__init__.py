"""The world outside behind the models' ports: providers that we send to."""
