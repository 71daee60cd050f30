"""Numbers and arrays of any library, copied without waiting for a device."""
