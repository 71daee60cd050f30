"""What runs contain besides scalars: read and decoded when it is asked for."""
