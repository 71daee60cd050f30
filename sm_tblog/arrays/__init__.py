"""Copy numbers and arrays of any library without waiting for a device."""
