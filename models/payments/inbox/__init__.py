"""What gateways have told: stored before it is answered, worked off afterwards."""
