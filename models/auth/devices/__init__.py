"""Push tokens: where the devices that are signed in can be woken."""
