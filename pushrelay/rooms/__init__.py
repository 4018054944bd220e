"""Socket.IO 5: packets, rooms, delivery, presence."""
